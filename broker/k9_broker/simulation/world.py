"""The simulated world: a clock that jumps from event to event, and what happens at each.

A request arrives, is decided and admitted (or refused), waits for its turn, holds a slot, ends. Beside that
backends announce themselves every `ANNOUNCE_EVERY` seconds and the reaper sweeps every `SWEEP_EVERY`. What a
request costs K-9 itself is no time here, but for the scenario's `way`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from itertools import count
from typing import Any

from k9_broker.requests import Kind
from k9_broker.simulation.arriving import Coming, arriving, lines
from k9_broker.simulation.calls import Call, End
from k9_broker.simulation.deciding import DAY, K9, Fallback, Requests, Went, needs_exactness
from k9_broker.simulation.late import LateSweep
from k9_broker.simulation.policies import PolicyName
from k9_broker.simulation.report import Tally
from k9_broker.simulation.scenario import Machine, Scenario
from k9_broker.simulation.servers import Server
from k9_broker.strategy.admission import NO_ROOM

ANNOUNCE_EVERY = 2.0
"""Seconds between the announcements of a backend."""
LOOK_EVERY = 0.5
"""Seconds between looks at measured estimates: one that has moved is announced at once."""
SWEEP_EVERY = 1.0
"""Seconds between the reaper's sweeps."""
_AGAIN = 0.1
"""Seconds until a batch job that was kept out of a free slot is looked at again."""
_NANOS = 1000
"""Nano-dollars a token, for each dollar a million tokens cost."""


