"""Streams in Anthropic's format, put together and read by its dialect."""

from __future__ import annotations

import json
from typing import Any

from k9_broker.dialects.anthropic.dialect import Anthropic
from k9_broker.requests import InferenceRequest, Operation

DIALECT = Anthropic()
CHAT = InferenceRequest(Operation.CHAT, "claude", {"messages": []})

Event = dict[str, Any]


def wire(events: list[Event]) -> bytes:
    """The bytes of a stream, padded within the JSON as the service pads it."""
    return "".join(
        f"event: {event['type']}\ndata: {json.dumps(event)[:-1]}{' ' * (place % 7)}}}\n\n"
        for place, event in enumerate(events)
    ).encode()


def begin(**usage: Any) -> Event:
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x", "content": []}
    counts = {"input_tokens": 11, "output_tokens": 1, **usage}
    return {"type": "message_start", "message": {**message, "stop_reason": None, "usage": counts}}


def block(index: int, given: dict[str, Any], *deltas: dict[str, Any]) -> list[Event]:
    """A whole block: its start, its deltas and its stop."""
    return [
        {"type": "content_block_start", "index": index, "content_block": given},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def text(index: int, *pieces: str) -> list[Event]:
    deltas = ({"type": "text_delta", "text": piece} for piece in pieces)
    return block(index, {"type": "text", "text": ""}, *deltas)


def thinking(index: int, signature: str, *pieces: str) -> list[Event]:
    deltas = ({"type": "thinking_delta", "thinking": piece} for piece in pieces)
    start = {"type": "thinking", "thinking": "", "signature": ""}
    return block(index, start, *deltas, {"type": "signature_delta", "signature": signature})


def tool_use(index: int, call_id: str, *pieces: str) -> list[Event]:
    deltas = ({"type": "input_json_delta", "partial_json": piece} for piece in pieces)
    return block(index, {"type": "tool_use", "id": call_id, "name": "f", "input": {}}, *deltas)


def end(reason: str | None = "end_turn", usage: dict[str, Any] | None = None, **more: Any) -> list[Event]:
    delta = {"stop_reason": reason, "stop_sequence": None, **more}
    return [
        {"type": "message_delta", "delta": delta, "usage": usage or {"output_tokens": 6}},
        {"type": "message_stop"},
    ]


def replay(raw: bytes, size: int = 1 << 20) -> list[dict[str, Any]]:
    """The chunks of a stream whose bytes come `size` at a time."""
    parser = DIALECT.parser(CHAT)
    chunks = [
        dict(chunk) for start in range(0, len(raw), size) for chunk in parser.feed(raw[start : start + size])
    ]
    return chunks + [dict(chunk) for chunk in parser.close()]


def folded(chunks: list[dict[str, Any]]) -> dict[str, Any]:
    """What a caller who joins the chunks has in the end: the message, its ending and the usage."""
    message: dict[str, Any] = {"content": "", "reasoning": "", "thinking_blocks": [], "tool_calls": {}}
    made: dict[str, Any] = {"message": message}
    for chunk in chunks:
        for choice in chunk["choices"]:
            delta = choice["delta"]
            message["content"] += delta.get("content") or ""
            message["reasoning"] += delta.get("reasoning") or ""
            message["thinking_blocks"] += delta.get("thinking_blocks") or []
            for piece in delta.get("tool_calls") or []:
                call = message["tool_calls"].setdefault(piece["index"], ["", "", ""])
                call[0] += piece.get("id") or ""
                call[1] += piece["function"].get("name") or ""
                call[2] += piece["function"]["arguments"]
            if choice["finish_reason"]:
                made["finish_reason"] = choice["finish_reason"]
            if "stop_reason" in choice:
                made["stop_reason"] = choice["stop_reason"]
            if "refusal" in delta:
                message["refusal"] = delta["refusal"]
        if "usage" in chunk:
            made["usage"] = chunk["usage"]
    return made
