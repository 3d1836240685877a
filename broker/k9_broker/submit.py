"""The walk of one request, up to its place in a queue.

snapshot → decide → admit. What follows happens in a worker: claim → call → relay → finish.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from k9_broker.jobs import Job
from k9_broker.ports import Fleet, Ledger
from k9_broker.requests import InferenceRequest
from k9_broker.snapshot import Snapshot
from k9_broker.strategy.decision import Decision
from k9_broker.strategy.refusal import refusal

Decide = Callable[[InferenceRequest, Snapshot], Awaitable[Decision]]
"""`Router.decide`, in whichever thread."""


async def submit(
    request: InferenceRequest,
    *,
    ledger: Ledger,
    fleet: Fleet,
    decide: Decide,
    job_id: str,
    waiter: str | None = None,
) -> Job:
    """Decide where the request may go and queue it there, atomically.

    `waiter` is the relay reader to wake. Raises what `refusal` says when nobody may take it,
    `BudgetExhausted`, `QueueFull` (with the shortest estimated wait), `IdempotencyConflict` or
    `LedgerUnavailable`; then nothing was accepted.
    """
    snapshot = await fleet.snapshot()
    decision = await decide(request, snapshot)
    if not decision.candidates:
        raise refusal(request, decision)
    job = await ledger.admit(job_id, request, decision, waiter=waiter)
    fleet.admitted(job.backend, job.priority)
    return job
