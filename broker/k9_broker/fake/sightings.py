"""What the fake has seen: counters, and the last requests without anything that could be a key."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from typing import Any

from pydantic_core import from_json

from k9_broker.fake.faults import Behaviour
from k9_broker.fake.head import Head

KEPT = 100
"""Requests that are remembered whole."""

_SECRET = frozenset((b"authorization", b"proxy-authorization", b"x-api-key", b"api-key", b"cookie"))


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
        self.prompt_tokens = 0
        self.generated_tokens = 0
        self.errors = 0
        self.rate_limited = 0
        self.unauthorized = 0
        self.closed_reused = 0
        self.max_active = 0
        self.disconnects = 0
        self._reused = 0
        self._kept: deque[tuple[Head, bytes]] = deque(maxlen=KEPT)

    def expect(self, behaviour: Behaviour, named: Iterable[str]) -> None:
        """Start counting afresh what of `behaviour` is counted, if it is among the fields just set."""
        if "fail_next" in named:
            self._fails_left = behaviour.fail_next
        if "fault_next" in named:
            self._faults_left = behaviour.fault_next

    def arrived(self, head: Head, body: bytes) -> None:
        self.paths[head.path] += 1
        self._kept.append((head, body))

    def fails(self, behaviour: Behaviour) -> bool:
        """Count one inference request, and whether an error status is its answer."""
        self.inferences += 1
        number = self.inferences
        failed = bool(behaviour.every_nth) and number % behaviour.every_nth == 0
        if behaviour.error_rate:
            failed = failed or _falls_on(behaviour.error_rate, number)
        if self._fails_left:
            self._fails_left -= 1
            failed = True
        self.errors += failed
        return failed

    def closes_reused(self, behaviour: Behaviour) -> bool:
        """Count one request on a connection that had one before, and whether it is closed unanswered."""
        self._reused += 1
        closed = _falls_on(behaviour.close_reused, self._reused)
        self.closed_reused += closed
        return closed

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
            "prompt_tokens": self.prompt_tokens,
            "generated_tokens": self.generated_tokens,
            "errors": self.errors,
            "rate_limited": self.rate_limited,
            "unauthorized": self.unauthorized,
            "closed_reused": self.closed_reused,
            "active": active,
            "waiting": waiting,
            "max_active": self.max_active,
            "disconnects": self.disconnects,
            "paths": dict(self.paths),
        }

    def requests(self) -> list[dict[str, Any]]:
        """The last requests, oldest first; a header that bore a key is there with `***` as its value."""
        return [
            {
                "method": head.method,
                "path": head.path,
                "query": head.query.decode("latin-1"),
                "headers": _shown(head.headers),
                "body": _read(body),
            }
            for head, body in self._kept
        ]


def _falls_on(share: float, number: int) -> bool:
    """Whether the `number`th of many is among the evenly spread `share` of them."""
    return int(number * share) > int((number - 1) * share)


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
