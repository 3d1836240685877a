"""How many requests and tokens a minute there are: token buckets that are refilled all the time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic


@dataclass(frozen=True, slots=True)
class Level:
    """How full one bucket is: `left` of `limit` a minute, and the seconds until no more comes to it."""

    limit: int
    left: int
    full_in: float


@dataclass(frozen=True, slots=True)
class Levels:
    """Of both buckets; `None` where there is no limit."""

    requests: Level | None = None
    tokens: Level | None = None


@dataclass(frozen=True, slots=True)
class Breach:
    """A request that would take more than there is. `kind` is `requests` or `tokens`."""

    kind: str
    limit: int
    asked: int
    wait: float
    """Seconds until there is enough."""
    levels: Levels

    @property
    def seconds(self) -> int:
        """`wait` as the header `Retry-After` has it, never too short."""
        return max(1, math.ceil(self.wait))

    @property
    def milliseconds(self) -> int:
        return math.ceil(self.wait * 1000)


class Bucket:
    """`limit` a minute, of which `burst` seconds' worth may be taken at once."""

    def __init__(self, limit: int, burst: float, now: float) -> None:
        self.limit = limit
        self._rate = limit / 60
        self._size = max(1.0, self._rate * burst)
        self._left = self._size
        self._at = now

    def wait(self, asked: int, now: float) -> float:
        """Seconds until `asked` are there; 0 if they are."""
        self._left = min(self._size, self._left + (now - self._at) * self._rate)
        self._at = now
        return max(0.0, (asked - self._left) / self._rate)

    def take(self, asked: int) -> None:
        self._left -= asked

    @property
    def level(self) -> Level:
        return Level(self.limit, max(0, int(self._left)), (self._size - self._left) / self._rate)


class Allowance:
    """The two buckets of a server. Not thread-safe; one event loop owns it."""

    def __init__(self, requests: int, tokens: int, burst: float, clock: Callable[[], float] = monotonic):
        self._clock = clock
        now = clock()
        self._requests = Bucket(requests, burst, now) if requests else None
        self._tokens = Bucket(tokens, burst, now) if tokens else None

    @property
    def limited(self) -> bool:
        return self._requests is not None or self._tokens is not None

    def take(self, tokens: int) -> Levels | Breach:
        """Take one request and `tokens`, or nothing and say what is missing."""
        now = self._clock()
        wanted = (("requests", self._requests, 1), ("tokens", self._tokens, tokens))
        for kind, bucket, asked in wanted:
            if bucket is not None and (wait := bucket.wait(asked, now)) > 0:
                return Breach(kind, bucket.limit, asked, wait, self._levels())
        for _, bucket, asked in wanted:
            if bucket is not None:
                bucket.take(asked)
        return self._levels()

    def _levels(self) -> Levels:
        return Levels(
            self._requests.level if self._requests else None, self._tokens.level if self._tokens else None
        )
