"""Streamed answers as Anthropic's clients read them: events in a strict order, blocks without gaps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic_core import to_json

from k9_api.dialects.anthropic import egress
from k9_api.frames import frame
from k9_broker.errors import BackendError
from k9_broker.jobs import Job
from k9_broker.requests import InferenceRequest
from k9_broker.results import Chunk, Usage
from k9_broker.tokens import prompt_tokens

Event = dict[str, Any]


def write_event(event: Event) -> bytes:
    """The frame of one event, named by its type."""
    return frame(to_json(event), event=event["type"])


PING = write_event({"type": "ping"})


class MessageStream:
    """A `StreamWriter`.

    Nothing is written before there is something to say, so that a backend that fails early can be
    replaced. The usage in `message_start` is K-9's estimate; `message_delta` says what was counted.
    """

    def __init__(self, asked: InferenceRequest, job: Job) -> None:
        self._asked = asked
        self._job = job
        self._thinking = egress.shows_thinking(asked)
        self._started = False
        self._index = -1
        self._open: str | None = None
        """The type of the block that is open."""
        self._call = -1
        """The call that the last `tool_use` block stands for, by its index in OpenAI's chunks."""
        self._model = job.model
        self._reason: Any = None
        self._sequence: Any = None
        self._refused = False
        self._usage: Usage | None = None

    def write(self, chunk: Chunk) -> bytes | None:
        """Raises `BackendError` when the pieces of two tool calls are mixed, which no block can show."""
        if chunk.get("usage"):
            self._usage = Usage.from_openai(chunk["usage"])
        if not self._started and chunk.get("model"):
            self._model = chunk["model"]
        events: list[Event] = []
        for choice in chunk.get("choices") or ():
            if choice.get("index", 0) == 0:
                self._read(choice, events)
        return self._written(events) if events else None

    def close(self) -> bytes:
        events: list[Event] = []
        self._end_block(events)
        used = {"output_tokens": 0} if self._usage is None else egress.usage(self._usage)
        stopped = egress.stopped(self._reason, self._sequence, self._call >= 0, self._refused)
        events += [{"type": "message_delta", "delta": stopped, "usage": used}, {"type": "message_stop"}]
        return self._written(events)

    def _written(self, events: Iterable[Event]) -> bytes:
        if not self._started:
            self._started = True
            events = [self._start(), *events]
        return b"".join(map(write_event, events))

    def _start(self) -> Event:
        estimate = Usage(prompt=prompt_tokens(self._asked).likely)
        return {
            "type": "message_start",
            "message": {
                **egress.head(self._job, self._model),
                "content": [],
                "stop_reason": None,
                "stop_sequence": None,
                "usage": egress.usage(estimate),
            },
        }

    def _read(self, choice: Mapping[str, Any], events: list[Event]) -> None:
        delta = choice.get("delta") or {}
        if self._thinking and (text := egress.reasoning_of(delta)):
            self._block("thinking", {"thinking": "", "signature": ""}, events)
            self._delta({"type": "thinking_delta", "thinking": text}, events)
        for block in delta.get("thinking_blocks") or ():
            self._signed(block, events)
        for name in ("content", "refusal"):
            if said := delta.get(name):
                self._refused = self._refused or name == "refusal"
                self._block("text", {"text": ""}, events)
                self._delta({"type": "text_delta", "text": said}, events)
        for piece in delta.get("tool_calls") or ():
            self._tool(piece, events)
        self._reason = choice.get("finish_reason") or self._reason
        self._sequence = choice.get("stop_reason") or self._sequence

    def _signed(self, block: Mapping[str, Any], events: list[Event]) -> None:
        """The signature of the thinking so far, or thinking that is not shown."""
        if block.get("type") == "redacted_thinking":
            self._begin(dict(block), events)
        else:
            self._block("thinking", {"thinking": "", "signature": ""}, events)
            if block.get("thinking"):
                self._delta({"type": "thinking_delta", "thinking": block["thinking"]}, events)
            self._delta({"type": "signature_delta", "signature": block.get("signature") or ""}, events)
        self._end_block(events)

    def _tool(self, piece: Mapping[str, Any], events: list[Event]) -> None:
        function = piece.get("function") or {}
        index = piece.get("index", 0)
        if index > self._call:
            self._call = index
            name = {"id": piece.get("id") or "", "name": function.get("name") or ""}
            self._begin({"type": "tool_use", **name, "input": {}}, events)
        elif index < self._call or self._open != "tool_use":
            raise BackendError("The backend mixed the pieces of two tool calls. Ask without `stream`.")
        if arguments := function.get("arguments"):
            self._delta({"type": "input_json_delta", "partial_json": arguments}, events)

    def _block(self, kind: str, empty: Mapping[str, Any], events: list[Event]) -> None:
        """Have a block of this type open."""
        if self._open != kind:
            self._begin({"type": kind, **empty}, events)

    def _begin(self, block: Event, events: list[Event]) -> None:
        self._end_block(events)
        self._index += 1
        self._open = block["type"]
        events.append({"type": "content_block_start", "index": self._index, "content_block": block})

    def _delta(self, delta: Event, events: list[Event]) -> None:
        events.append({"type": "content_block_delta", "index": self._index, "delta": delta})

    def _end_block(self, events: list[Event]) -> None:
        if self._open is not None:
            self._open = None
            events.append({"type": "content_block_stop", "index": self._index})
