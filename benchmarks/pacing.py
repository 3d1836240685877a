"""How near a batch comes to a backend's rate limit, and how often it is refused.

`python benchmarks/pacing.py [--quick]`, or `pacing` as a name for `run.py`.

Two workers of 64 slots call one upstream that lets 6,000 requests (or 600,000 tokens) a minute pass,
refilled continuously, with no more than a second's worth at once; what it refuses it wants to hear of again
in a second. All ways run beside each other, each with an upstream of its own: paced by a limit that is
configured, paced by what the upstream's headers tell, waiting as a refusal says and no more, and asking
again at once.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import count
from time import monotonic

from client import run
from ground import Options, only_redis
from k9_broker.adapters.connect import Commands, connect
from k9_broker.adapters.redis_pacer import RedisPacer
from k9_broker.backends import Backend
from k9_broker.errors import BackendRateLimited
from k9_broker.limits import Limit, RateLimits
from k9_workers.pacing import Pacing
from tables import Aim, Figure, Table, weather

REQUESTS = 6_000
TOKENS = 600_000
SLOTS = 64
LATENCY = 0.3
"""Seconds a call takes, more or less."""
ASK_AT_ONCE = 0.05
"""Seconds after which a caller that heeds nothing asks again."""
COLUMNS = (
    "a batch of {} calls",
    "share of the limit",
    "refusals",
    "refusals per call",
    "most of one call",
    "seconds",
)


@dataclass
class Bucket:
    """Refilled continuously at a limit per minute, up to so many seconds' worth."""

    per_minute: int
    seconds: float
    level: float = field(init=False)
    at: float = field(default_factory=monotonic)

    def __post_init__(self) -> None:
        self.level = self.most

    @property
    def most(self) -> float:
        return self.per_minute * self.seconds / 60

    def refill(self) -> float:
        now = monotonic()
        self.level = min(self.most, self.level + (now - self.at) * self.per_minute / 60)
        self.at = now
        return self.level

    def told(self) -> Limit:
        level = self.refill()
        return Limit(self.per_minute, int(level), (self.most - level) * 60 / self.per_minute)


class Upstream:
    """What enforces the limits: over a minute, as its headers tell, and over a second."""

    def __init__(self, requests: int, tokens: int) -> None:
        self._requests = [Bucket(requests, seconds) for seconds in (60, 1)]
        self._tokens = [Bucket(tokens, seconds) for seconds in (60, 1)]
        self.passed = self.tokens = self.refused = 0

    async def call(self, tokens: int) -> RateLimits:
        """The headers of an answer. Raises `BackendRateLimited`."""
        costs = [(bucket, 1) for bucket in self._requests] + [(bucket, tokens) for bucket in self._tokens]
        if any(bucket.refill() < cost for bucket, cost in costs):
            self.refused += 1
            await asyncio.sleep(0.01)
            raise BackendRateLimited(retry_after=1.0)
        for bucket, cost in costs:
            bucket.level -= cost
        self.passed, self.tokens = self.passed + 1, self.tokens + tokens
        told = RateLimits(self._requests[0].told(), self._tokens[0].told())
        await asyncio.sleep(LATENCY * random.uniform(0.5, 1.5))
        return told


Way = Callable[[Upstream, int], Awaitable[int]]
"""Makes one call of so many tokens until it passes; gives how often it was refused."""


def paced(pacing: Pacing, *, listens: bool) -> Way:
    async def call(upstream: Upstream, tokens: int) -> int:
        for refusals in count():
            await pacing.turn(tokens, patience=600)
            try:
                told = await upstream.call(tokens)
            except BackendRateLimited as error:
                await pacing.limited(error)
                continue
            if listens:
                pacing.heard(told)
            return refusals
        raise AssertionError

    return call


