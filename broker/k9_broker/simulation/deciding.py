"""Which server a request goes to: K-9's own rules on the simulated fleet, or a front without K-9.

`Router.decide` takes some tenths of a millisecond. Where the order of candidates does not depend on load,
decisions are remembered for each stream, kind and size of request; only the service seconds that backends
announce are put in anew. Three things are approximate there: sizes are rounded to half an octave of tokens,
speeds are the scenario's and not measured ones, and a snapshot is never old. All else (queues, marks,
hysteresis, deadlines, budgets) is judged for every request, by the rules that admission carries out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

from k9_broker.requests import InferenceRequest, Kind, Operation, Priority, TaskType
from k9_broker.saturation import Gauge
from k9_broker.sensitive import Detector
from k9_broker.simulation.calls import Call
from k9_broker.simulation.policies import PolicyName
from k9_broker.simulation.scenario import Scenario, Traffic
from k9_broker.simulation.servers import MODEL, Server
from k9_broker.snapshot import Snapshot, retry_after
from k9_broker.strategy.admission import choose
from k9_broker.strategy.builtin import named_fully
from k9_broker.strategy.decision import Decision
from k9_broker.strategy.engine import Router
from k9_broker.strategy.needs import Needs, needs_of

FRESH = 0.05
"""Seconds a snapshot is reused."""
DAY = 86400
_CODE = "code"
_HALF_OCTAVES = 2
_LETTERS = "word"
"""Four letters: what a token is taken for."""


@dataclass(frozen=True, slots=True)
class Went:
    """Where a request goes: nowhere when `server` is `None`."""

    server: Server | None
    reason: str
    busy: float = 0.0
    """Seconds it is expected to hold a slot."""
    cost: int = 0
    """Nano-dollars expected."""
    retry_after: float = 1.0


def needs_exactness(scenario: Scenario) -> bool:
    """Whether each request must be decided anew: asked for, or the order of candidates follows the load."""
    router = Router(scenario.routing)
    named = {scenario.routing.strategy, *(one.strategy for one in scenario.routing.tenants.values())}
    named |= {one.then.strategy for one in scenario.routing.rules}
    full = {named_fully(name, router.strategies) for name in named if name}
    return scenario.exact or any(
        router.strategies[name].weights.get(scorer) for name in full if name for scorer in ("latency", "load")
    )


class Requests:
    """The canonical requests of a scenario's streams, one for each stream and rounded size."""

    def __init__(self, scenario: Scenario) -> None:
        only = {PolicyName.ALL_LOCAL: Kind.LOCAL, PolicyName.ALL_CLOUD: Kind.CLOUD}
        self._kind = only.get(scenario.policy)
        self._one_class = scenario.policy is PolicyName.FALLBACK
        self._traffic = scenario.traffic
        self._plain = {name: self.sized(name, "conv", 0, None) for name in scenario.traffic}

    def plain(self, traffic: str) -> InferenceRequest:
        """What all requests of a stream have in common."""
        return self._plain[traffic]

    def sized(self, traffic: str, kind: str, prompt: int, output: int | None) -> InferenceRequest:
        said = self._traffic[traffic]
        usual = TaskType.CODE_COMPLETION if kind == _CODE else TaskType.CHAT
        body: dict[str, Any] = {"messages": [{"role": "user", "content": _LETTERS * prompt}]}
        return InferenceRequest(
            Operation.CHAT,
            MODEL,
            body if output is None else {**body, "max_tokens": output},
            tenant="" if self._one_class else said.tenant,
            priority=Priority.INTERACTIVE if self._one_class else said.priority,
            deadline=said.deadline,
            task_type=said.task_type or usual,
            privacy=said.privacy,
            kind=self._kind,
            patient=said.patient,
        )


class _Gauges(dict[str, Gauge]):
    """The queues that a choice looks at, as the tenant's next job finds them."""

    def __init__(self, places: Mapping[str, tuple[Server, Priority]], tenant: str) -> None:
        self._places = places
        self._tenant = tenant

    def __missing__(self, queue: str) -> Gauge:
        server, priority = self._places[queue]
        found = self[queue] = server.gauge(priority, self._tenant)
        return found


