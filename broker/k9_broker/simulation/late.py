"""Jobs that would wait too long where they are move on: the reaper's sweep of `adapters/moving_late.py`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from k9_broker.failover import onward
from k9_broker.jobs import Job, JobState
from k9_broker.lateness import LATE, is_late, is_worth_it
from k9_broker.requests import Priority
from k9_broker.simulation.calls import Call
from k9_broker.simulation.deciding import K9, Went
from k9_broker.simulation.servers import MODEL, Server
from k9_broker.snapshot import BackendView, Snapshot
from k9_broker.strategy.admission import obstacle
from k9_broker.strategy.decision import Decision
from k9_broker.strategy.explanation import explain

_PAGE = 200
"""Jobs of one queue looked at in a sweep; the next sweep goes on behind them."""
_SOON = 60.0
"""Seconds a job is thought to need at most once it begins, when nobody knows better."""


class LateSweep:
    def __init__(self, k9: K9, servers: Mapping[str, Server]) -> None:
        self._k9 = k9
        self._servers = servers
        self._looked: dict[tuple[str, Priority], int] = {}

    def moves(self, now: float, left: float) -> Iterator[tuple[Call, Went]]:
        """The jobs that move, and where to; whoever asks moves each before the next. `left`: seconds until
        the earliest deadline."""
        if not any(len(queue) for one in self._servers.values() for queue in one.queues.values()):
            return
        snapshot = self._k9.snapshot()
        for view in snapshot.backends:
            for priority in Priority:
                wait = view.estimated_wait(priority)
                slow = priority is Priority.INTERACTIVE and wait > (view.overflow_wait or float("inf")) / 2
                if view.waiting.get(priority, 0) and (slow or wait + _SOON > left):
                    yield from self._queue(view, priority, snapshot, now)

    def _queue(
        self, view: BackendView, priority: Priority, snapshot: Snapshot, now: float
    ) -> Iterator[tuple[Call, Went]]:
        start = self._looked.get((view.name, priority), 0)
        calls = list(self._servers[view.name].queues[priority])[start : start + _PAGE]
        before = view.ahead(priority) - view.waiting.get(priority, 0)
        moved = 0
        for place, call in enumerate(calls):
            if call.reason == LATE or call.decision is None or len(call.decision.candidates) < 2:
                continue
            ahead = before + start + place - moved
            if (went := self._moved(call, view, snapshot, ahead, now)) is not None:
                moved += 1
                yield call, went
        self._looked[view.name, priority] = start + len(calls) - moved if len(calls) == _PAGE else 0

    def _moved(
        self, call: Call, view: BackendView, snapshot: Snapshot, ahead: int, now: float
    ) -> Went | None:
        priority, left = call.request.priority, call.deadline_at - now
        waited = now - call.arrived
        if not is_late(view, priority, ahead=ahead, waited=waited, busy=call.busy, seconds_left=left):
            return None
        assert call.decision is not None
        remaining = view.wait_behind(ahead).p50
        others = {one.name: one for one in snapshot.backends}
        asked = replace(call.request, deadline=max(left, 1e-9))
        decision = Decision((), (), privacy=call.decision.privacy, budget=call.decision.budget)
        for place in onward(explain(call.decision), _job(call, view), snapshot, reason=LATE, marks=True):
            if not is_worth_it(others[place.backend], priority, remaining):
                continue
            found = obstacle(
                decision, asked, place, self._k9.gauge(place.queue, call.tenant), self._k9.spent_by(call, now)
            )
            if not found.reason:
                return Went(self._servers[place.backend], LATE, place.busy, place.cost or 0)
        return None


def _job(call: Call, view: BackendView) -> Job:
    """What the ledger would have of it, as far as it matters for where it may go."""
    request = call.request
    return Job(
        id="", state=JobState.QUEUED, generation=1, operation=request.operation, model=MODEL,
        tenant=call.tenant, priority=request.priority, backend=view.name, kind=view.kind, reason=call.reason,
        stream=False, created_at=call.arrived, deadline_at=call.deadline_at,
        privacy=request.privacy if call.decision is None else call.decision.privacy,
    )  # fmt: skip
