"""Anthropic's system prompt and turns as OpenAI's messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic_core import to_json

from k9_api.dialects.anthropic.blocks import (
    Part,
    checked,
    content_of,
    mark,
    parts_of,
    parts_of_block,
    refused,
)
from k9_api.dialects.decoding import Path, dotted
from k9_broker.errors import BadRequest

_SHOWN = ("text", "image", "document")
"""What a user may show."""
_RESULTS = frozenset({"text", "image_url"})
"""The parts a tool's message may have."""


def messages_of(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """OpenAI's messages for a body whose shape has been checked. Raises `BadRequest` naming the block."""
    messages: list[dict[str, Any]] = []
    if system := body.get("system"):
        messages.append(_system(system, ("system",)))
    for index, turn in enumerate(body["messages"]):
        at: Path = ("messages", index, "content")
        content = turn["content"]
        if turn["role"] == "assistant":
            messages.append(_assistant(content, at))
        elif not content:
            raise BadRequest(f"`{dotted(at)}` must not be empty.", param=dotted(at))
        elif turn["role"] == "system":
            messages.append(_system(content, at))
        else:
            messages += _user(content, at)
    if body.get("cache_control") is not None:  # of the whole request: it marks the last block
        mark(messages[-1], body)
    return messages


def _system(content: str | list[Mapping[str, Any]], at: Path) -> dict[str, Any]:
    said = content if isinstance(content, str) else content_of(parts_of(content, at, ("text",)))
    return {"role": "system", "content": said}


def _user(content: str | list[Mapping[str, Any]], at: Path) -> list[dict[str, Any]]:
    """The results of tools, each as a message of its own, then what the user says."""
    if isinstance(content, str):
        return [{"role": "user", "content": content}]
    results: list[dict[str, Any]] = []
    parts: list[Part] = []
    for index, block in enumerate(content):
        place = (*at, index)
        if checked(block, place) == "tool_result":
            results.append(_result(block, place))
        else:
            parts += parts_of_block(block, place, _SHOWN)
    return [*results, {"role": "user", "content": content_of(parts)}] if parts else results


def _result(block: Mapping[str, Any], at: Path) -> dict[str, Any]:
    content = block.get("content") or ""
    if not isinstance(content, str):
        parts = parts_of(content, (*at, "content"), _SHOWN)
        if not {part["type"] for part in parts} <= _RESULTS:
            raise refused((*at, "content"), "documents other than text in the result of a tool")
        content = content_of(parts)
    message = {"role": "tool", "tool_call_id": block["tool_use_id"], "content": content}
    if block.get("is_error"):
        message["is_error"] = True
    mark(message, block)
    return message


def _assistant(content: str | list[Mapping[str, Any]], at: Path) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": content}
    if isinstance(content, str):
        return message
    parts: list[Part] = []
    calls: list[dict[str, Any]] = []
    thoughts: list[str] = []
    signed: list[Mapping[str, Any]] = []
    for index, block in enumerate(content):
        place = (*at, index)
        match checked(block, place):
            case "tool_use":
                calls.append(_call(block))
                mark(message, block)
            case "thinking":
                thoughts.append(block["thinking"])
                # Without a signature it is from a backend that gives none, and no other would take it.
                if block.get("signature"):
                    signed.append(block)
            case "redacted_thinking":
                signed.append(block)
            case _:
                parts += parts_of_block(block, place, ("text", "document"))
    message["content"] = _joined(parts, at) if parts else None if calls else ""
    if calls:
        message["tool_calls"] = calls
    if reasoning := "\n\n".join(thought for thought in thoughts if thought):
        message["reasoning"] = reasoning
    if signed:
        message["thinking_blocks"] = signed
    return message


def _joined(parts: list[Part], at: Path) -> str | list[Part]:
    """One text: an answer's texts are pieces of one. Where one is marked for a cache they stay apart."""
    if any(part["type"] != "text" for part in parts):
        raise refused(at, "documents other than text in an assistant's message")
    if any("cache_control" in part for part in parts):
        return parts
    return "".join(part["text"] for part in parts)


def _call(block: Mapping[str, Any]) -> dict[str, Any]:
    function = {"name": block["name"], "arguments": to_json(block["input"]).decode()}
    return {"id": block["id"], "type": "function", "function": function}
