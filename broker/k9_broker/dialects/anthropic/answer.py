"""Anthropic's answers in OpenAI's shape: one choice; text, thinking and tool calls apart."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from k9_broker.dialects.base import unreadable
from k9_broker.dialects.finish_reasons import finish_reason
from k9_broker.dialects.tool_calls import whole_calls
from k9_broker.requests import InferenceRequest
from k9_broker.results import Result, Usage

THINKING = ("thinking", "redacted_thinking")
"""Blocks that go back to Anthropic unchanged with the next turn."""


def result(request: InferenceRequest, message: Mapping[str, Any]) -> Result:
    """The `Result` a whole message stands for. Raises `BackendError` when it is none."""
    content = message.get("content")
    if not isinstance(content, list) or not all(isinstance(block, Mapping) for block in content):
        raise unreadable("has no list of content blocks")
    calls = [_call(block) for block in content if block.get("type") == "tool_use"]
    text = _joined(content, "text")
    made: dict[str, Any] = {
        "role": "assistant",
        "content": text or None if calls else text,
        "refusal": explanation(message),
    }
    if reasoning := _joined(content, "thinking"):
        made["reasoning"] = reasoning
    if thinking := [dict(block) for block in content if block.get("type") in THINKING]:
        made["thinking_blocks"] = thinking
    if calls:
        made["tool_calls"] = whole_calls(calls)
    choice = {"index": 0, "message": made, "logprobs": None, **ending(message, tools=bool(calls))}
    usage = usage_of(message.get("usage"))
    head = head_of(request, message, streamed=False)
    body = {**head, "choices": [choice], "usage": usage.openai()}
    return Result(head["model"], usage, body=body)


def head_of(request: InferenceRequest, message: Mapping[str, Any], *, streamed: bool) -> dict[str, Any]:
    """`id`, `object`, `created` and `model`. Anthropic does not say when; now is near enough."""
    return {
        "id": str(message.get("id") or f"chatcmpl-{uuid4().hex}"),
        "object": "chat.completion.chunk" if streamed else "chat.completion",
        "created": int(time.time()),
        "model": str(message.get("model") or request.model),
    }


def ending(said: Mapping[str, Any], *, tools: bool) -> dict[str, Any]:
    """`finish_reason`, and as `stop_reason` the stop sequence that matched.

    A refusal stays one even after a tool call: what was refused midway is not to be run.
    """
    reason = said.get("stop_reason")
    if reason == "model_context_window_exceeded":
        reason = "max_tokens"
    finish = finish_reason(reason, tools=tools and reason != "refusal")
    made = {"finish_reason": finish or ("tool_calls" if tools else "stop")}
    if said.get("stop_sequence"):
        made["stop_reason"] = said["stop_sequence"]
    return made


def explanation(said: Mapping[str, Any]) -> str | None:
    """Why the model refused, where it tells."""
    details = said.get("stop_details")
    told = details.get("explanation") if isinstance(details, Mapping) else None
    return told if isinstance(told, str) and told else None


def usage_of(usage: Any) -> Usage:
    """The tokens. Anthropic's `input_tokens` leave out what its cache gave or took; K-9's prompt has all."""
    if not isinstance(usage, Mapping):
        return Usage()
    details = usage.get("output_tokens_details")
    cached, written = _count(usage, "cache_read_input_tokens"), _count(usage, "cache_creation_input_tokens")
    return Usage(
        prompt=_count(usage, "input_tokens") + cached + written,
        completion=_count(usage, "output_tokens"),
        cached=cached,
        reasoning=_count(details, "thinking_tokens") if isinstance(details, Mapping) else 0,
        written=written,
    )


def _count(usage: Mapping[str, Any], name: str) -> int:
    count = usage.get(name)
    return min(max(0, count), 10**9) if isinstance(count, int) else 0


def _joined(content: list[Mapping[str, Any]], kind: str) -> str:
    """The text of all blocks of a kind, which keep it under its name."""
    return "".join(str(block.get(kind) or "") for block in content if block.get("type") == kind)


def _call(block: Mapping[str, Any]) -> dict[str, Any]:
    function = {"name": block.get("name"), "arguments": block.get("input")}
    return {"id": block.get("id"), "function": function}
