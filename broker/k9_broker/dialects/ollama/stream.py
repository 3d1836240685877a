"""Ollama's streams: one object per line, the last with `done` and the counters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic_core import from_json

from k9_broker.dialects.base import usage_chunk
from k9_broker.dialects.ndjson import NdjsonParser
from k9_broker.dialects.ollama.answer import checked, head_of, message_of, read, reason_of, usage_of
from k9_broker.dialects.tool_calls import ToolCallStream
from k9_broker.errors import StreamTruncated
from k9_broker.requests import InferenceRequest, Operation
from k9_broker.results import Chunk, Usage


class OllamaStream:
    """A `StreamParser` over Ollama's lines, in OpenAI's chunks."""

    def __init__(self, request: InferenceRequest) -> None:
        self._request = request
        self._lines = NdjsonParser()
        self._tools: ToolCallStream | None = None
        self._head: dict[str, Any] = {}
        self._usage = Usage()
        self.ended = False

    def feed(self, data: bytes) -> Iterator[Chunk]:
        for line in self._lines.feed(data):
            if not self.ended:
                yield self._read(read(line))

    def close(self) -> Iterator[Chunk]:
        for line in self._lines.close():
            if not self.ended:
                try:
                    answer = from_json(line)
                except ValueError:
                    raise StreamTruncated from None
                yield self._read(checked(answer))
        if not self.ended:
            raise StreamTruncated
        yield usage_chunk(self._usage, self._head)

    def _read(self, answer: Mapping[str, Any]) -> Chunk:
        first = not self._head
        if first:
            self._head = head_of(self._request, answer, streamed=True)
        choice: dict[str, Any] = {"index": 0}
        if self._request.operation is Operation.CHAT:
            message = message_of(answer)
            delta: dict[str, Any] = {"role": "assistant"} if first else {}
            choice["delta"] = delta
            if (content := message.get("content")) or first:
                delta["content"] = content or ""
            if thinking := message.get("thinking"):
                delta["reasoning"] = thinking
            if calls := message.get("tool_calls"):
                self._tools = self._tools or ToolCallStream()
                delta["tool_calls"] = self._tools.pieces(_told_apart(calls, self._tools.count))
        else:
            choice["text"] = answer.get("response") or ""
        choice |= {"logprobs": None, "finish_reason": None}
        if answer.get("done") is True:
            choice["finish_reason"] = reason_of(answer, tools=self._tools is not None)
            self._usage = usage_of(answer)
            self.ended = True
        return {**self._head, "choices": [choice]}


def _told_apart(calls: Any, before: int) -> list[dict[str, Any]]:
    """Each call under an index of its own: Ollama sends calls whole, so no two pieces are one call."""
    calls = [call for call in calls if isinstance(call, Mapping)] if isinstance(calls, list) else []
    return [{**call, "index": before + number} for number, call in enumerate(calls)]