class K9:
    """The router and admission."""

    def __init__(
        self, scenario: Scenario, servers: Iterable[Server], requests: Requests, *, exact: bool
    ) -> None:
        self._servers = {one.name: one for one in servers}
        self._places = {
            queue: (server, priority)
            for server in self._servers.values()
            for priority, queue in server.names.items()
        }
        self._traffic: Mapping[str, Traffic] = scenario.traffic
        self._router = Router(scenario.routing)
        self._requests = requests
        self._exact = exact
        self._detector = Detector(scenario.routing.privacy.detect, scenario.routing.privacy.words)
        self._known_needs: dict[object, Needs] = {}
        self._made: dict[object, Decision] = {}
        self._fresh: dict[object, Decision] = {}
        self._changes = -1
        self._snapshot, self._taken = Snapshot(), float("-inf")
        self._numbers = count()
        self.spent: dict[tuple[str, int], int] = {}
        """Nano-dollars spent and set aside, by tenant and day."""

    def went(self, call: Call, kind: str, now: float) -> Went:
        decision = self._anew(call, kind, now) if self._exact else self._known(call, kind)
        request = call.request
        call.decision = decision
        if not decision.candidates:
            return Went(None, decision.removals[0].reason if decision.removals else "no-candidate")
        gauges = _Gauges(self._places, call.tenant)
        spent = 0 if decision.budget is None else self.spent_by(call, now)
        admission = choose(decision, request, gauges, spent)
        if request.priority is Priority.INTERACTIVE:
            for queue, found in gauges.items():
                self._places[queue][0].look_at_marks(found)
        if (taken := admission.candidate) is None:
            return Went(None, admission.reason, retry_after=retry_after(admission.wait))
        if self._exact:
            self._snapshot = self._snapshot.admitted(taken.backend, request.priority)
        return Went(self._servers[taken.backend], admission.reason, taken.busy, taken.cost or 0)

    def spent_by(self, call: Call, now: float) -> int:
        """Nano-dollars its tenant has spent and set aside today, but for what is set aside for itself."""
        today = int(now // DAY)
        own = call.cost if call.day == today else 0
        return self.spent.get((call.tenant, today), 0) - own

    def snapshot(self) -> Snapshot:
        """The fleet now."""
        return Snapshot(tuple(one.view() for one in self._servers.values()))

    def gauge(self, queue: str, tenant: str) -> Gauge:
        server, priority = self._places[queue]
        return server.gauge(priority, tenant)

    def _known(self, call: Call, kind: str) -> Decision:
        """The decision for requests of this size, with the service seconds announced last."""
        changes = sum([one.changes for one in self._servers.values()])
        if changes != self._changes:
            self._changes = changes
            self._fresh.clear()
        key = self._key(call, kind)
        if found := self._fresh.get(key):
            return found
        made = self._made.get(key)
        if made is None:
            made = self._made[key] = self._router.weigh(self._needs(key), self.snapshot())
        servers = self._servers
        candidates = [
            one._replace(service_seconds=servers[one.backend].service_seconds) for one in made.candidates
        ]
        fresh = self._fresh[key] = replace(made, candidates=tuple(candidates))
        return fresh

    def _anew(self, call: Call, kind: str, now: float) -> Decision:
        """The decision by the snapshot that the API has now."""
        if now - self._taken > FRESH:
            self._snapshot, self._taken = self.snapshot(), now
        needs = self._needs(self._key(call, kind))
        # Prompts differ, so that near-equals share them.
        body = {"messages": [{"role": "user", "content": f"{kind} {next(self._numbers)}"}]}
        needs = replace(needs, request=replace(needs.request, body=body))
        return self._router.weigh(needs, self._snapshot)

    def _key(self, call: Call, kind: str) -> tuple[str, str, int, int | None]:
        tells = self._traffic[call.traffic].tells_output
        return call.traffic, kind, _size(call.prompt), _size(call.output) if tells else None

    def _needs(self, key: tuple[str, str, int, int | None]) -> Needs:
        if found := self._known_needs.get(key):
            return found
        traffic, kind, prompt, output = key
        request = self._requests.sized(
            traffic, kind, _tokens(prompt), None if output is None else _tokens(output)
        )
        found = self._known_needs[key] = needs_of(request, self._router.policy, self._detector)
        return found


def _size(tokens: int) -> int:
    """Which half octave a number of tokens is nearest to."""
    return round(_HALF_OCTAVES * math.log2(tokens)) if tokens > 1 else tokens - 1


def _tokens(size: int) -> int:
    return round(2 ** (size / _HALF_OCTAVES)) if size >= 0 else 0


class Fallback:
    """Without K-9: the local instances in turn, the next after a 429, then the cloud. Each has slots and a
    short queue of its own; the cloud takes all."""

    def __init__(self, servers: Iterable[Server], own_queue: int) -> None:
        both = list(servers)
        self._locals = [one for one in both if one.kind is Kind.LOCAL]
        self._cloud = [one for one in both if one.kind is Kind.CLOUD]
        self._own_queue = own_queue
        self._turn = count()

    def went(self, call: Call, kind: str, now: float) -> Went:
        first = next(self._turn)
        for after in range(len(self._locals)):
            server = self._locals[(first + after) % len(self._locals)]
            waiting = len(server.queues[Priority.INTERACTIVE])
            if len(server.running) < server.slots or waiting < self._own_queue:
                return Went(server, "in turn")
        if not self._cloud:
            return Went(None, "429")
        return Went(self._cloud[first % len(self._cloud)], "after-429")
