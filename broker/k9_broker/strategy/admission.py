"""Whom admission takes: the rule that `scripts/parts/places.lua` carries out atomically, for dry runs,
simulation and tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from k9_broker.requests import InferenceRequest, Kind, Priority, Privacy
from k9_broker.saturation import RESUME, Gauge, past, share, wait_behind
from k9_broker.strategy.decision import LOCAL_QUEUES, Candidate, Decision
from k9_broker.strategy.filters import LOCAL_ONLY

FULL = "overflow:depth"
SLOW = "overflow:wait"
LATE = "overflow:deadline"
WAITS = "batch:waits"
NO_MONEY = "budget:exhausted"
NO_PRICE = "budget:unknown-price"
NO_ROOM = frozenset({FULL, SLOW, LATE, WAITS})


@dataclass(frozen=True, slots=True)
class Admission:
    """The candidate that is taken, if any, why it, and why not those before it."""

    candidate: Candidate | None
    reason: str
    """The candidate's own when it is the first, or past a mark like all; else why the first was passed
    over; else why none is left."""
    passed: tuple[tuple[Candidate, str], ...] = ()
    wait: float = 0.0
    """Seconds it would wait; where none is taken, the shortest that anybody would."""


class Obstacle(NamedTuple):
    """What keeps a request from a place; without a reason, nothing does."""

    reason: str
    yields: bool = False
    """It may go there all the same if there is no better place."""
    wait: float | None = None


def choose(
    decision: Decision, request: InferenceRequest, gauges: Mapping[str, Gauge], spent: int = 0
) -> Admission:
    """`gauges`: each candidate's queue, by its name. `spent`: nano-dollars that the tenant has spent and
    reserved today.

    The first candidate without an obstacle; if there is none, the one with the shortest wait of those that
    are only past a mark. A batch job whose queue here is full or slow waits for it rather than go to the
    cloud.
    """
    passed: list[tuple[Candidate, str]] = []
    marked: list[tuple[float, int]] = []
    waits: list[float] = []
    stays = False
    for candidate in decision.candidates:
        found = obstacle(decision, request, candidate, gauges[candidate.queue], spent)
        if not found.reason and stays and candidate.kind is Kind.CLOUD:
            found = Obstacle(WAITS)
        if not found.reason:
            reason = passed[0][1] if passed else candidate.reason
            return Admission(candidate, reason, tuple(passed), found.wait or 0.0)
        if found.wait is not None:
            waits.append(found.wait)
            if found.yields:
                marked.append((found.wait, len(passed)))
        batch_here = request.priority is Priority.BATCH and candidate.kind is Kind.LOCAL
        stays = stays or (batch_here and found.reason in (FULL, SLOW))
        passed.append((candidate, found.reason))
    if marked:
        wait, at = min(marked)
        candidate = passed[at][0]
        reason = passed[0][1] if at else candidate.reason
        del passed[at]
        return Admission(candidate, reason, tuple(passed), wait)
    return Admission(None, passed[0][1] if passed else "no-candidate", tuple(passed), min(waits, default=0.0))


def obstacle(
    decision: Decision, request: InferenceRequest, candidate: Candidate, found: Gauge, spent: int = 0
) -> Obstacle:
    """What keeps the request from one candidate."""
    stays = candidate.kind is Kind.LOCAL and candidate.queue.startswith(LOCAL_QUEUES)
    if decision.privacy is Privacy.LOCAL_ONLY and not stays:
        return Obstacle(LOCAL_ONLY)
    if decision.budget is not None:
        if candidate.cost is None:
            return Obstacle(NO_PRICE)
        if candidate.cost and spent + candidate.cost > decision.budget:
            return Obstacle(NO_MONEY)
    mark, wait = candidate.max_waiting, _wait(candidate, found, found.ahead)
    # Patient callers count for themselves alone, so that they shut nobody out who would not wait so long.
    counted = found.waiting if request.patient else found.waiting - found.patient
    crowds = decision.shared and wait > 0 and found.own >= share(mark, counted)
    full = counted >= mark or crowds
    batch = request.priority is Priority.BATCH
    if wait + candidate.busy > request.allowed_seconds:
        return Obstacle(LATE, not full and (batch or request.patient or wait <= 0), wait)
    if full:
        return Obstacle(FULL, wait=wait)
    if not batch or candidate.kind is Kind.LOCAL:
        return Obstacle(_saturated(candidate, found, batch), True, wait)
    return Obstacle("", wait=wait)


def _wait(candidate: Candidate, found: Gauge, ahead: int) -> float:
    middle = wait_behind(ahead, found.in_flight, candidate.slots, candidate.service_seconds).p50
    return max(middle, candidate.least_wait)


def _saturated(candidate: Candidate, found: Gauge, batch: bool) -> str:
    """Which mark says that jobs should rather go elsewhere; empty when none does. A batch has none on depth.

    Whose turn comes soon all the same, because others fill the queue, may stay; and who begins at once.
    """
    at, seconds = None if batch else candidate.overflow_at, candidate.overflow_wait
    slow = past(seconds, _wait(candidate, found, found.waiting), before=found.saturated)
    wait = _wait(candidate, found, found.ahead)
    if wait <= 0:
        return ""
    if past(at, found.waiting, before=found.saturated) and found.ahead >= RESUME * (at or 0):
        return FULL
    return SLOW if slow and wait >= RESUME * (seconds or 0.0) else ""
