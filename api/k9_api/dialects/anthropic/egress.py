"""Whole answers as Anthropic's clients read them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic_core import from_json, to_json

from k9_broker.errors import BackendError
from k9_broker.jobs import Job
from k9_broker.requests import InferenceRequest
from k9_broker.results import Result, Usage

_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}
REASONING = ("reasoning", "reasoning_content")
"""Backends name a reasoning text in two ways."""


def message(asked: InferenceRequest, job: Job, result: Result) -> bytes:
    """The JSON of a Message. Raises `BackendError` when a tool's arguments are no JSON object."""
    choice: Mapping[str, Any] = next(iter((result.body or {}).get("choices") or ()), {})
    said = choice.get("message") or {}
    content = list(_content(said, shows_thinking(asked)))
    calls = any(block["type"] == "tool_use" for block in content)
    return to_json(
        {
            **head(job, result.model),
            "content": content,
            **stopped(choice.get("finish_reason"), choice.get("stop_reason"), calls, said.get("refusal")),
            "usage": usage(result.usage),
        }
    )


def head(job: Job, model: str) -> dict[str, Any]:
    """What stands before an answer's content."""
    name = "msg_" + job.id.removeprefix("job-")
    return {"id": name, "type": "message", "role": "assistant", "model": model}


def shows_thinking(asked: InferenceRequest) -> bool:
    """Whether the caller may be shown thinking; some models think although they are told not to."""
    thinking = asked.body.get("thinking") or {}
    return thinking.get("type") != "disabled"


def stopped(reason: Any, sequence: Any, calls: bool, refusal: Any = None) -> dict[str, str | None]:
    """`stop_reason` and `stop_sequence` for a finish reason and the stop string that matched, if any."""
    if calls and reason != "length":
        return {"stop_reason": "tool_use", "stop_sequence": None}
    if reason == "stop" and sequence and isinstance(sequence, str):
        return {"stop_reason": "stop_sequence", "stop_sequence": sequence}
    word = "refusal" if refusal else _REASONS.get(str(reason), "end_turn")
    return {"stop_reason": word, "stop_sequence": None}


def usage(used: Usage) -> dict[str, Any]:
    """Anthropic's `usage`: unlike OpenAI's prompt tokens, `input_tokens` are without what a cache held."""
    return {
        "input_tokens": max(0, used.prompt - used.cached - used.written),
        "cache_creation_input_tokens": used.written,
        "cache_read_input_tokens": used.cached,
        "output_tokens": used.completion,
        **({"output_tokens_details": {"thinking_tokens": used.reasoning}} if used.reasoning else {}),
    }


def reasoning_of(said: Mapping[str, Any]) -> str:
    """The reasoning text of a message or of a delta."""
    return next((text for name in REASONING if (text := said.get(name)) and isinstance(text, str)), "")


def _content(said: Mapping[str, Any], thinking: bool) -> Iterator[dict[str, Any]]:
    signed = said.get("thinking_blocks")
    if signed:
        yield from (dict(block) for block in signed)
    elif thinking and (text := reasoning_of(said)):
        yield {"type": "thinking", "thinking": text, "signature": ""}
    for name in ("content", "refusal"):
        if said.get(name):
            yield {"type": "text", "text": said[name]}
    for call in said.get("tool_calls") or ():
        function = call["function"]
        arguments = _object(function.get("arguments"))
        yield {"type": "tool_use", "id": call["id"], "name": function["name"], "input": arguments}


def _object(arguments: Any) -> dict[str, Any]:
    """A tool's arguments. An answer that reached its length may have only the beginning of them."""
    if not arguments or isinstance(arguments, dict):
        return arguments or {}
    try:
        told = from_json(arguments, allow_partial=True)
    except ValueError:
        told = None
    if not isinstance(told, dict):
        raise BackendError("The backend called a tool with arguments that are no JSON object.")
    return told
