"""What a request asks for: its task type and whether it needs a strong model.

From its endpoint, its parameters and its text, in this order; the caller's own word beats them all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from k9_broker import classify
from k9_broker.requests import InferenceRequest, Operation, TaskType

_FOLLOW_UP = 40
"""Characters. A shorter last turn of a conversation is read together with the turn before it."""


@dataclass(frozen=True, slots=True)
class Recognition:
    """`by` tells whence the task type: `caller`, `rule:NAME`, `endpoint`, `parameters` or `text`."""

    task_type: TaskType
    confidence: float
    """0 to 1; 1 unless it was read from the text."""
    by: str
    needs_strong: float
    """0 to 1: how much a strong model would gain over a small one."""


def recognise(request: InferenceRequest) -> Recognition:
    """Pure; some hundreds of microseconds at most, however long the text."""
    if request.operation is Operation.EMBEDDINGS:
        return Recognition(TaskType.EMBEDDINGS, 1.0, "endpoint", 0.0)
    text = asked_text(request)
    needs_strong = classify.needs_strong(text)
    if request.task_type is not None:
        return Recognition(request.task_type, 1.0, "caller", needs_strong)
    if request.body.get("suffix"):
        return Recognition(TaskType.CODE_COMPLETION, 1.0, "parameters", needs_strong)
    task_type, confidence = classify.recognise_text(text)
    if confidence < 0.5 and _wants_fields(request.body):
        return Recognition(TaskType.EXTRACTION_CLASSIFICATION, 1.0, "parameters", needs_strong)
    return Recognition(task_type, confidence, "text", needs_strong)


def asked_text(request: InferenceRequest) -> str:
    """The text that says what is wanted: the last thing the user wrote, or the prompt."""
    if request.operation is not Operation.CHAT:
        prompt = request.body.get("prompt")
        if isinstance(prompt, list):
            prompt = prompt[0] if prompt else ""
        return prompt if isinstance(prompt, str) else ""
    turns = [
        _text(message.get("content"))
        for message in request.body.get("messages") or ()
        if message.get("role") == "user"
    ]
    if len(turns) > 1 and len(turns[-1]) < _FOLLOW_UP:
        return f"{turns[-2]}\n{turns[-1]}"
    return turns[-1] if turns else ""


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else ()
    return "\n".join(str(part.get("text") or "") for part in parts if isinstance(part, Mapping))


def _wants_fields(body: Mapping[str, Any]) -> bool:
    wanted = body.get("response_format")
    return isinstance(wanted, Mapping) and wanted.get("type") == "json_schema"
