"""Ollama's answers in OpenAI's words: what whole ones and streamed ones have in common."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import uuid4

from k9_broker.dialects import wire_errors
from k9_broker.dialects.base import json_value, read_usage, unreadable
from k9_broker.dialects.embeddings import inputs_of, vectors
from k9_broker.dialects.finish_reasons import finish_reason
from k9_broker.dialects.tool_calls import whole_calls
from k9_broker.errors import StreamTruncated
from k9_broker.requests import InferenceRequest, Operation
from k9_broker.results import Result, Usage


def whole(request: InferenceRequest, body: bytes) -> Result:
    """The result in the body of a 2xx response. Raises the error that it hides."""
    answer = read(body)
    model, usage = str(answer.get("model") or request.model), usage_of(answer)
    if request.operation is Operation.EMBEDDINGS:
        rows = answer.get("embeddings")
        if not isinstance(rows, list):
            raise unreadable("has no list of embeddings")
        return Result(model, usage, vectors=vectors(rows, len(inputs_of(request))))
    if answer.get("done") is not True:
        raise StreamTruncated
    choice: dict[str, Any] = {"index": 0, "logprobs": None}
    tools = False
    if request.operation is Operation.CHAT:
        message = message_of(answer)
        content = message.get("content") or ""
        made: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
        choice["message"] = made
        if thinking := message.get("thinking"):
            made["reasoning"] = thinking
        if calls := message.get("tool_calls"):
            made.update(tool_calls=whole_calls(calls), content=content or None)
            tools = True
    else:
        choice["text"] = answer.get("response") or ""
    choice["finish_reason"] = reason_of(answer, tools=tools)
    head = head_of(request, answer, streamed=False)
    return Result(model, usage, body={**head, "choices": [choice], "usage": usage.openai()})


def read(body: bytes) -> Mapping[str, Any]:
    """The object in `body`, unless it is an error, which is raised."""
    return checked(json_value(body))


def checked(answer: Any) -> Mapping[str, Any]:
    """The same for what has been read."""
    if error := wire_errors.in_band(answer):
        raise error
    if not isinstance(answer, dict):
        raise unreadable("is not a JSON object")
    return answer


def message_of(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    message = answer.get("message")
    return message if isinstance(message, Mapping) else {}


def reason_of(answer: Mapping[str, Any], *, tools: bool) -> str:
    return finish_reason(answer.get("done_reason"), tools=tools) or ("tool_calls" if tools else "stop")


def usage_of(answer: Mapping[str, Any]) -> Usage:
    """Ollama leaves counters out when they are zero."""
    return read_usage(
        {"prompt_tokens": answer.get("prompt_eval_count"), "completion_tokens": answer.get("eval_count")}
    )


def head_of(request: InferenceRequest, answer: Mapping[str, Any], *, streamed: bool) -> dict[str, Any]:
    """What every chunk, or the answer, has in common."""
    chat = request.operation is Operation.CHAT
    kind = ("chat.completion.chunk" if streamed else "chat.completion") if chat else "text_completion"
    return {
        "id": f"{'chatcmpl' if chat else 'cmpl'}-{uuid4().hex}",
        "object": kind,
        "created": _seconds(answer.get("created_at")),
        "model": str(answer.get("model") or request.model),
    }


def _seconds(created_at: Any) -> int:
    try:
        return int(datetime.fromisoformat(created_at).timestamp())
    except (TypeError, ValueError, OverflowError):
        return 0
