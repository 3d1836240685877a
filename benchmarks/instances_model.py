"""A model of a backend's instances under bursts: who gets a call is asked of the worker's own rule.

Servers hold a call for as long as it takes and let more than their slots wait in order, as real ones do.
The worker has as many calls under way as the servers have slots; the rest waits with it. Others' calls
come and go at one server, and the worker hears of them only when it looks.
"""

from __future__ import annotations

import csv
import heapq
import math
import random
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count, pairwise
from pathlib import Path

from k9_broker.balance import InstanceView, Pace, choose, paces

LOOK_EVERY = 10.0
"""Seconds between the worker's looks at others' load."""
PREFILL, DECODE = 4000.0, 80.0
"""Tokens of prompt and of answer that a server of slowness 1 works through in a second, for one call."""


@dataclass(frozen=True, slots=True)
class Call:
    at: float
    prompt: int
    answer: int
    session: int


@dataclass(slots=True)
class Server:
    """One instance: its true speed, which nobody tells, and what happens at it."""

    name: str
    slots: int = 8
    slowness: float = 1.0
    foreign: Sequence[tuple[float, int]] = ()
    """From when on others hold so many of its slots."""
    remembers: int = 0
    """Sessions whose prompts its cache holds."""
    in_flight: int = 0
    running: int = 0
    waiting: deque[Running] = field(default_factory=deque)
    held: float = 0.0
    """Slot seconds of our calls."""
    told: int = 0
    """Others' calls at the last look."""
    pace: Pace | None = None
    picks: float = 0.0
    cache: OrderedDict[int, None] = field(default_factory=OrderedDict)

    def others(self, now: float) -> int:
        return next((held for since, held in reversed(self.foreign) if since <= now), 0)

    def seconds(self, call: Call) -> tuple[float, bool]:
        """How long a call takes, and whether its prompt was in the cache."""
        hit = call.session in self.cache
        self.cache[call.session] = None
        self.cache.move_to_end(call.session)
        if len(self.cache) > self.remembers:
            self.cache.popitem(last=False)
        prompt = call.prompt * (0.05 if hit else 1.0)
        return self.slowness * (prompt / PREFILL + call.answer / DECODE), hit


@dataclass(slots=True)
class Running:
    call: Call
    sent: float
    """When it went to its server."""
    began: float = 0.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a trace under one rule."""

    skew: float
    """Slots taken at the busiest server, others' included, over the mean."""
    waits: Sequence[float]
    times: Sequence[float]
    makespan: float
    hits: float
    """Share of calls whose prompt was in a cache."""


Rule = Callable[[Sequence[Server], Call, float], int]


def round_robin() -> Rule:
    turn = count()
    return lambda servers, call, now: next(turn) % len(servers)


def at_random(seed: int = 3) -> Rule:
    draw = random.Random(seed)
    return lambda servers, call, now: draw.randrange(len(servers))


def balanced(*, affinity: bool = False) -> Rule:
    """The worker's rule, seeing what a worker sees."""

    def rule(servers: Sequence[Server], call: Call, now: float) -> int:
        known = paces([server.pace for server in servers], now)
        views = [
            InstanceView(
                name=server.name,
                slots=server.slots,
                in_flight=server.in_flight,
                foreign=server.told,
                pace=pace,
                picks=server.picks,
            )
            for server, pace in zip(servers, known, strict=True)
        ]
        place = choose(views, f"session {call.session}" if affinity else None)
        assert place is not None
        return place

    return rule


