"""A stream of OpenAI's shape, put right while it passes.

Every server of the family gets something wrong: usage in every chunk or none, `choices` null or
empty, reasons empty, foreign, repeated or missing, deltas absent, tool calls in pieces of their own
making, errors in a frame followed by a cheerful `[DONE]`, or simply an end in the middle.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic_core import from_json

from k9_broker.dialects.base import read_usage, unreadable, usage_chunk
from k9_broker.dialects.finish_reasons import finish_reason
from k9_broker.dialects.openai.answer import settle_extras, settle_reasoning
from k9_broker.dialects.sse import ServerEvent, SseParser
from k9_broker.dialects.tool_calls import ToolCallStream
from k9_broker.dialects.wire_errors import in_band
from k9_broker.errors import StreamTruncated
from k9_broker.requests import InferenceRequest, Operation
from k9_broker.results import Chunk

_HEAD = ("id", "object", "created", "model")


def frame_value(event: ServerEvent, *, last: bool) -> Any:
    """The JSON of a frame. Raises the error it holds; where it is the `last` one, it may have been cut."""
    try:
        value = from_json(event.data)
    except ValueError:
        raise StreamTruncated if last else unreadable("has a frame that is not JSON") from None
    if error := in_band(value, name=event.name):
        raise error
    return value


class _Choice:
    """What has been seen of one choice."""

    __slots__ = ("finished", "tools")

    def __init__(self) -> None:
        self.finished = False
        self.tools: ToolCallStream | None = None


class OpenAIStream:
    """A `StreamParser`. Only the last chunk has `usage`; a choice has exactly one finish reason."""

    def __init__(self, request: InferenceRequest) -> None:
        self._sse = SseParser()
        self._chat = request.operation is Operation.CHAT
        self._choices: dict[int, _Choice] = {}
        self._head: dict[str, Any] = {
            "id": "",
            "object": "chat.completion.chunk" if self._chat else "text_completion",
            "created": 0,
            "model": request.model,
        }
        self._named = False
        self._usage: Any = None
        self.ended = False

    def feed(self, data: bytes) -> Iterator[Chunk]:
        for event in self._sse.feed(data):
            if chunk := self._read(event):
                yield chunk

    def close(self) -> Iterator[Chunk]:
        for event in self._sse.close():
            if chunk := self._read(event, last=True):
                yield chunk
        open_choices = {index: state for index, state in self._choices.items() if not state.finished}
        if not self.ended and (open_choices or not self._choices):
            raise StreamTruncated
        for index, state in open_choices.items():
            yield self._finish(index, state)
        yield usage_chunk(read_usage(self._usage), self._head)

    def _read(self, event: ServerEvent, *, last: bool = False) -> Chunk | None:
        data = event.data
        if self.ended or not data or data.isspace():
            return None
        if data.startswith(b"[DONE]"):
            self.ended = True
            return None
        chunk = frame_value(event, last=last)
        if not isinstance(chunk, dict):
            raise unreadable("has a frame that is not an object")
        if usage := chunk.pop("usage", None):
            self._usage = usage
        chunk.pop("obfuscation", None)  # random padding
        choices = chunk.get("choices")
        if not choices or not isinstance(choices, list):
            return None
        if not self._named:
            self._head |= {name: chunk[name] for name in _HEAD if chunk.get(name)}
            self._named = bool(chunk.get("id"))
        elif not chunk.get("id"):  # Azure's notes on what its filter found
            chunk |= {name: value for name, value in self._head.items() if not chunk.get(name)}
        for choice in choices:
            self._settle(choice)
        return chunk

    def _settle(self, choice: Any) -> None:
        """Put one choice of one chunk right, in place."""
        if not isinstance(choice, dict):
            raise unreadable("has a choice that is not an object")
        settle_extras(choice)
        index = choice.get("index")
        if not isinstance(index, int):
            choice["index"] = index = 0
        state = self._choices.get(index)
        if state is None:
            state = self._choices[index] = _Choice()
        if self._chat:
            delta = choice.get("delta")
            if not isinstance(delta, dict):
                choice["delta"] = delta = {}
            settle_reasoning(delta)
            if "tool_calls" in delta:
                calls = delta.pop("tool_calls")
                if calls and isinstance(calls, list):
                    state.tools = state.tools or ToolCallStream()
                    delta["tool_calls"] = state.tools.pieces(calls)
        said = choice.get("finish_reason")
        if not said or state.finished:
            choice["finish_reason"] = None
        else:
            choice["finish_reason"] = finish_reason(said, tools=state.tools is not None)
            state.finished = True

    def _finish(self, index: int, state: _Choice) -> Chunk:
        """The chunk a server left out: `[DONE]` came, but no reason."""
        content: dict[str, Any] = {"delta": {}} if self._chat else {"text": ""}
        reason = "tool_calls" if state.tools else "stop"
        choice = {"index": index, **content, "logprobs": None, "finish_reason": reason}
        return {**self._head, "choices": [choice]}
