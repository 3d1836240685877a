"""What a dialect is: the pure half of a caller. It builds and parses bytes; a transport sends them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from pydantic_core import from_json

from k9_broker.errors import BackendError, K9Error
from k9_broker.health import Load
from k9_broker.limits import RateLimits
from k9_broker.models import ModelCard
from k9_broker.requests import InferenceRequest, Operation
from k9_broker.results import Chunk, Result, Usage

Options = Mapping[str, Any]
"""`Backend.options`: what the operator set for this backend."""

JSON_HEADERS: Mapping[str, str] = {"content-type": "application/json"}


@dataclass(frozen=True, slots=True)
class WireRequest:
    """One HTTP request as the backend's server wants it; `path` is added to the backend's URL."""

    method: str
    path: str
    body: bytes = field(default=b"", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)


class StreamParser(Protocol):
    """Reads one streamed answer, however its bytes are cut."""

    @property
    def ended(self) -> bool:
        """The server has said that the answer is over; nothing after it is part of the answer."""
        ...

    def feed(self, data: bytes) -> Iterator[Chunk]:
        """The chunks that `data` completes, as they are read. Exhaust it before feeding again.

        Raises `BackendError`, or what else fits, where the server put an error into the stream.
        """
        ...

    def close(self) -> Iterator[Chunk]:
        """What remains once no more bytes come; the last chunk has empty `choices` and the `usage`.

        Raises `StreamTruncated` when neither a finish reason nor an end marker was seen.
        """
        ...


class Dialect(Protocol):
    """One wire format. Stateless: one value serves every backend and request.

    Dialects derive from it; what has a body here is what most of them need.
    """

    counts_most: bool = False
    """Its rate limit counts, on arrival, the most tokens an answer may have, not what it has in the end."""
    max_inputs: int = 256
    """Embedding inputs its servers take in one call, unless the operator knows better."""

    @property
    def operations(self) -> frozenset[Operation]:
        """What servers of this dialect can do; which of it one server does depends on its models."""
        ...

    def headers(self, key: str | None) -> dict[str, str]:
        """The headers that carry the key, if there is one."""
        ...

    def settle(self, url: str, options: Options) -> Options:
        """The options for a backend at `url`, completed by what its address itself tells."""
        return options

    def build(self, request: InferenceRequest, options: Options) -> WireRequest:
        """The request for the server. Raises `BadRequest` naming what the server cannot do."""
        ...

    def parse(self, request: InferenceRequest, body: bytes) -> Result:
        """The whole answer in the body of a 2xx response; an error hidden in it is raised."""
        ...

    def complete(self, result: Result, headers: Mapping[str, str]) -> Result:
        """The whole answer with what only the response's headers tell of it."""
        return result

    def parser(self, request: InferenceRequest) -> StreamParser:
        """A reader for the streamed answer to `request`."""
        ...

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> K9Error:
        """What a response that is no success means. Total: any body gives an error to raise."""
        ...

    def relax(self, request: InferenceRequest, error: K9Error, options: Options) -> Options | None:
        """Options under which `request`, refused with `error`, may pass, if the dialect knows any.

        For servers that refuse what K-9 itself had added to the caller's request.
        """
        return None

    def models_request(self, options: Options) -> WireRequest:
        """The question which models the server has."""
        ...

    def parse_models(self, body: bytes) -> Mapping[str, ModelCard]:
        """The models in the answer to `models_request`, each with what that answer says of it."""
        ...

    def describe_request(self, model: str, options: Options) -> WireRequest | None:
        """The question what one model can, where the server tells more than in its list."""
        return None

    def parse_description(self, body: bytes, options: Options | None = None) -> ModelCard:
        """What the answer to `describe_request` says, under the backend's options."""
        return ModelCard()

    def load_request(self, options: Options) -> WireRequest | None:
        """The question how busy the server is, where it can be asked."""
        return None

    def parse_load(self, body: bytes) -> Load:
        """What the answer to `load_request` says. Total: what it does not say is not known."""
        return Load()

    def limits(self, headers: Mapping[str, str], now: float) -> RateLimits | None:
        """The rate limits in the headers of any answer; `None` when there are none. `now`: Unix seconds."""
        return None


def usage_chunk(usage: Usage, head: Mapping[str, Any]) -> Chunk:
    """The last chunk of every stream; `head` gives it `id`, `object`, `created` and `model`."""
    return {**head, "choices": [], "usage": usage.openai()}


def read_usage(usage: Any) -> Usage:
    """OpenAI's `usage` object, or zeros where a server wrote something else: that must not cost an answer."""
    try:
        return Usage.from_openai(usage)
    except (AttributeError, TypeError, ValueError, OverflowError):
        return Usage()


def json_value(body: bytes) -> Any:
    """What the JSON in `body` says. Raises `BackendError` when it is none."""
    try:
        return from_json(body)
    except ValueError:
        raise unreadable("is not JSON") from None


def json_object(body: bytes) -> Mapping[str, Any]:
    """The object in `body`. Raises `BackendError` when it holds something else."""
    answer = json_value(body)
    if not isinstance(answer, dict):
        raise unreadable("is not a JSON object")
    return answer


def read_models(body: bytes) -> Mapping[str, Mapping[str, Any]]:
    """The entries of a list of models, as OpenAI and Anthropic write it, by their ids."""
    data = json_object(body).get("data")
    if not isinstance(data, list):
        raise unreadable("has no list of models")
    items = [item for item in data if isinstance(item, Mapping)]
    return {item["id"]: item for item in items if isinstance(item.get("id"), str) and item["id"]}


def unreadable(what: str) -> BackendError:
    """The answer is not what the dialect promises, so whatever answers is not the server expected."""
    return BackendError(f"The backend's answer {what}. Check that its URL and dialect are right.")
