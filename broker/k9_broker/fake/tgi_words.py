"""TGI's errors, headers, health and metrics: the same for its own paths and for `/v1/*`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic_core import from_json, to_json

from k9_broker.fake.answers import Answer
from k9_broker.fake.exposition import Metric, exposition
from k9_broker.fake.head import Head
from k9_broker.fake.script import Call, Headers, Refused, Reply
from k9_broker.fake.wire import State, Trouble, Wire

VERSION = "3.3.6-dev0"
"""The server whose wire format this is."""

CONTEXT = 4096
"""`max_total_tokens` where the behaviour sets none."""

STREAM_HEADERS: Headers = (
    ("x-compute-type", "1-k9-fake"), ("x-accel-buffering", "no"), ("cache-control", "no-cache")
)  # fmt: skip

_TEXT = "text/plain; charset=utf-8"
_ERRORS = {
    422: ("Input validation error: the request is not valid", "validation"),
    424: ("Request failed during generation: Server error: the worker died", "generation"),
    429: ("Model is overloaded", "overloaded"),
    503: ("unhealthy", "healthcheck"),
}


def error(status: int, message: str, kind: str, headers: Headers = ()) -> Reply:
    return Reply(to_json({"error": message, "error_type": kind}), status, headers=headers)


def invalid(message: str) -> Refused:
    """Refused by the router after it was read."""
    return Refused(error(422, f"Input validation error: {message}", "validation"))


def unread(message: str) -> Refused:
    """Refused because it is not of the right shape: text, not JSON."""
    text = f"Failed to deserialize the JSON body into the target type: {message} at line 1 column 80"
    return Refused(Reply(text.encode(), 422, _TEXT))


def within(call: Call, prompt: int, wanted: int | None) -> None:
    """Raises `Refused` when prompt and answer are more than the model takes together."""
    limit = call.behaviour.context_tokens
    if limit and prompt + (wanted or 0) > limit:
        told = f"Given: {prompt} `inputs` tokens and {wanted or 0} `max_new_tokens`"
        raise invalid(f"`inputs` tokens + `max_new_tokens` must be <= {limit}. {told}")


def answer_headers(prompt: int, generated: int) -> Headers:
    """What every plain answer tells; the times have no clock in them."""
    times = ("x-total-time", "x-validation-time", "x-queue-time", "x-inference-time", "x-time-per-token")
    counts = (("x-prompt-tokens", str(prompt)), ("x-generated-tokens", str(generated)))
    head = (("x-compute-type", "1-k9-fake"), ("x-compute-characters", "17"))
    return (*head, *((name, "0") for name in times), *counts)


def generated(answer: Answer, limit: int | None) -> int:
    """Tokens as TGI counts them: the one that ends the text is among them, if there was room for it."""
    return answer.tokens + (answer.finish == "stop" and answer.tokens != limit)


def wants_stream(body: bytes) -> bool:
    try:
        value = from_json(body)
    except ValueError:
        return False
    return isinstance(value, dict) and value.get("stream") is True


class TgiServer(Wire):
    """What both of TGI's wires have."""

    late = True
    largest = 2_000_000
    health = "/health"
    open_paths = frozenset(("/health", "/info", "/metrics", "/v1/models", "/ping"))

    def inventory(self, head: Head, state: State) -> Reply | None:
        behaviour = state.behaviour
        match head.path:
            case "/info":
                return Reply(to_json(_info(state)))
            case "/metrics":
                return Reply(exposition(_metrics(state)), content_type=_TEXT)
            case "/v1/models":
                name = behaviour.served
                model = {"id": name, "object": "model", "created": 0, "owned_by": name}
                return Reply(to_json({"object": "list", "data": [model]}))
        return None

    def failure(self, trouble: Trouble) -> Reply:
        if trouble.status == 401:
            return Reply(b"", 401, content_type="")
        if trouble.status == 413:
            return Reply(b"Failed to buffer the request body: length limit exceeded", 413, _TEXT)
        usual = ("Incomplete generation", "incomplete_generation")
        message, kind = _ERRORS.get(trouble.status, usual)
        if trouble.path == "/generate_stream" or wants_stream(trouble.body):
            return self.failed_stream(message, kind)
        after = () if trouble.retry_after is None else (("retry-after", f"{trouble.retry_after:g}"),)
        return error(trouble.status, message, kind, after)

    def failed_stream(self, message: str, kind: str) -> Reply:
        """A stream's errors have status 200."""
        frame = b"data: " + to_json({"error": message, "error_type": kind}) + b"\n\n"
        return Reply(frame, 200, "text/event-stream", STREAM_HEADERS)

    def unreadable(self, body: bytes, why: str) -> Refused:
        return Refused(Reply(f"Failed to parse the request body as JSON: {why}".encode(), 400, _TEXT))

    def no_route(self, head: Head) -> Reply:
        return Reply(b"", 405 if head.path in self.operations else 404, content_type="")


def _info(state: State) -> dict[str, Any]:
    limit = state.behaviour.context_tokens or CONTEXT
    model = {"model_id": state.behaviour.served, "model_sha": None, "model_pipeline_tag": "text-generation"}
    limits = {"max_concurrent_requests": 128, "max_best_of": 2, "max_stop_sequences": 4}
    limits |= {"max_input_tokens": limit - 1, "max_total_tokens": limit, "validation_workers": 2}
    router = {"max_client_batch_size": 4, "router": "text-generation-router", "version": VERSION}
    return {**model, **limits, **router, "sha": None, "docker_label": None}


def _metrics(state: State) -> Iterator[Metric]:
    seen = state.seen
    done = max(0, seen.inferences - seen.errors - seen.rate_limited - state.active - state.waiting)
    yield Metric("tgi_request_count", "counter", "", [({}, seen.inferences)])
    yield Metric("tgi_request_success", "counter", "", [({}, done)])
    failures = {"overloaded": seen.errors + seen.rate_limited, "dropped": seen.disconnects}
    counts = [({"err": name}, count) for name, count in failures.items()]
    yield Metric("tgi_request_failure", "counter", "", counts)
    yield Metric("tgi_queue_size", "gauge", "", [({}, state.waiting)])
    yield Metric("tgi_batch_current_size", "gauge", "", [({}, state.active)])
    yield Metric("tgi_batch_current_max_tokens", "gauge", "", [({}, state.active * CONTEXT)])
