"""A fleet in virtual time: the real engine decides, backends serve, queue and announce as workers do."""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count, groupby

from k9_broker.latency import LatencyEstimate, Running, moved
from k9_broker.models import Latency, ModelCard
from k9_broker.policy import Policy
from k9_broker.requests import InferenceRequest, Kind, Operation, Priority
from k9_broker.snapshot import BackendView, Snapshot
from k9_broker.strategy.admission import choose
from k9_broker.strategy.engine import Router
from walks import gauges

HEARTBEAT, SHIFT, EARLIEST, STALE = 2.0, 1.5, 0.5, 0.05
"""Seconds between announcements; the change that is told at once; at most so often; age of a snapshot."""
TOKENS = 50


@dataclass
class Server:
    """One backend with one model. `slowness(t)` multiplies its times."""

    name: str
    slots: int = 8
    latency: Latency = field(default_factory=lambda: Latency(ttft=0.2, tpot=0.01))
    slowness: Callable[[float], float] = lambda _: 1.0
    waiting: deque[int] = field(default_factory=deque)
    running: dict[int, float] = field(default_factory=dict)
    estimate: LatencyEstimate = field(default_factory=LatencyEstimate)
    announced: Latency | None = None
    announced_at: float = -HEARTBEAT
    service: float = 1.0
    told_service: float = 1.0

    def announce(self, now: float) -> None:
        current = self.estimate.at(
            now, [Running(now - began, streamed=False) for began in self.running.values()]
        )
        since = now - self.announced_at
        if since >= HEARTBEAT or (current and since >= EARLIEST and moved(self.announced, current, SHIFT)):
            self.announced, self.announced_at, self.told_service = current, now, self.service

    def view(self, order: int) -> BackendView:
        return BackendView(
            name=self.name,
            kind=Kind.LOCAL,
            dialect="fake",
            models=frozenset({"m"}),
            operations=frozenset({Operation.CHAT}),
            order=order,
            slots=self.slots,
            max_waiting=dict.fromkeys(Priority, 1000),
            workers=1,
            waiting={Priority.INTERACTIVE: len(self.waiting)},
            in_flight=len(self.running),
            service_seconds=self.told_service,
            cards={"m": ModelCard()},
            latencies={"m": self.announced} if self.announced else {},
        )


@dataclass
class Simulation:
    """After `run`, `sent` has each request's instant and backend, `waited` its seconds in all."""

    servers: list[Server]
    rate: float
    """Requests a second, as a Poisson process."""
    strategy: str = "auto:latency"
    seed: int = 1
    own_counted: bool = True
    """Whether the API counts its own admissions on the snapshot it has."""
    policy: Policy = field(default_factory=Policy)
    sent: list[tuple[float, str]] = field(default_factory=list)
    waited: list[tuple[float, float]] = field(default_factory=list)

    def run(self, seconds: float) -> None:
        chance, router, numbers = random.Random(self.seed), Router(self.policy), count()
        events: list[tuple[float, int, str, Server | None, int]] = [(0.0, next(numbers), "arrive", None, 0)]
        heappush(events, (0.0, next(numbers), "beat", None, 0))
        by_name = {server.name: server for server in self.servers}
        snapshot, taken, born = Snapshot(), -1.0, dict[int, float]()

        def start(server: Server, now: float) -> None:
            while server.waiting and len(server.running) < server.slots:
                job = server.waiting.popleft()
                server.running[job] = now
                length = server.latency.seconds(TOKENS) * server.slowness(now) * chance.uniform(0.9, 1.1)
                heappush(events, (now + length, next(numbers), "end", server, job))

        while events and events[0][0] < seconds:
            now, number, what, server, job = heappop(events)
            if what == "beat":
                for one in self.servers:
                    one.announce(now)
                heappush(events, (now + 0.1, next(numbers), "beat", None, 0))
            elif what == "end":
                assert server is not None
                took = now - server.running.pop(job)
                server.estimate.observe(now, ttft=None, seconds=took, completion_tokens=TOKENS)
                server.service += 0.2 * (took - server.service)
                self.waited.append((now, now - born.pop(job)))
                start(server, now)
            else:
                if now - taken > STALE:
                    snapshot = Snapshot(tuple(one.view(i) for i, one in enumerate(self.servers)))
                    taken = now
                asked = _request(number)
                decision = router.decide(asked, snapshot)
                chosen = choose(decision, asked, gauges(snapshot, decision)).candidate
                assert chosen is not None
                if self.own_counted:
                    snapshot = snapshot.admitted(chosen.backend, Priority.INTERACTIVE)
                self.sent.append((now, chosen.backend))
                born[number] = now
                by_name[chosen.backend].waiting.append(number)
                start(by_name[chosen.backend], now)
                heappush(events, (now + chance.expovariate(self.rate), next(numbers), "arrive", None, 0))

    def share(self, name: str, since: float, until: float) -> float:
        """The part of the requests from `since` to `until` that went to `name`."""
        counts = Counter(backend for at, backend in self.sent if since <= at < until)
        return counts[name] / max(1, counts.total())

    def longest_run(self, since: float, until: float) -> int:
        """The most requests in a row that went to one backend."""
        names = [backend for at, backend in self.sent if since <= at < until]
        return max(len(list(run)) for _, run in groupby(names))

    def mean_wait(self, since: float, until: float) -> float:
        times = [seconds for at, seconds in self.waited if since <= at < until]
        return sum(times) / max(1, len(times))


def _request(number: int) -> InferenceRequest:
    said = [{"role": "user", "content": f"question {number}"}]
    return InferenceRequest(Operation.CHAT, "auto:latency", {"messages": said, "max_tokens": TOKENS})
