"""How the fake behaves, and what it has seen."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from k9_broker.errors import BadRequest

KEPT = 100
"""Requests that are remembered whole."""

_SECRET = frozenset((b"authorization", b"proxy-authorization", b"x-api-key", b"api-key", b"cookie"))


class Behaviour(BaseModel):
    """Everything about the fake that can be set; changed as a whole while it runs. Times are milliseconds.

    Faults strike inference requests only, never the lists of models or the health routes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    # -- what it offers ---------------------------------------------------------------------------
    models: tuple[str, ...] = ("fake-chat", "fake-embed")
    """Any of them takes any operation; another name is 404."""
    answer_tokens: int = Field(default=16, ge=1, le=100_000)
    """Tokens of an answer in words; a smaller `max_tokens` cuts it."""
    dimensions: int = Field(default=64, ge=1, le=8192)
    """Of an embedding, unless the request names its own."""
    context_tokens: int = Field(default=0, ge=0)
    """Prompt and `max_tokens` beyond this are refused as too long; 0: no limit."""
    max_inputs: int = Field(default=2048, ge=1)
    """More embedding inputs in one request are refused."""

    # -- how fast it is ---------------------------------------------------------------------------
    latency_ms: float = Field(default=0, ge=0)
    """Before every answer."""
    first_token_ms: float = Field(default=0, ge=0)
    """Then, before the first token of a text."""
    tokens_per_second: float = Field(default=0, ge=0)
    """Then the rate of the tokens; 0: all at once."""
    per_input_ms: float = Field(default=0, ge=0)
    """For each input of an embeddings request."""
    cold_load_ms: float = Field(default=0, ge=0)
    """The first request for a model waits so long without a byte. Setting it unloads every model."""
    slots: int = Field(default=0, ge=0)
    """Requests worked on at once; more wait without limit, as real servers let them. 0: no limit."""

    # -- errors: a status instead of an answer ----------------------------------------------------
    error_status: int = Field(default=500, ge=400, le=599)
    """What `fail_next`, `every_nth` and `error_rate` answer with."""
    error_code: str | None = None
    """OpenAI's `error.code`; without it the usual one of the status, if there is one."""
    retry_after: float | None = Field(default=None, ge=0)
    """Seconds in the header `Retry-After` of such an error."""
    fail_next: int = Field(default=0, ge=0)
    """So many requests fail, counted from when this is set."""
    every_nth: int = Field(default=0, ge=0)
    """Every nth request fails; 0: none."""
    error_rate: float = Field(default=0, ge=0, le=1)
    """The share of requests that fail, evenly spread: 0.25 is each fourth."""
    fail_inputs_containing: str | None = Field(default=None, min_length=1)
    """An embeddings request with this text in any input is refused with 400."""

    # -- faults of the connection -----------------------------------------------------------------
    hang: bool = False
    """Take the request and never answer."""
    reset: bool = False
    """Reset the connection before any byte."""
    cut_after_tokens: int | None = Field(default=None, ge=0)
    """Close the connection after so many tokens, without an end; a plain answer stops half way."""
    error_after_tokens: int | None = Field(default=None, ge=0)
    """After so many tokens send an error inside the stream; a plain answer is an error with status 200."""
    fault_next: int | None = Field(default=None, ge=0)
    """The four above strike only so many requests, counted from when this is set; unset: all."""

    @property
    def faulty(self) -> bool:
        """Whether any fault of the connection is set."""
        return (
            self.hang
            or self.reset
            or self.cut_after_tokens is not None
            or self.error_after_tokens is not None
        )


def changed(behaviour: Behaviour, changes: object) -> Behaviour:
    """`behaviour` with the fields of `changes` replaced. Raises `BadRequest` naming the field."""
    if not isinstance(changes, Mapping):
        raise BadRequest("Send a JSON object of behaviour fields.")
    try:
        return Behaviour.model_validate({**behaviour.model_dump(), **changes})
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        name = ".".join(str(part) for part in problem["loc"])
        raise BadRequest(f"{name}: {problem['msg']}", param=name) from None


class Sightings:
    """What the fake has seen. Not thread-safe; one event loop owns it."""

    def __init__(self) -> None:
        self._fails_left = 0
        self._faults_left: int | None = None
        self.clear()

    def clear(self) -> None:
        """Forget everything but how many failures are still to come."""
        self.paths: Counter[str] = Counter()
        self.inferences = 0
        self.inputs = 0
        self.errors = 0
        self.max_active = 0
        self.disconnects = 0
        self._kept: deque[tuple[str, str, Iterable[tuple[bytes, bytes]], bytes]] = deque(maxlen=KEPT)

    def expect(self, behaviour: Behaviour, named: Iterable[str]) -> None:
        """Start counting afresh what of `behaviour` is counted, if it is among the fields just set."""
        if "fail_next" in named:
            self._fails_left = behaviour.fail_next
        if "fault_next" in named:
            self._faults_left = behaviour.fault_next

    def arrived(self, method: str, path: str, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> None:
        self.paths[path] += 1
        self._kept.append((method, path, headers, body))

    def fails(self, behaviour: Behaviour) -> bool:
        """Count one inference request, and whether an error status is its answer."""
        self.inferences += 1
        number, rate = self.inferences, behaviour.error_rate
        failed = bool(behaviour.every_nth) and number % behaviour.every_nth == 0
        failed = failed or int(number * rate) > int((number - 1) * rate)
        if self._fails_left:
            self._fails_left -= 1
            failed = True
        self.errors += failed
        return failed

    def faulted(self, behaviour: Behaviour) -> bool:
        """Whether a fault of the connection strikes this request; counts it if so."""
        if not behaviour.faulty or self._faults_left == 0:
            return False
        if self._faults_left is not None:
            self._faults_left -= 1
        return True

    def stats(self, active: int, waiting: int) -> dict[str, Any]:
        return {
            "requests": self.paths.total(),
            "inferences": self.inferences,
            "inputs": self.inputs,
            "errors": self.errors,
            "active": active,
            "waiting": waiting,
            "max_active": self.max_active,
            "disconnects": self.disconnects,
            "paths": dict(self.paths),
        }

    def requests(self) -> list[dict[str, Any]]:
        """The last requests, oldest first, without anything that could be a key."""
        return [
            {"method": method, "path": path, "headers": _shown(headers), "body": _read(body)}
            for method, path, headers, body in self._kept
        ]


def _shown(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    return {
        name.decode("latin-1"): "***" if name in _SECRET else value.decode("latin-1")
        for name, value in headers
    }


def _read(body: bytes) -> Any:
    """The body as JSON if it is JSON, as text if it is not, `None` if there is none."""
    if not body:
        return None
    try:
        return from_json(body)
    except ValueError:
        return body.decode("utf-8", errors="replace")