def heeding(wait: float | None) -> Way:
    """Waits after a refusal for so long, or for what the refusal says."""

    async def call(upstream: Upstream, tokens: int) -> int:
        for refusals in count():
            try:
                await upstream.call(tokens)
            except BackendRateLimited as error:
                await asyncio.sleep((error.retry_after or 0.0) if wait is None else wait)
            else:
                return refusals
        raise AssertionError

    return call


@dataclass
class Batch:
    """One way through one batch: how it went."""

    name: str
    workers: list[Way]
    upstream: Upstream
    seconds: float = 0.0
    worst: int = 0
    """Refusals of the one call that met most: a batch job fails at its sixth."""

    async def go(self, sizes: list[int]) -> None:
        began = monotonic()
        lines = iter(sizes)

        async def slot(way: Way) -> None:
            for size in lines:
                refusals = await way(self.upstream, size)
                self.worst = max(self.worst, refusals)

        await asyncio.gather(*(slot(way) for way in self.workers for _ in range(SLOTS)))
        self.seconds = monotonic() - began - LATENCY

    def row(self, share: float) -> list[str]:
        up = self.upstream
        return [
            self.name,
            f"{share:.1%}",
            str(up.refused),
            f"{up.refused / up.passed:.2f}",
            str(self.worst),
            f"{self.seconds:.1f}",
        ]


def measure(options: Options) -> Figure:
    with only_redis(options) as redis:
        return run(_measure(redis.url, options))


async def _measure(url: str, options: Options) -> Figure:
    calls = options.of(2200, 600)
    connections = [Commands(connect(url, retries=1)) for _ in range(2)]
    small = await _batches(connections, "requests", [50] * calls)
    sizes = [random.choice([100, 200, 500, 2000]) for _ in range(calls * 5 // 28)]
    large = await _batches(connections, "tokens", sizes)
    for one in connections:
        await one.close()
    tables, aims = [], []
    for kind, batches, limit in (("requests", small, REQUESTS), ("tokens", large, TOKENS)):
        lines = len(sizes) if batches is large else calls
        shares = [
            (one.upstream.passed if batches is small else one.upstream.tokens) * 60 / one.seconds / limit
            for one in batches
        ]
        columns = (COLUMNS[0].format(lines), *COLUMNS[1:])
        rows = [one.row(share) for one, share in zip(batches, shares, strict=True)]
        tables.append(Table(f"A limit of {limit:,} {kind} a minute", columns, rows))
        aims.append(Aim(f"share of the {kind} limit, as configured", 100 * shares[0], 95, "%"))
        refused = 100 * batches[0].upstream.refused / lines
        aims.append(Aim(f"refused beside the {kind} limit", refused, 1, "% of calls", at_most=True))
    return Figure(tables, aims)


async def _batches(connections: list[Commands], kind: str, sizes: list[int]) -> list[Batch]:
    def pacings(name: str, **limits: int) -> list[Pacing]:
        one = Backend(name=f"{kind}-{name}", dialect="openai", url="http://127.0.0.1:9", **limits)
        return [Pacing(RedisPacer(commands, one), one) for commands in connections]

    configured = pacings("configured", requests_per_minute=REQUESTS, tokens_per_minute=TOKENS)
    learned = pacings("learned")
    ways = {
        "paced, limits configured": [paced(one, listens=True) for one in configured],
        "paced, limits learned from headers": [paced(one, listens=True) for one in learned],
        "waits as a refusal says": [heeding(None)] * 2,
        "asks again at once": [heeding(ASK_AT_ONCE)] * 2,
    }
    batches = [Batch(name, workers, Upstream(REQUESTS, TOKENS)) for name, workers in ways.items()]
    await asyncio.gather(*(batch.go(sizes) for batch in batches))
    for one in configured + learned:
        await one.close()
    return batches


def main() -> None:
    figure = measure(Options(quick="--quick" in sys.argv))
    print(weather())
    for table in figure.tables:
        print(f"\n{table}")
    print()
    for aim in figure.aims:
        print("  ".join(aim.row()))


if __name__ == "__main__":
    main()
