"""Whom admission takes: the rule that `admit.lua` carries out atomically, for dry runs and tests."""

from __future__ import annotations

from dataclasses import dataclass

from k9_broker.requests import Kind, Priority, Privacy
from k9_broker.snapshot import Snapshot
from k9_broker.strategy.decision import LOCAL_QUEUES, Candidate, Decision
from k9_broker.strategy.filters import LOCAL_ONLY

FULL = "overflow:depth"
NO_MONEY = "budget:exhausted"
NO_PRICE = "budget:unknown-price"


@dataclass(frozen=True, slots=True)
class Admission:
    """The candidate that is taken, if any, why it, and why not those before it."""

    candidate: Candidate | None
    reason: str
    """The candidate's own when it is the first; else why the first was passed over; else why none is left."""
    passed: tuple[tuple[Candidate, str], ...] = ()


def choose(decision: Decision, snapshot: Snapshot, priority: Priority, spent: int = 0) -> Admission:
    """`spent`: nano-dollars that the tenant has spent and reserved today."""
    waiting = {view.name: view.waiting.get(priority, 0) for view in snapshot.backends}
    passed: list[tuple[Candidate, str]] = []
    for candidate in decision.candidates:
        reason = _obstacle(decision, candidate, waiting[candidate.backend], spent)
        if reason is None:
            return Admission(candidate, passed[0][1] if passed else candidate.reason, tuple(passed))
        passed.append((candidate, reason))
    return Admission(None, passed[0][1] if passed else "no-candidate", tuple(passed))


def _obstacle(decision: Decision, candidate: Candidate, waiting: int, spent: int) -> str | None:
    stays = candidate.kind is Kind.LOCAL and candidate.queue.startswith(LOCAL_QUEUES)
    if decision.privacy is Privacy.LOCAL_ONLY and not stays:
        return LOCAL_ONLY
    if decision.budget is not None:
        if candidate.cost is None:
            return NO_PRICE
        if candidate.cost and spent + candidate.cost > decision.budget:
            return NO_MONEY
    if waiting >= candidate.max_waiting:
        return FULL
    return None
