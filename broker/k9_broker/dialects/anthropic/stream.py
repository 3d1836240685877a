"""Anthropic's stream in OpenAI's chunks.

Blocks begin, grow and end, one after another; a tool call's pieces, thinking and its signature each
have a delta of their own. Counts of tokens are cumulative: later ones replace earlier ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from k9_broker.dialects.anthropic.answer import ending, explanation, head_of, usage_of
from k9_broker.dialects.anthropic.events import Event, EventReader, part, told
from k9_broker.dialects.base import usage_chunk
from k9_broker.dialects.tool_calls import ToolCallStream
from k9_broker.errors import StreamTruncated
from k9_broker.requests import InferenceRequest
from k9_broker.results import Chunk


class _Block:
    """The block whose deltas are coming."""

    __slots__ = ("arguments", "given", "kind", "signature")

    def __init__(self, given: Mapping[str, Any]) -> None:
        self.given = given
        self.kind = given.get("type")
        self.signature = given.get("signature") or ""
        self.arguments = False
        """Whether any of a tool call's arguments came."""


class AnthropicStream:
    """A `StreamParser`. The role comes first, then the content, one finish reason, the usage last.

    Blocks and deltas of kinds it does not know are passed over: the service adds new ones.
    """

    def __init__(self, request: InferenceRequest) -> None:
        self._request = request
        self._events = EventReader()
        self._head: dict[str, Any] = {}
        self._blocks: dict[Any, _Block] = {}
        self._tools = ToolCallStream()
        self._usage: dict[str, Any] = {}
        self._finished = False

    @property
    def ended(self) -> bool:
        return self._events.ended

    def feed(self, data: bytes) -> Iterator[Chunk]:
        for event in self._events.feed(data):
            yield from self._read(event)

    def close(self) -> Iterator[Chunk]:
        for event in self._events.close():
            yield from self._read(event)
        if not self._head or not (self.ended or self._finished):
            raise StreamTruncated
        if not self._finished:
            yield self._finish({})
        yield usage_chunk(usage_of(self._usage), self._head)

    def _read(self, event: Event) -> Iterator[Chunk]:
        index = event.get("index")
        match event["type"]:
            case "message_start":
                message = part(event, "message")
                self._usage |= told(part(message, "usage"))
                self._head = head_of(self._request, message, streamed=True)
                yield self._chunk({"role": "assistant", "content": ""})
            case "content_block_start" if self._head:
                block = self._blocks[index] = _Block(part(event, "content_block"))
                yield from self._begin(index, block)
            case "content_block_delta" if index in self._blocks:
                yield from self._grow(index, self._blocks[index], part(event, "delta"))
            case "content_block_stop" if index in self._blocks:
                yield from self._end(index, self._blocks.pop(index))
            case "message_delta" if self._head:
                self._usage |= told(part(event, "usage"))
                delta = part(event, "delta")
                if delta.get("stop_reason") and not self._finished:
                    yield self._finish(delta)

    def _begin(self, index: Any, block: _Block) -> Iterator[Chunk]:
        """A block may begin with its first text."""
        if block.kind == "tool_use":
            function = {"name": block.given.get("name"), "arguments": ""}
            yield self._call(index, {"id": block.given.get("id"), "function": function})
        elif block.kind == "redacted_thinking":
            yield self._chunk({"thinking_blocks": [dict(block.given)]})
        elif block.kind == "text" and block.given.get("text"):
            yield self._chunk({"content": block.given["text"]})
        elif block.kind == "thinking" and block.given.get("thinking"):
            yield self._chunk({"reasoning": block.given["thinking"]})

    def _grow(self, index: Any, block: _Block, delta: Mapping[str, Any]) -> Iterator[Chunk]:
        match delta:
            case {"type": "text_delta", "text": str(text)} if text:
                yield self._chunk({"content": text})
            case {"type": "thinking_delta", "thinking": str(text)} if text:
                yield self._chunk({"reasoning": text})
            case {"type": "signature_delta", "signature": str(signature)}:
                block.signature = signature
            case {"type": "input_json_delta", "partial_json": str(text)} if text:
                block.arguments = True
                yield self._call(index, {"function": {"arguments": text}})

    def _end(self, index: Any, block: _Block) -> Iterator[Chunk]:
        if block.kind == "thinking" and block.signature:
            thinking = {"type": "thinking", "thinking": "", "signature": block.signature}
            yield self._chunk({"thinking_blocks": [thinking]})
        elif block.kind == "tool_use" and not block.arguments:
            yield self._call(index, {"function": {"arguments": block.given.get("input") or {}}})

    def _call(self, index: Any, piece: Mapping[str, Any]) -> Chunk:
        return self._chunk({"tool_calls": self._tools.pieces([{**piece, "index": index}])})

    def _finish(self, said: Mapping[str, Any]) -> Chunk:
        self._finished = True
        refused = explanation(said)
        delta = {"refusal": refused} if refused else {}
        return self._chunk(delta, ending(said, tools=self._tools.count > 0))

    def _chunk(self, delta: dict[str, Any], end: Mapping[str, Any] | None = None) -> Chunk:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None, **(end or {})}
        return {**self._head, "choices": [choice]}
