"""Canonical answers, and Anthropic's streams checked event by event, for tests of that surface."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from k9_api.dialects.anthropic import egress
from k9_api.dialects.anthropic.stream import MessageStream
from k9_broker.jobs import Job, JobState
from k9_broker.requests import InferenceRequest, Kind, Operation, Priority
from k9_broker.results import Result, Usage

USAGE = Usage(prompt=1532, completion=40, cached=1111, reasoning=7, written=418)
SIGNED = {"type": "thinking", "thinking": "hm", "signature": "c2ln"}
REDACTED = {"type": "redacted_thinking", "data": "b3BhcXVl"}

DELTAS: Mapping[str, list[dict[str, Any]]] = {
    "text": [{"role": "assistant", "content": ""}, {"content": "Hel"}, {"content": "lo"}],
    "thinking": [{"reasoning": "h"}, {"reasoning_content": "m"}, {"content": "yes"}],
    "signed": [
        {"reasoning": "hm"},
        {"thinking_blocks": [{"type": "thinking", "thinking": "", "signature": "c2ln"}]},
        {"thinking_blocks": [REDACTED]},
        {"content": "yes"},
    ],
    "tools": [
        {"content": "I look."},
        {"tool_calls": [{"index": 0, "id": "c0", "function": {"name": "look", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"at":'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": ' "Paris"}'}}]},
        {"tool_calls": [{"index": 1, "id": "c1", "function": {"name": "wait", "arguments": ""}}]},
    ],
    "both tools at once": [
        {
            "tool_calls": [
                {"index": 0, "id": "c0", "function": {"name": "look", "arguments": '{"at": "Paris"}'}},
                {"index": 1, "id": "c1", "function": {"name": "wait", "arguments": "{}"}},
            ]
        }
    ],
    "refusal": [{"refusal": "I will "}, {"refusal": "not."}],
    "nothing": [{"role": "assistant"}],
}
"""The deltas of streams, by what they are about."""

CALLS = [
    {"id": "c0", "type": "function", "function": {"name": "look", "arguments": '{"at": "Paris"}'}},
    {"id": "c1", "type": "function", "function": {"name": "wait", "arguments": ""}},
]
MESSAGES: Mapping[str, dict[str, Any]] = {
    "text": {"content": "Hello"},
    "thinking": {"reasoning": "hm", "content": "yes"},
    "signed": {"reasoning": "hm", "thinking_blocks": [SIGNED, REDACTED], "content": "yes"},
    "tools": {"content": "I look.", "tool_calls": CALLS},
    "both tools at once": {"content": None, "tool_calls": CALLS},
    "refusal": {"content": None, "refusal": "I will not."},
    "nothing": {"content": ""},
}
"""The same answers whole."""

_TOOLS = [
    {"type": "tool_use", "id": "c0", "name": "look", "input": {"at": "Paris"}},
    {"type": "tool_use", "id": "c1", "name": "wait", "input": {}},
]
BLOCKS: Mapping[str, list[dict[str, Any]]] = {
    "text": [{"type": "text", "text": "Hello"}],
    "thinking": [{"type": "thinking", "thinking": "hm", "signature": ""}, {"type": "text", "text": "yes"}],
    "signed": [SIGNED, REDACTED, {"type": "text", "text": "yes"}],
    "tools": [{"type": "text", "text": "I look."}, *_TOOLS],
    "both tools at once": _TOOLS,
    "refusal": [{"type": "text", "text": "I will not."}],
    "nothing": [],
}
"""What a caller must read, whole or streamed."""


def job() -> Job:
    return Job(
        id="job-0123456789abcdefghjkmnpqrs", state=JobState.SUCCEEDED, generation=1,
        operation=Operation.CHAT, model="asked", tenant="acme", priority=Priority.INTERACTIVE,
        backend="fake", kind=Kind.LOCAL, reason="order:first", stream=False,
        created_at=1_763_850_000.0, deadline_at=1_763_850_600.0,
    )  # fmt: skip


def asked(**body: Any) -> InferenceRequest:
    said = {"model": "asked", "messages": [{"role": "user", "content": "hello " * 40}], **body}
    return InferenceRequest(Operation.CHAT, "asked", said)


def whole(
    message: Mapping[str, Any], finish_reason: str = "stop", used: Usage = USAGE, **more: Any
) -> dict[str, Any]:
    """The Message for one canonical answer; `more` stands in its choice, `body` in the request."""
    request = asked(**more.pop("body", {}))
    choice = {"index": 0, "message": message, "finish_reason": finish_reason, **more}
    answer = egress.message(request, job(), Result("served", used, {"choices": [choice]}))
    return dict(json.loads(answer))


def chunks(deltas: Iterable[Mapping[str, Any]], finish_reason: str = "stop", **more: Any) -> list[Any]:
    """Canonical chunks, the last with `finish_reason`, then the usage. `more` stands beside the reason."""
    pieces = [{"choices": [{"index": 0, "delta": delta}], "model": "served"} for delta in deltas]
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": finish_reason, **more}], "model": "served"}
    return [*pieces, end, {"choices": [], "usage": USAGE.openai()}]


def streamed(written: Iterable[Mapping[str, Any]], **body: Any) -> list[dict[str, Any]]:
    """The events a caller gets for these chunks."""
    writer = MessageStream(asked(**body), job())
    return events(b"".join([writer.write(one) or b"" for one in written] + [writer.close()]))


def events(raw: bytes) -> list[dict[str, Any]]:
    """Frames as bytes, read as strictly as they must be written."""
    assert raw.endswith(b"\n\n")
    found = []
    for frame in raw.decode().removesuffix("\n\n").split("\n\n"):
        name, data = frame.split("\n")
        assert name.startswith("event: ")
        assert data.startswith("data: ")
        event = json.loads(data.removeprefix("data: "))
        assert event["type"] == name.removeprefix("event: ")
        found.append(event)
    return found


def gathered(found: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The Message that events tell, every rule of their order checked on the way."""
    start, *middle, delta, stop = [event for event in found if event["type"] != "ping"]
    assert (start["type"], delta["type"], stop) == (
        "message_start",
        "message_delta",
        {"type": "message_stop"},
    )
    assert start["message"]["content"] == []
    assert {"input_tokens", "output_tokens"} <= start["message"]["usage"].keys()
    assert "output_tokens" in delta["usage"]
    blocks: list[dict[str, Any]] = []
    json_of: dict[int, str] = {}
    is_open = False
    for event in middle:
        match event["type"]:
            case "content_block_start":
                assert not is_open
                assert event["index"] == len(blocks)
                blocks.append(event["content_block"])
                is_open = True
            case "content_block_delta":
                assert is_open
                assert event["index"] == len(blocks) - 1
                _grow(blocks[-1], event["delta"], json_of, event["index"])
            case "content_block_stop":
                assert is_open
                assert event["index"] == len(blocks) - 1
                is_open = False
            case other:
                raise AssertionError(f"{other} amid the blocks")
    assert not is_open
    for index, text in json_of.items():
        blocks[index]["input"] = json.loads(text)
    return {**start["message"], **delta["delta"], "content": blocks, "usage": delta["usage"]}


def _grow(block: dict[str, Any], delta: Mapping[str, Any], json_of: dict[int, str], index: int) -> None:
    match delta["type"], block["type"]:
        case "text_delta", "text":
            block["text"] += delta["text"]
        case "thinking_delta", "thinking":
            block["thinking"] += delta["thinking"]
        case "signature_delta", "thinking":
            block["signature"] = delta["signature"]
        case "input_json_delta", "tool_use":
            json_of[index] = json_of.get(index, "") + delta["partial_json"]
        case pair:
            raise AssertionError(f"{pair} do not go together")
