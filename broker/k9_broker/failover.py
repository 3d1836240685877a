"""Where a job may go on when its backend fails it: the rest of its decision, seen in the present fleet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from k9_broker.jobs import Job
from k9_broker.money import nanos
from k9_broker.naming import queue_name
from k9_broker.requests import Kind, Privacy
from k9_broker.snapshot import BackendView, Snapshot
from k9_broker.strategy.decision import Candidate

RETURNED = "returned:recovered"
"""The reason of a job that went back to the backend it had been moved away from."""


def onward(
    explained: Mapping[str, Any],
    job: Job,
    snapshot: Snapshot,
    *,
    reason: str,
    only: str | None = None,
    again: bool = False,
    marks: bool = False,
) -> list[Candidate]:
    """The places that may take the job now, best first; `reason` is why they get it.

    `explained` is the decision that queued it (`strategy.explanation`): its candidates, and those on
    standby, which had been left out only because they were down. Left out now are the job's present
    backend, those that have failed it, and those that are down or no longer what they were. `only`:
    no backend but this one. `again`: its present backend too, for another worker of it. `marks`:
    places past a mark of theirs will not do.
    """
    views = {view.name: view for view in snapshot.backends}
    gone = {*job.tried} if again else {job.backend, *job.tried}
    found = []
    for place in _ranked(explained):
        view = views.get(place["backend"])
        if view is None or view.name in gone or (only is not None and view.name != only):
            continue
        if may_take(job, place, view):
            found.append(_candidate(job, place, view, reason, marks))
    return found


def may_take(job: Job, place: Mapping[str, Any], view: BackendView) -> bool:
    """Whether a place of the job's decision is still what it was, and fit."""
    allowed = view.kind is Kind.LOCAL or job.privacy is Privacy.ANY
    model = place["model"]
    same = view.kind == place["kind"] and model in view.models and view.can(model, job.operation)
    return allowed and view.fit and same


def busy_at(explained: Mapping[str, Any], job: Job) -> float:
    """Seconds the job is expected to hold a slot where it is, by the decision that queued it."""
    here = (job.backend, job.model)
    places = (place for place in _ranked(explained) if (place["backend"], place["model"]) == here)
    return next((max(0.0, place["seconds"] - place["wait_seconds"]) for place in places), 0.0)


def _ranked(explained: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Candidates in their order; each place on standby before the first that is rated lower."""
    standby = list(explained.get("standby", ()))
    for place in explained.get("candidates", ()):
        while standby and standby[0]["score"] > place["score"]:
            yield standby.pop(0)
        yield place
    yield from standby


def _candidate(job: Job, place: Mapping[str, Any], view: BackendView, reason: str, marks: bool) -> Candidate:
    usd = place["cost_usd"]
    # A job that goes back to its own queue finds room there, as it does at every hand-back.
    held = view.slots if view.name == job.backend else 0
    return Candidate(
        backend=view.name,
        kind=view.kind,
        queue=queue_name(view.kind, view.name, job.priority),
        max_waiting=view.max_waiting[job.priority] + held,
        reason=reason,
        model=place["model"],
        score=place["score"],
        cost=None if usd is None else nanos(usd),
        wait=place["wait_seconds"],
        seconds=place["seconds"],
        slots=view.slots,
        service_seconds=view.service_seconds,
        least_wait=view.least_wait,
        overflow_at=view.overflow_at if marks else None,
        overflow_wait=view.overflow_wait if marks else None,
    )
