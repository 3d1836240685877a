"""The dialects `openai-compatible` and `openai`, and what the others of the family share.

Lenient in what they read, strict in what they give on: see `OpenAIStream` and `openai_answer` for
what servers get wrong. Embeddings are asked for as base64, a quarter of the bytes and a tenth of the
parsing of JSON numbers; numbers are understood too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic_core import to_json

from k9_broker.dialects import wire_errors
from k9_broker.dialects.base import JSON_HEADERS, Dialect, Options, StreamParser, WireRequest, read_models
from k9_broker.dialects.openai.answer import read_answer
from k9_broker.dialects.openai.rate_limits import read_limits
from k9_broker.dialects.openai.request import GUIDED, Server, embeddings_body, text_body
from k9_broker.dialects.openai.stream import OpenAIStream
from k9_broker.errors import BadRequest, K9Error
from k9_broker.limits import RateLimits
from k9_broker.models import ModelCard
from k9_broker.requests import InferenceRequest, Operation
from k9_broker.results import Result

_PATHS = {
    Operation.CHAT: "/v1/chat/completions",
    Operation.COMPLETIONS: "/v1/completions",
    Operation.EMBEDDINGS: "/v1/embeddings",
}


class OpenAICompatible(Dialect):
    """Any server of the family: what is not known to go wrong passes untouched. Stateless.

    Backend options:

    - `encoding_format`: `"float"` for servers that refuse base64 embeddings;
    - `stream_options`: `false` for servers that refuse the field;
    - anything else is a default for text requests, such as `chat_template_kwargs`: the caller's own
      value wins.
    """

    operations = frozenset(_PATHS)
    server: ClassVar[Server] = Server("An openai-compatible backend", thinking=True)

    def headers(self, key: str | None) -> dict[str, str]:
        return {"authorization": f"Bearer {key}"} if key else {}

    def build(self, request: InferenceRequest, options: Options) -> WireRequest:
        if request.operation is Operation.EMBEDDINGS:
            body = embeddings_body(request, options, self.server)
        else:
            body = text_body(request, options, self.server)
        self.adapt(request.operation, body)
        return WireRequest("POST", self.path(request, options), to_json(body), JSON_HEADERS)

    def adapt(self, operation: Operation, body: dict[str, Any]) -> None:
        """What remains for one server alone to do, in place. Raises `BadRequest` naming the field."""

    def path(self, request: InferenceRequest, options: Options) -> str:
        return _PATHS[request.operation]

    def parse(self, request: InferenceRequest, body: bytes) -> Result:
        return read_answer(request, body)

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

    def models_request(self, options: Options) -> WireRequest:
        return WireRequest("GET", "/v1/models")

    def parse_models(self, body: bytes) -> Mapping[str, ModelCard]:
        return {name: self.card(item) for name, item in read_models(body).items()}

    def card(self, item: Mapping[str, Any]) -> ModelCard:
        """What an entry of the list of models says of its model."""
        return ModelCard()

    def limits(self, headers: Mapping[str, str], now: float) -> RateLimits | None:
        return read_limits(headers, now)


_TEXT = frozenset(
    {
        "model",
        "stop",
        "n",
        "seed",
        "temperature",
        "top_p",
        "frequency_penalty",
        "presence_penalty",
        "logit_bias",
        "logprobs",
        "max_tokens",
        "user",
    }
)
CHAT_FIELDS = _TEXT | {
    "messages",
    "max_completion_tokens",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "functions",
    "function_call",
    "response_format",
    "top_logprobs",
    "reasoning_effort",
    "verbosity",
    "modalities",
    "audio",
    "prediction",
    "moderation",
    "web_search_options",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
}
"""What OpenAI's `POST /chat/completions` takes (its specification 2.3.0), beside `stream`."""

OPENAI = Server(
    "OpenAI",
    takes={
        Operation.CHAT: CHAT_FIELDS,
        Operation.COMPLETIONS: _TEXT | {"prompt", "suffix", "best_of", "echo"},
        Operation.EMBEDDINGS: frozenset({"model", "input", "encoding_format", "dimensions", "user"}),
    },
    refuses=frozenset(GUIDED),
    most_tokens="max_completion_tokens",  # reasoning models refuse the other
    efforts={"max": "xhigh"},
    reasoning=None,
    tool_files=False,
)


class OpenAI(OpenAICompatible):
    """OpenAI's own service, which refuses fields it does not know. Options: see `OpenAICompatible`."""

    server = OPENAI
    counts_most = True