def replay(servers: Sequence[Server], calls: Sequence[Call], rule: Rule) -> Outcome:
    """Send the calls, which are in order of time."""
    order = count()
    events: list[tuple[float, int, str, Server | None, Running | None]] = []

    def happens(at: float, what: str, server: Server | None = None, one: Running | None = None) -> None:
        heapq.heappush(events, (at, next(order), what, server, one))

    most = sum(server.slots for server in servers)
    for call in calls:
        happens(call.at, "call", None, Running(call, 0.0))
    for server in servers:
        for since, _ in server.foreign:
            happens(since, "others", server)
    happens(calls[0].at, "look")
    line: deque[Running] = deque()
    left, last = len(calls), calls[0].at
    hits = 0
    waits, times = [], []

    def begin(server: Server, now: float) -> None:
        nonlocal hits
        while server.waiting and server.running + server.others(now) < server.slots:
            one = server.waiting.popleft()
            seconds, hit = server.seconds(one.call)
            hits += hit
            one.began = now
            server.running += 1
            waits.append(now - one.call.at)
            happens(now + seconds, "end", server, one)

    def send(now: float) -> None:
        while line and sum(server.in_flight for server in servers) < most:
            one = line.popleft()
            server = servers[rule(servers, one.call, now)]
            server.in_flight += 1
            server.picks += 1
            one.sent = now
            server.waiting.append(one)
            begin(server, now)

    while left:
        now, _, what, server, one = heapq.heappop(events)
        if what == "call" and one is not None:
            line.append(one)
        elif what == "look":
            for each in servers:
                each.told = each.others(now)
            happens(now + LOOK_EVERY, "look")
        elif what == "end" and server is not None and one is not None:
            left, last = left - 1, now
            server.running -= 1
            server.in_flight -= 1
            server.held += now - one.began
            times.append(now - one.call.at)
            a_unit = (now - one.sent) / (10 + one.call.answer)
            server.pace = server.pace.observed(a_unit, now) if server.pace else Pace(a_unit, now)
        if server is not None:
            begin(server, now)
        send(now)
    span = last - calls[0].at
    busy = [(server.held + _foreign_seconds(server, calls[0].at, last)) / server.slots for server in servers]
    return Outcome(max(busy) / (sum(busy) / len(busy)), waits, times, span, hits / len(calls))


def _foreign_seconds(server: Server, begin: float, end: float) -> float:
    marks = [*server.foreign, (end, 0)]
    return sum(
        held * max(0.0, min(end, until) - max(begin, since)) for (since, held), (until, _) in pairwise(marks)
    )


def bursts(calls: int, *, sessions: int = 150, seed: int = 11) -> list[Call]:
    """A trace of our own: calm and bursts of six times the rate take turns; some sessions call more."""
    draw = random.Random(seed)
    now, calm_until, rate = 0.0, 0.0, 1.0
    found: list[Call] = []
    for _ in range(calls):
        if now >= calm_until:
            rate = 6.0 if rate == 1.0 else 1.0
            calm_until = now + draw.expovariate(1 / (2.0 if rate == 6.0 else 8.0))
        now += draw.expovariate(rate)
        session = int(sessions * draw.random() ** 2)
        prompt = int(draw.lognormvariate(math.log(1200), 0.8))
        found.append(Call(now, prompt, max(4, int(draw.lognormvariate(math.log(120), 0.7))), session))
    return found


def recorded(trace: Path, calls: int, *, sessions: int = 150, seed: int = 11) -> list[Call]:
    """The beginning of a recorded trace (`t_seconds,input_tokens,output_tokens,kind`), sessions drawn."""
    draw = random.Random(seed)
    with trace.open() as file:
        rows = [row for _, row in zip(range(calls), csv.DictReader(file), strict=False)]
    return [
        Call(
            float(row["t_seconds"]),
            int(row["input_tokens"]),
            int(row["output_tokens"]),
            int(sessions * draw.random() ** 2),
        )
        for row in rows
    ]


def stretched(calls: Sequence[Call], seconds: float) -> list[Call]:
    """The same calls in so many seconds."""
    first, last = calls[0].at, calls[-1].at
    factor = seconds / (last - first)
    return [Call((call.at - first) * factor, call.prompt, call.answer, call.session) for call in calls]


def work(calls: Sequence[Call]) -> float:
    """Slot seconds the calls take at a server of slowness 1 that remembers nothing."""
    return sum(call.prompt / PREFILL + call.answer / DECODE for call in calls)
