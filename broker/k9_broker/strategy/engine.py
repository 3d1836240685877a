"""Rank the backends for one request.

The rule for now: the configuration's order, over the backends that are alive, can do the
operation and serve the model. Admission takes the first of them that has room.
"""

from __future__ import annotations

from k9_broker.naming import queue_name
from k9_broker.requests import InferenceRequest
from k9_broker.snapshot import BackendView, Snapshot
from k9_broker.strategy.decision import Candidate, Decision, Removal

CHOSEN_FIRST = "order:first"
CHOSEN_NEXT = "order:next"
NO_WORKER = "no-worker"
NOT_SERVED = "model-not-served"
NOT_CAPABLE = "operation-not-supported"


def why_not(request: InferenceRequest, backend: BackendView) -> str | None:
    """The reason `backend` may not take `request`, or `None` when it may."""
    if request.model not in backend.models:
        return NOT_SERVED
    if request.operation not in backend.operations:
        return NOT_CAPABLE
    if not backend.workers:
        return NO_WORKER
    return None


def rank(request: InferenceRequest, snapshot: Snapshot) -> Decision:
    """Every backend of the snapshot ends up in the decision once: as a candidate or as a removal."""
    candidates: list[Candidate] = []
    removals: list[Removal] = []
    for backend in snapshot.backends:
        if reason := why_not(request, backend):
            removals.append(Removal(backend.name, reason))
            continue
        candidates.append(
            Candidate(
                backend=backend.name,
                kind=backend.kind,
                queue=queue_name(backend.kind, backend.name, request.priority),
                max_waiting=backend.max_waiting[request.priority],
                reason=CHOSEN_NEXT if candidates else CHOSEN_FIRST,
            )
        )
    return Decision(tuple(candidates), tuple(removals))
