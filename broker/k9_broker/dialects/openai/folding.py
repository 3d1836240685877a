"""A streamed answer folded back into a whole one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from k9_broker.requests import Operation
from k9_broker.results import Chunk

_JOINED = ("content", "refusal", "reasoning")
"""The texts of a message that come in pieces."""


def fold(operation: Operation, chunks: Iterable[Chunk]) -> dict[str, Any]:
    """The body that the same answer would have had without `stream`; its choices in order of index."""
    body: dict[str, Any] = {}
    choices: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        body |= {name: value for name, value in chunk.items() if name not in ("choices", "usage")}
        for piece in chunk.get("choices") or ():
            index = piece.get("index", 0)
            choice = choices.setdefault(index, {"index": index, "logprobs": None, "finish_reason": None})
            choice |= {name: piece[name] for name in ("finish_reason", "stop_reason") if piece.get(name)}
            _add_logprobs(choice, piece.get("logprobs"))
            if operation is Operation.CHAT:
                _add(choice.setdefault("message", {"role": "assistant"}), piece.get("delta") or {})
            else:
                choice["text"] = choice.get("text", "") + (piece.get("text") or "")
    for choice in choices.values():
        message = choice.get("message", {})
        if calls := message.get("tool_calls"):
            message["tool_calls"] = [calls[index] for index in sorted(calls)]
        if operation is Operation.CHAT:
            message.setdefault("content", None if calls else "")
    return body | {"choices": [choices[index] for index in sorted(choices)]}


def _add(message: dict[str, Any], delta: Mapping[str, Any]) -> None:
    for name in _JOINED:
        if delta.get(name):
            message[name] = (message.get(name) or "") + delta[name]
    for block in delta.get("thinking_blocks") or ():
        message.setdefault("thinking_blocks", []).append(_signed(message, block))
    for piece in delta.get("tool_calls") or ():
        calls = message.setdefault("tool_calls", {})
        call = calls.setdefault(
            piece.get("index", len(calls)),
            {"id": None, "type": "function", "function": {"name": "", "arguments": ""}},
        )
        call["id"] = call["id"] or piece.get("id")
        function = piece.get("function") or {}
        call["function"]["name"] = call["function"]["name"] or function.get("name") or ""
        call["function"]["arguments"] += function.get("arguments") or ""


def _signed(message: Mapping[str, Any], block: Mapping[str, Any]) -> Mapping[str, Any]:
    """A block of thinking whose signature has come, with the reasoning text that no block before it had."""
    if block.get("type") != "thinking" or block.get("thinking"):
        return block
    told = sum(len(before.get("thinking", "")) for before in message.get("thinking_blocks", ()))
    return {**block, "thinking": message.get("reasoning", "")[told:]}


def _add_logprobs(choice: dict[str, Any], logprobs: Mapping[str, Any] | None) -> None:
    for name, values in (logprobs or {}).items():
        if isinstance(values, list):
            choice["logprobs"] = choice["logprobs"] or {}
            choice["logprobs"].setdefault(name, []).extend(values)
