"""The walk of one request, up to its place in a queue.

snapshot → rank → admit. What follows happens in a worker: claim → call → relay → finish.
"""

from __future__ import annotations

from k9_broker.errors import BackendUnavailable, ModelNotFound, QueueFull
from k9_broker.jobs import Job
from k9_broker.ports import Fleet, Ledger
from k9_broker.requests import InferenceRequest
from k9_broker.snapshot import Snapshot, retry_after
from k9_broker.strategy.decision import Decision
from k9_broker.strategy.engine import NO_WORKER, NOT_CAPABLE, rank


async def submit(
    request: InferenceRequest, *, ledger: Ledger, fleet: Fleet, job_id: str, waiter: str | None = None
) -> Job:
    """Decide where the request may go and queue it there, atomically.

    `waiter` is the relay reader to wake. Raises `ModelNotFound`, `BackendUnavailable`, `QueueFull`
    (with the shortest estimated wait), `IdempotencyConflict` or `LedgerUnavailable`; then nothing
    was accepted.
    """
    snapshot = await fleet.snapshot()
    decision = rank(request, snapshot)
    if not decision.candidates:
        raise _nobody(request, decision)
    try:
        return await ledger.admit(job_id, request, decision, waiter=waiter)
    except QueueFull as full:
        raise QueueFull(retry_after=retry_after(_shortest_wait(request, decision, snapshot))) from full


def _nobody(request: InferenceRequest, decision: Decision) -> ModelNotFound | BackendUnavailable:
    reasons = {removal.reason for removal in decision.removals}
    if NO_WORKER in reasons:
        return BackendUnavailable(param="model", retry_after=5)
    if NOT_CAPABLE in reasons:
        return ModelNotFound(
            f"No backend offers {request.operation} with the model {request.model!r}. "
            "See /v1/queues for what each can do.",
            param="model",
        )
    if not decision.removals:
        return BackendUnavailable(
            "No backend has joined yet. Start a worker: `k9 worker --backend NAME`, or everything: `k9 up`.",
            param="model",
            retry_after=5,
        )
    return ModelNotFound(
        f"No backend serves the model {request.model!r}. See /v1/models for what is served.", param="model"
    )


def _shortest_wait(request: InferenceRequest, decision: Decision, snapshot: Snapshot) -> float:
    names = {candidate.backend for candidate in decision.candidates}
    return min(
        backend.estimated_wait(request.priority) for backend in snapshot.backends if backend.name in names
    )
