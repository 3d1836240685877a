"""TEI: `/embed` in its own shape, `/v1/embeddings` in OpenAI's with flat errors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic_core import from_json, to_json

from k9_broker.fake.exposition import Metric, exposition
from k9_broker.fake.faults import Behaviour
from k9_broker.fake.head import Head
from k9_broker.fake.openai_wire import OpenAIWire
from k9_broker.fake.script import Call, Refused, Reply, Script
from k9_broker.fake.vectors import embed
from k9_broker.fake.wire import State, Trouble
from k9_broker.results import unpack

VERSION = "1.8.2"
MOST_INPUTS = 32
"""Of one request, by default; more is 422."""
CONTEXT = 512
"""`max_input_length` where the behaviour sets none."""

_ERRORS = {
    424: ("inference failed", "Backend"),
    429: ("Model is overloaded", "Overloaded"),
    503: ("unhealthy", "Unhealthy"),
}


class TeiWire(OpenAIWire):
    """One embedding model; there is no chat."""

    late = True
    tells_limits = False
    health = "/health"
    open_paths = frozenset(("/health", "/info", "/metrics", "/ping"))

    def __init__(self) -> None:
        super().__init__()
        self.operations = {"/embed": _embed, "/v1/embeddings": self.embeddings}

    def model(self, call: Call) -> str:
        return _served(call.behaviour)

    def embeddings(self, call: Call) -> Script:
        given = call.body.get("input")
        if isinstance(given, list) and not (given and all(type(each) is int for each in given)):
            _check_size(len(given), call)
        return super().embeddings(call)

    def inventory(self, head: Head, state: State) -> Reply | None:
        if head.path == "/info":
            return Reply(to_json(_info(state)))
        if head.path == "/metrics":
            return Reply(exposition(_metrics(state)), content_type="text/plain; charset=utf-8")
        return None

    def failure(self, trouble: Trouble) -> Reply:
        if trouble.status == 401:
            return Reply(b"", 401, content_type="")
        message, kind = _ERRORS.get(trouble.status, ("inference failed", "Backend"))
        return _error(trouble.status, message, kind, flat=trouble.path.startswith("/v1/"))

    def unreadable(self, body: bytes, why: str) -> Refused:
        text = f"Failed to parse the request body as JSON: {why}"
        return Refused(Reply(text.encode(), 400, "text/plain; charset=utf-8"))

    def no_route(self, head: Head) -> Reply:
        return Reply(b"", 405 if head.path in self.operations else 404, content_type="")

    def reworded(self, reply: Reply) -> Reply:
        """Flat, for a refusal that OpenAI's reader wrote."""
        if b'"error":{' not in reply.body:
            return reply
        return _error(422, from_json(reply.body)["error"]["message"], "Validation", flat=True)


def _embed(call: Call) -> Script:
    """`POST /embed`: a bare list of vectors."""
    given = call.body.get("inputs")
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        text = (
            "Failed to deserialize the JSON body into the target type: inputs: data did not match any variant"
        )
        raise Refused(Reply(text.encode(), 422, "text/plain; charset=utf-8"))
    if not texts or "" in texts:
        raise Refused(_error(400, "`inputs` cannot be empty", "Empty"))
    _check_size(len(texts), call, flat=False)
    bad = call.behaviour.fail_inputs_containing
    if bad and any(bad in text for text in texts):
        raise Refused(_error(422, "Input validation error: an input cannot be embedded", "Validation"))
    counts = [len(text.split()) or 1 for text in texts]
    limit = call.behaviour.context_tokens
    if limit and max(counts) > limit and call.body.get("truncate") is not True:
        told = f"`inputs` must have less than {limit} tokens. Given: {max(counts)}"
        raise Refused(_error(422, f"Input validation error: {told}", "Validation"))
    dimensions = call.body.get("dimensions") or call.behaviour.dimensions
    if not isinstance(dimensions, int) or not 1 <= dimensions <= 8192:
        raise Refused(_error(422, "Input validation error: `dimensions` is not valid", "Validation"))
    body = to_json([unpack(embed(text, dimensions)) for text in texts])
    broken = _error(424, *_ERRORS[424]).body
    return Script("application/json", ((0, body),), broken, inputs=len(texts), prompt=sum(counts))


def _check_size(size: int, call: Call, flat: bool = True) -> None:
    limit = min(MOST_INPUTS, call.behaviour.max_inputs)
    if size > limit:
        message = f"batch size {size} > maximum allowed batch size {limit}"
        raise Refused(_error(422, message, "Validation", flat=flat))


def _error(status: int, message: str, kind: str, flat: bool = False) -> Reply:
    """The two shapes: `error` and `error_type`, or, flat, `message`, `code` and `type`."""
    body: dict[str, Any] = {"error": message, "error_type": kind}
    if flat:
        body = {"message": message, "code": status, "type": kind}
    return Reply(to_json(body), status)


def _served(behaviour: Behaviour) -> str:
    """The last of the fake's models, which by default is the one for embeddings."""
    return behaviour.models[-1] if behaviour.models else behaviour.served


def _info(state: State) -> dict[str, Any]:
    behaviour = state.behaviour
    name = _served(behaviour)
    model = {"model_id": name, "model_sha": None, "model_dtype": "float16", "served_model_name": name}
    limits = {"max_concurrent_requests": 512, "max_input_length": behaviour.context_tokens or CONTEXT}
    limits |= {"max_batch_tokens": 16384, "max_client_batch_size": min(MOST_INPUTS, behaviour.max_inputs)}
    router = {"auto_truncate": False, "tokenization_workers": 2, "version": VERSION}
    kind = {"model_type": {"embedding": {"pooling": "mean"}}, "max_batch_requests": None}
    return {**model, **kind, **limits, **router, "sha": None, "docker_label": None}


def _metrics(state: State) -> Iterator[Metric]:
    seen = state.seen
    yield Metric("te_request_count", "counter", "", [({}, seen.inferences)])
    done = max(0, seen.inferences - seen.errors - seen.rate_limited - state.active - state.waiting)
    yield Metric("te_request_success", "counter", "", [({}, done)])
    failures = [({"err": "overloaded"}, seen.errors + seen.rate_limited)]
    yield Metric("te_request_failure", "counter", "", failures)
    yield Metric("te_queue_size", "gauge", "", [({}, state.waiting)])
