"""The dialect `ollama`: Ollama's own API, which tells what its OpenAI surface leaves out.

An error in the middle of a stream, the context size, `keep_alive`: only `/api/…` has them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any
from uuid import uuid4

from pydantic_core import from_json, to_json

from k9_broker.dialects import wire_errors
from k9_broker.dialects.base import (
    JSON_HEADERS,
    Options,
    StreamParser,
    WireRequest,
    read_usage,
    unreadable,
    usage_chunk,
)
from k9_broker.dialects.embeddings import inputs_of, vectors
from k9_broker.dialects.finish_reasons import finish_reason
from k9_broker.dialects.ndjson import NdjsonParser
from k9_broker.dialects.ollama_request import request_body
from k9_broker.dialects.tool_calls import ToolCallStream, whole_calls
from k9_broker.errors import K9Error, StreamTruncated
from k9_broker.requests import InferenceRequest, Operation
from k9_broker.results import Chunk, Result, Usage

_PATHS = {
    Operation.CHAT: "/api/chat",
    Operation.COMPLETIONS: "/api/generate",
    Operation.EMBEDDINGS: "/api/embed",
}


class Ollama:
    """Stateless. Backend options: `keep_alive`, `truncate`, `shift`, `raw`; all others, such as
    `num_ctx`, are runner options. Keep them constant: another `num_ctx` reloads the model.
    """

    operations = frozenset(_PATHS)

    def headers(self, key: str | None) -> dict[str, str]:
        return {"authorization": f"Bearer {key}"} if key else {}

    def build(self, request: InferenceRequest, options: Options) -> WireRequest:
        body = to_json(request_body(request, options))
        return WireRequest("POST", _PATHS[request.operation], body, JSON_HEADERS)

    def parse(self, request: InferenceRequest, body: bytes) -> Result:
        answer = _object(body)
        model, usage = str(answer.get("model") or request.model), _usage(answer)
        if request.operation is Operation.EMBEDDINGS:
            rows = answer.get("embeddings")
            if not isinstance(rows, list):
                raise unreadable("has no list of embeddings")
            return Result(model, usage, vectors=vectors(rows, len(inputs_of(request))))
        if answer.get("done") is not True:
            raise StreamTruncated
        choice: dict[str, Any] = {"index": 0, "logprobs": None}
        tools = False
        if request.operation is Operation.CHAT:
            message = _message(answer)
            content = message.get("content") or ""
            made: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
            choice["message"] = made
            if thinking := message.get("thinking"):
                made["reasoning"] = thinking
            if calls := message.get("tool_calls"):
                made.update(tool_calls=whole_calls(calls), content=content or None)
                tools = True
        else:
            choice["text"] = answer.get("response") or ""
        choice["finish_reason"] = _reason(answer, tools=tools)
        head = _head(request, answer, streamed=False)
        return Result(model, usage, body={**head, "choices": [choice], "usage": usage.openai()})

    def parser(self, request: InferenceRequest) -> StreamParser:
        return OllamaStream(request)

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> K9Error:
        return wire_errors.classify(wire_errors.read(status, body), wire_errors.retry_after(headers))

    def relax(self, request: InferenceRequest, error: K9Error, options: Options) -> Options | None:
        return None

    def models_request(self) -> WireRequest:
        return WireRequest("GET", "/api/tags")

    def parse_models(self, body: bytes) -> tuple[str, ...]:
        """Each model as listed, and without its tag where that is `latest`, as Ollama itself allows."""
        listed = _object(body).get("models")
        if not isinstance(listed, list):
            raise unreadable("has no list of models")
        names: dict[str, None] = {}
        for item in listed:
            name = item.get("name") or item.get("model") if isinstance(item, Mapping) else None
            if isinstance(name, str) and name:
                names |= {name: None, name.removesuffix(":latest"): None}
        return tuple(names)


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
                yield self._read(_object(line))

    def close(self) -> Iterator[Chunk]:
        for line in self._lines.close():
            if not self.ended:
                try:
                    answer = from_json(line)
                except ValueError:
                    raise StreamTruncated from None
                yield self._read(_checked(answer))
        if not self.ended:
            raise StreamTruncated
        yield usage_chunk(self._usage, self._head)

    def _read(self, answer: Mapping[str, Any]) -> Chunk:
        first = not self._head
        if first:
            self._head = _head(self._request, answer, streamed=True)
        choice: dict[str, Any] = {"index": 0}
        if self._request.operation is Operation.CHAT:
            message = _message(answer)
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
            choice["finish_reason"] = _reason(answer, tools=self._tools is not None)
            self._usage = _usage(answer)
            self.ended = True
        return {**self._head, "choices": [choice]}


def _told_apart(calls: Any, before: int) -> list[dict[str, Any]]:
    """Each call under an index of its own: Ollama sends calls whole, so no two pieces are one call."""
    calls = [call for call in calls if isinstance(call, Mapping)] if isinstance(calls, list) else []
    return [{**call, "index": before + number} for number, call in enumerate(calls)]


def _object(body: bytes) -> Mapping[str, Any]:
    try:
        answer = from_json(body)
    except ValueError:
        raise unreadable("is not JSON") from None
    return _checked(answer)


def _checked(answer: Any) -> Mapping[str, Any]:
    if error := wire_errors.in_band(answer):
        raise error
    if not isinstance(answer, dict):
        raise unreadable("is not a JSON object")
    return answer


def _message(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    message = answer.get("message")
    return message if isinstance(message, Mapping) else {}


def _reason(answer: Mapping[str, Any], *, tools: bool) -> str:
    return finish_reason(answer.get("done_reason"), tools=tools) or ("tool_calls" if tools else "stop")


def _usage(answer: Mapping[str, Any]) -> Usage:
    """Ollama leaves counters out when they are zero."""
    return read_usage(
        {"prompt_tokens": answer.get("prompt_eval_count"), "completion_tokens": answer.get("eval_count")}
    )


def _head(request: InferenceRequest, answer: Mapping[str, Any], *, streamed: bool) -> dict[str, Any]:
    chat = request.operation is Operation.CHAT
    kind = ("chat.completion.chunk" if streamed else "chat.completion") if chat else "text_completion"
    return {
        "id": f"{'chatcmpl' if chat else 'cmpl'}-{uuid4().hex}",
        "object": kind,
        "created": _seconds(answer.get("created_at")),
        "model": str(answer.get("model") or request.model),
    }


def _seconds(created_at: Any) -> int:
    try:
        return int(datetime.fromisoformat(created_at).timestamp())
    except (TypeError, ValueError, OverflowError):
        return 0
