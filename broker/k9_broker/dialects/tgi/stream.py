"""TGI's streams: the chat route's, which is nearly OpenAI's, and `/generate_stream`'s own.

TGI leaves the stop string at the end of the text, where OpenAI's clients do not expect it; it is taken
off, and told as `stop_reason`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from uuid import uuid4

from k9_broker.dialects.base import read_usage, unreadable, usage_chunk
from k9_broker.dialects.finish_reasons import finish_reason
from k9_broker.dialects.openai.stream import OpenAIStream, frame_value
from k9_broker.dialects.sse import ServerEvent, SseParser
from k9_broker.dialects.tgi.request import SERVED, stops
from k9_broker.errors import StreamTruncated
from k9_broker.requests import InferenceRequest
from k9_broker.results import Chunk, Usage


def without_stop(text: str, sequences: Sequence[Any]) -> tuple[str, str | None]:
    """The text without the stop string it ends with, and that string; the longest, if several fit."""
    fitting = [one for one in sequences if isinstance(one, str) and one and text.endswith(one)]
    if not fitting:
        return text, None
    stop = max(fitting, key=len)
    return text[: -len(stop)], stop


class StopTail:
    """Holds back the end of a growing text for as long as it may turn out to be a stop string."""

    def __init__(self, sequences: Sequence[Any]) -> None:
        self._stops = [one for one in sequences if isinstance(one, str) and one]
        self._held = ""

    def push(self, piece: str) -> str:
        """What is certainly part of the answer, now that `piece` has come."""
        text = self._held + piece
        keep = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def end(self, piece: str, *, stopped: bool) -> tuple[str, str | None]:
        """The rest with the last `piece`; if it `stopped` by itself, the stop string is told apart."""
        text, self._held = self._held + piece, ""
        return without_stop(text, self._stops) if stopped else (text, None)


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` are the beginning of `stop`."""
    longest = min(len(text), len(stop))
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)


class TgiChatStream:
    """A `StreamParser` for the chat route: one id, the role once, no stop string."""

    def __init__(self, request: InferenceRequest) -> None:
        self._inner = OpenAIStream(request)
        self._tail = StopTail(stops(request.body))
        self._model = request.model
        self._head: dict[str, Any] = {}

    @property
    def ended(self) -> bool:
        return self._inner.ended

    def feed(self, data: bytes) -> Iterator[Chunk]:
        for chunk in self._inner.feed(data):
            yield self._settled(chunk)

    def close(self) -> Iterator[Chunk]:
        for chunk in self._inner.close():
            yield self._settled(chunk)

    def _settled(self, chunk: Chunk) -> Chunk:
        first = not self._head
        if first:
            self._head = chat_head(chunk, self._model, streamed=True)
        choices = [self._choice(choice, first=first) for choice in chunk.get("choices") or ()]
        return {**chunk, **self._head, "choices": choices}

    def _choice(self, choice: Mapping[str, Any], *, first: bool) -> dict[str, Any]:
        delta = dict(choice.get("delta") or {})
        if not first:
            delta.pop("role", None)
        content, reason = delta.get("content") or "", choice.get("finish_reason")
        made = {**choice, "delta": delta}
        if reason:
            content, stop = self._tail.end(content, stopped=reason == "stop")
            if stop:
                made["stop_reason"] = stop
        elif content:
            content = self._tail.push(content)
        if content or "content" in delta:
            delta["content"] = content
        return made


def chat_head(answer: Mapping[str, Any], model: str, *, streamed: bool) -> dict[str, Any]:
    """What every chunk, or the answer, has in common: TGI's ids are empty and its times differ."""
    told = answer.get("model")
    return {
        "id": answer.get("id") or f"chatcmpl-{uuid4().hex}",
        "object": "chat.completion.chunk" if streamed else "chat.completion",
        "created": answer.get("created") or int(time.time()),
        "model": told if isinstance(told, str) and told not in ("", SERVED) else model,
    }


def text_head(model: str) -> dict[str, Any]:
    """The same for `/generate`, which tells nothing of it."""
    return {
        "id": f"cmpl-{uuid4().hex}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": model,
    }


def details_usage(details: Mapping[str, Any]) -> Usage:
    """The tokens of a native answer. Whole ones tell the prompt's only in a header: it counts 0 here."""
    prefill = details.get("prefill")
    counted = len(prefill) if isinstance(prefill, list) else 0
    return read_usage(
        {
            "prompt_tokens": details.get("input_length") or counted,
            "completion_tokens": details.get("generated_tokens"),
        }
    )


class TgiGenerateStream:
    """A `StreamParser` for `/generate_stream`: one frame for each token, no `[DONE]`."""

    def __init__(self, request: InferenceRequest) -> None:
        self._sse = SseParser()
        self._tail = StopTail(stops(request.body))
        self._head = text_head(request.model)
        self._usage = Usage()
        self.ended = False

    def feed(self, data: bytes) -> Iterator[Chunk]:
        for event in self._sse.feed(data):
            if chunk := self._read(event):
                yield chunk

    def close(self) -> Iterator[Chunk]:
        for event in self._sse.close():
            if chunk := self._read(event, last=True):
                yield chunk
        if not self.ended:
            raise StreamTruncated
        yield usage_chunk(self._usage, self._head)

    def _read(self, event: ServerEvent, *, last: bool = False) -> Chunk | None:
        if self.ended or not event.data or event.data.isspace():
            return None
        frame = frame_value(event, last=last)
        token = frame.get("token") if isinstance(frame, dict) else None
        if not isinstance(token, dict):
            raise unreadable("has a frame without a token")
        text = "" if token.get("special") else str(token.get("text") or "")
        details = frame.get("details")
        if details is None and frame.get("generated_text") is None:
            text = self._tail.push(text)
            return self._chunk({"text": text}) if text else None
        self.ended = True
        details = details if isinstance(details, dict) else {}
        self._usage = details_usage(details)
        reason = finish_reason(details.get("finish_reason"), tools=False) or "stop"
        text, stop = self._tail.end(text, stopped=reason == "stop")
        told = {"stop_reason": stop} if stop else {}
        return self._chunk({"text": text, "finish_reason": reason, **told})

    def _chunk(self, choice: Mapping[str, Any]) -> Chunk:
        return {
            **self._head,
            "choices": [{"index": 0, "text": "", "logprobs": None, "finish_reason": None, **choice}],
        }
