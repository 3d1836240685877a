"""The dialect `openai-compatible`: OpenAI itself, vLLM, llama.cpp, LM Studio, TGI's chat route and their kin.

Lenient in what it reads, strict in what it gives on: see `OpenAIStream` and `_choice` for what
servers get wrong. Embeddings are asked for as base64, a quarter of the bytes and a tenth of the
parsing of JSON numbers; numbers are understood too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic_core import from_json, to_json

from k9_broker.dialects import wire_errors
from k9_broker.dialects.base import JSON_HEADERS, Options, StreamParser, WireRequest, read_usage, unreadable
from k9_broker.dialects.embeddings import inputs_of, ordered, vectors
from k9_broker.dialects.finish_reasons import finish_reason
from k9_broker.dialects.openai_stream import OpenAIStream
from k9_broker.dialects.tool_calls import whole_calls
from k9_broker.errors import BadRequest, K9Error
from k9_broker.requests import InferenceRequest, Operation
from k9_broker.results import Result

_PATHS = {
    Operation.CHAT: "/v1/chat/completions",
    Operation.COMPLETIONS: "/v1/completions",
    Operation.EMBEDDINGS: "/v1/embeddings",
}


class OpenAICompatible:
    """Stateless. Backend options:

    - `encoding_format`: `"float"` for servers that refuse base64 embeddings;
    - `stream_options`: `false` for servers that refuse the field;
    - anything else is a default for text requests, such as `chat_template_kwargs`: the caller's own
      value wins.
    """

    operations = frozenset(_PATHS)

    def headers(self, key: str | None) -> dict[str, str]:
        return {"authorization": f"Bearer {key}"} if key else {}

    def build(self, request: InferenceRequest, options: Options) -> WireRequest:
        make = _embeddings_body if request.operation is Operation.EMBEDDINGS else _text_body
        body = make(request, options)
        return WireRequest("POST", _PATHS[request.operation], to_json(body), JSON_HEADERS)

    def parse(self, request: InferenceRequest, body: bytes) -> Result:
        answer = _object(body)
        if error := wire_errors.in_band(answer):
            raise error
        usage = read_usage(answer.get("usage"))
        model = answer.get("model")
        model = model if isinstance(model, str) and model else request.model
        if request.operation is Operation.EMBEDDINGS:
            rows = ordered(answer.get("data"))
            return Result(model, usage, vectors=vectors(rows, len(inputs_of(request))))
        choices = answer.get("choices") or []
        if not isinstance(choices, list):
            raise unreadable("has no list of choices")
        choices = [_choice(choice) for choice in choices]
        return Result(model, usage, body={**answer, "choices": choices, "usage": usage.openai()})

    def parser(self, request: InferenceRequest) -> StreamParser:
        return OpenAIStream(request)

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> K9Error:
        return wire_errors.classify(wire_errors.read(status, body), wire_errors.retry_after(headers))

    def relax(self, request: InferenceRequest, error: K9Error, options: Options) -> Options | None:
        """Do without base64 or `stream_options` where the server named them in its refusal."""
        if not isinstance(error, BadRequest):
            return None
        words = f"{error.param} {error.message}"
        if request.operation is Operation.EMBEDDINGS:
            base64 = options.get("encoding_format", "base64") == "base64"
            if base64 and ("encoding_format" in words or "base64" in words):
                return {**options, "encoding_format": "float"}
        elif request.stream and "stream_options" in words and options.get("stream_options") is not False:
            return {**options, "stream_options": False}
        return None

    def models_request(self) -> WireRequest:
        return WireRequest("GET", "/v1/models")

    def parse_models(self, body: bytes) -> tuple[str, ...]:
        data = _object(body).get("data")
        if not isinstance(data, list):
            raise unreadable("has no list of models")
        names = (item.get("id") for item in data if isinstance(item, Mapping))
        return tuple(name for name in names if isinstance(name, str) and name)


def _embeddings_body(request: InferenceRequest, options: Options) -> dict[str, Any]:
    encoding = options.get("encoding_format", "base64")
    return {**request.body, "model": request.model, "encoding_format": encoding}


def _text_body(request: InferenceRequest, options: Options) -> dict[str, Any]:
    own = ("encoding_format", "stream_options")
    defaults = {name: value for name, value in options.items() if name not in own}
    body = {**defaults, **request.body, "model": request.model}
    asked = body.pop("stream_options", None)
    body.pop("stream", None)
    if isinstance(body.get("stop"), str):  # TGI refuses a lone text; everybody takes a list
        body["stop"] = [body["stop"]]
    if request.stream:
        body["stream"] = True
        if options.get("stream_options") is not False:
            body["stream_options"] = {**(asked or {}), "include_usage": True}
    return body


def _object(body: bytes) -> Mapping[str, Any]:
    try:
        answer = from_json(body)
    except ValueError:
        raise unreadable("is not JSON") from None
    if not isinstance(answer, dict):
        raise unreadable("is not a JSON object")
    return answer


def _choice(choice: Any) -> dict[str, Any]:
    """One choice of a whole answer, with what clients rely on: a reason, and tool calls they can run."""
    if not isinstance(choice, Mapping):
        raise unreadable("has a choice that is not an object")
    made = {"logprobs": None, **choice}
    tools = False
    message = choice.get("message")
    if isinstance(message, Mapping):
        made["message"] = message = {"content": None, "refusal": None, **message}
        calls = message.pop("tool_calls", None)
        if calls and isinstance(calls, list):
            message["tool_calls"] = whole_calls(calls)
            tools = True
    ended = finish_reason(choice.get("finish_reason"), tools=tools)
    made["finish_reason"] = ended or ("tool_calls" if tools else "stop")
    return made
