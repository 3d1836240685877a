"""The events of one streamed answer of Anthropic's: read as they come, or folded into the whole message."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic_core import from_json

from k9_broker.dialects.anthropic.errors import in_band
from k9_broker.dialects.base import unreadable
from k9_broker.dialects.sse import ServerEvent, SseParser
from k9_broker.errors import StreamTruncated

Event = Mapping[str, Any]
"""What an event's data hold; `type` says which it is."""

_PIECES: Mapping[str, str] = {
    "text_delta": "text",
    "thinking_delta": "thinking",
    "input_json_delta": "partial_json",
}
"""Deltas that add to a block, and the key of what they add."""


class EventReader:
    """Gives whole events, pings left out, up to and with `message_stop`.

    Both methods raise the error that an `error` event tells. An event that was cut at the end of the
    stream is left out: whether something is missing is seen from what came before it.
    """

    def __init__(self) -> None:
        self._sse = SseParser()
        self.ended = False

    def feed(self, data: bytes) -> Iterator[Event]:
        for frame in self._sse.feed(data):
            yield from self._read(frame)

    def close(self) -> Iterator[Event]:
        for frame in self._sse.close():
            yield from self._read(frame, last=True)

    def _read(self, frame: ServerEvent, *, last: bool = False) -> Iterator[Event]:
        if self.ended or frame.name == "ping" or not frame.data or frame.data.isspace():
            return
        try:
            event = from_json(frame.data)
        except ValueError:
            if last:
                return
            raise unreadable("has an event that is not JSON") from None
        if error := in_band(event, name=frame.name):
            raise error
        if not isinstance(event, dict):
            raise unreadable("has an event that is not an object")
        kind = event.setdefault("type", frame.name)
        self.ended = kind == "message_stop"
        yield event


def part(event: Event, name: str) -> Mapping[str, Any]:
    """The object `name` of an event; an empty one where there is none."""
    found = event.get(name)
    return found if isinstance(found, Mapping) else {}


def told(usage: Mapping[str, Any]) -> dict[str, Any]:
    """The counts that are there: later ones replace earlier ones, and null replaces nothing."""
    return {name: count for name, count in usage.items() if count is not None}


def whole_message(body: bytes) -> dict[str, Any]:
    """The message that a complete stream makes, as the service would have answered it unstreamed.

    Raises what `EventReader` raises, and `StreamTruncated` when the end is missing.
    """
    reader = EventReader()
    message: dict[str, Any] = {}
    blocks: dict[Any, dict[str, Any]] = {}
    for event in (*reader.feed(body), *reader.close()):
        match event["type"]:
            case "message_start":
                message = dict(part(event, "message"))
            case "content_block_start":
                blocks[event.get("index")] = dict(part(event, "content_block"))
            case "content_block_delta":
                _add(blocks.setdefault(event.get("index"), {}), part(event, "delta"))
            case "message_delta":
                usage = {**part(message, "usage"), **told(part(event, "usage"))}
                message |= {**part(event, "delta"), "usage": usage}
    if not message or not (reader.ended or message.get("stop_reason")):
        raise StreamTruncated
    return {**message, "content": [_settled(block) for block in blocks.values()]}


def _add(block: dict[str, Any], delta: Mapping[str, Any]) -> None:
    kind = delta.get("type")
    if name := _PIECES.get(str(kind)):
        block[name] = (block.get(name) or "") + str(delta.get(name) or "")
    elif kind == "signature_delta":
        block["signature"] = delta.get("signature")


def _settled(block: dict[str, Any]) -> dict[str, Any]:
    """The block with its `input` read, where that came in pieces."""
    if text := block.pop("partial_json", None):
        try:
            block["input"] = from_json(text)
        except ValueError:  # cut short by max_tokens: the caller gets the text as it is
            block["input"] = text
    return block