class World:
    """One run of a scenario; `run` gives what came of it. `watch` is told of every call that has ended."""

    def __init__(self, scenario: Scenario, watch: Callable[[Call], None] | None = None) -> None:
        self.now = 0.0
        self.scenario = scenario
        self.exact = scenario.policy is not PolicyName.FALLBACK and needs_exactness(scenario)
        machines = _instances(scenario) if scenario.policy is PolicyName.FALLBACK else scenario.backends
        self.servers = {
            name: Server(name, machine, order, lambda: self.now, measured=self.exact)
            for order, (name, machine) in enumerate(machines.items())
        }
        self.tally = Tally(scenario)
        self._requests = Requests(scenario)
        self._k9 = None
        self._front: K9 | Fallback
        if scenario.policy is PolicyName.FALLBACK:
            self._front = Fallback(self.servers.values(), scenario.own_queue)
        else:
            self._front = self._k9 = K9(scenario, self.servers.values(), self._requests, exact=self.exact)
        self._late = LateSweep(self._k9, self.servers) if self._k9 and len(self.servers) > 1 else None
        self._watch = watch
        self._draw = random.Random(scenario.seed)  # noqa: S311 - no secret hangs on it
        self._heap: list[tuple[float, int, Callable[[Any], None], Any]] = []
        self._numbers = count()
        self._open = 0
        self._waits: list[tuple[float, int, Call]] = []
        """Calls that had to wait, by their deadline; some have begun since."""
        self._looks: set[str] = set()
        tenants = scenario.routing.tenants
        self._weights = {
            one.tenant: scenario.routing.tenant(one.tenant).weight for one in scenario.traffic.values()
        }
        self._caps = {name: said.max_in_flight for name, said in tenants.items() if said.max_in_flight}
        self._in_flight = dict.fromkeys(self._caps, 0)
        self._feeds: dict[str, Iterator[Coming]] = {}

    def run(self) -> Tally:
        """Until every request has ended. Raises `ConfigurationError` for a trace that cannot be read."""
        for server in self.servers.values():
            self._at(self._draw.uniform(0, ANNOUNCE_EVERY), self._announce, server)
            if self.exact:
                self._at(self._draw.uniform(0, LOOK_EVERY), self._look_at_news, server)
        self._at(SWEEP_EVERY, self._sweep, None)
        for number, (name, traffic) in enumerate(self.scenario.traffic.items()):
            if traffic.arrivals == "feeder":
                self._feeds[name] = lines(name, traffic, self.scenario.seed + number)
                self._at(traffic.begins, self._feed, (name, traffic.window))
                self._open += 1
        coming = arriving(self.scenario)
        heap, soon = self._heap, next(coming, None)
        while soon is not None or self._open:
            if soon is not None and soon.at <= heap[0][0]:
                self.now = soon.at
                self._arrive(soon)
                soon = next(coming, None)
            else:
                self.now, _, happens, what = heappop(heap)
                happens(what)
        return self.tally

    def _at(self, when: float, happens: Callable[[Any], None], what: Any) -> None:
        heappush(self._heap, (when, next(self._numbers), happens, what))

    def _arrive(self, coming: Coming) -> None:
        request = self._requests.plain(coming.traffic)
        call = Call(coming.traffic, request, self._weights.get(request.tenant, 1.0))
        call.arrived = self.now
        call.prompt, call.output = coming.prompt_tokens, coming.output_tokens
        self._open += 1
        self._submit((call, coming.kind))

    def _submit(self, what: tuple[Call, str]) -> None:
        call, kind = what
        went = self._front.went(call, kind, self.now)
        if went.server is not None:
            call.deadline_at = self.now + call.request.allowed_seconds
            self._queue(call, went)
        elif self._is_kept(call, went):
            self._at(self.now + went.retry_after, self._submit, what)
        else:
            call.reason = went.reason
            self._end(call, End.REFUSED)

    def _is_kept(self, call: Call, went: Went) -> bool:
        """A feeder keeps a line for which there is no room, and tries again."""
        patience = call.arrived + call.request.allowed_seconds
        return call.traffic in self._feeds and went.reason in NO_ROOM and self.now < patience

    def _queue(self, call: Call, went: Went) -> None:
        server = went.server
        assert server is not None
        call.backend, call.reason = server.name, went.reason
        if self._k9 is not None and went.cost:
            call.cost, call.day = went.cost, int(self.now // DAY)
            self._spend(call, went.cost)
        server.queues[call.request.priority].take_turn(call, went.busy, call.deadline_at - self.now)
        self._start(server)
        if call.began is None:
            heappush(self._waits, (call.deadline_at, next(self._numbers), call))

    def _start(self, server: Server) -> None:
        """Let jobs begin while there is a slot and one that may have it."""
        may_run = self._may_run if self._caps else None
        while (call := server.take(may_run)) is not None:
            if call.deadline_at <= self.now:
                server.queues[call.request.priority].settle(call, 0.0)
                self._end(call, End.EXPIRED)
                continue
            server.begin(call, self.now, self._draw, self.scenario.way)
            if call.tenant in self._in_flight:
                self._in_flight[call.tenant] += 1
            self._at(min(call.free_at, call.deadline_at), self._free, call)
        if server.keeps_batch_out and server.name not in self._looks:
            self._looks.add(server.name)
            self._at(self.now + _AGAIN, self._look_again, server)

    def _may_run(self, call: Call) -> bool:
        cap = self._caps.get(call.tenant)
        return cap is None or self._in_flight[call.tenant] < cap

    def _look_again(self, server: Server) -> None:
        self._looks.discard(server.name)
        self._start(server)

    def _free(self, call: Call) -> None:
        """A job ends, or its deadline ends it."""
        server = self.servers[call.backend]
        served = call.free_at <= call.deadline_at
        server.ended(call, self.now, answered=served)
        if call.tenant in self._in_flight:
            self._in_flight[call.tenant] -= 1
            for other in self.servers.values():
                if other is not server:
                    self._start(other)
        self._end(call, End.SERVED if served else End.EXPIRED)
        self._start(server)

    def _end(self, call: Call, how: End) -> None:
        call.end = how
        self._open -= 1
        charged = 0
        if call.began is not None:
            machine = self.servers[call.backend].machine
            if machine.kind is Kind.CLOUD:
                charged = round(
                    _NANOS * (machine.input_usd * call.prompt + machine.output_usd * _told(call, self.now))
                )
        if call.cost:
            self._spend(call, charged - call.cost)
        self.tally.ended(call, charged, self.now)
        if self._watch is not None:
            self._watch(call)
        if call.traffic in self._feeds:
            self._open += 1  # not over while the feeder has lines
            self._feed((call.traffic, 1))

    def _feed(self, what: tuple[str, int]) -> None:
        name, lines_free = what
        self._open -= 1
        for _ in range(lines_free):
            line = next(self._feeds[name], None)
            if line is None:
                return
            self._arrive(line)

    def _spend(self, call: Call, nanos: int) -> None:
        assert self._k9 is not None
        account = call.tenant, call.day
        self._k9.spent[account] = self._k9.spent.get(account, 0) + nanos

    def _announce(self, server: Server) -> None:
        server.announce()
        self._at(self.now + ANNOUNCE_EVERY, self._announce, server)

    def _look_at_news(self, server: Server) -> None:
        if server.has_news():
            server.announce()
        self._at(self.now + LOOK_EVERY, self._look_at_news, server)

    def _sweep(self, _: None) -> None:
        """The reaper's: jobs past their deadline end, late ones move on."""
        waits = self._waits
        while waits and (waits[0][2].began is not None or waits[0][2].end or waits[0][0] <= self.now):
            call = heappop(waits)[2]
            if call.began is None and call.end is None:
                self.servers[call.backend].queues[call.request.priority].leave(call)
                self._end(call, End.EXPIRED)
        if self._late is not None:
            earliest = waits[0][0] - self.now if waits else float("inf")
            for call, went in self._late.moves(self.now, earliest):
                self.servers[call.backend].queues[call.request.priority].leave(call)
                if call.cost:
                    self._spend(call, -call.cost)
                    call.cost = 0
                self._queue(call, went)
        self._at(self.now + SWEEP_EVERY, self._sweep, None)


def _told(call: Call, now: float) -> float:
    """Tokens of the answer by now."""
    assert call.began is not None
    if call.end is End.SERVED or call.free_at <= now:
        return call.output
    whole = call.free_at - call.began - call.first
    return max(0.0, call.output * (now - call.began - call.first) / whole) if whole > 0 else 0.0


def _instances(scenario: Scenario) -> dict[str, Machine]:
    """Each local instance as a server of its own; the cloud has room for all that it has slots for."""
    alone: dict[str, Machine] = {}
    for name, machine in scenario.backends.items():
        if machine.kind is Kind.CLOUD:
            alone[name] = machine
            continue
        for number in range(machine.instances):
            alone[f"{name}-{number + 1}"] = machine.model_copy(update={"instances": 1})
    return alone
