"""Steps of a job's walk, for tests that are about something else."""

from __future__ import annotations

from typing import Any

from k9_broker.adapters.moving import Mover
from k9_broker.adapters.redis_fleet import RedisFleet
from k9_broker.adapters.redis_ledger import RedisLedger
from k9_broker.backends import Announcement
from k9_broker.health import CircuitState, InstanceHealth
from k9_broker.jobs import Claim, Job, new_job_id
from k9_broker.naming import queue_name
from k9_broker.requests import InferenceRequest, Kind, Operation, Priority
from k9_broker.results import Outcome, Result
from k9_broker.saturation import Gauge
from k9_broker.snapshot import Snapshot
from k9_broker.strategy.decision import Candidate, Decision, Removal


def chat(**body: object) -> InferenceRequest:
    messages = [{"role": "user", "content": "hello"}]
    return InferenceRequest(Operation.CHAT, "m", {"model": "m", "messages": messages, **body})


def candidate(
    backend: str = "a", kind: Kind = Kind.LOCAL, *, mark: int = 100, model: str = "m", **more: Any
) -> Candidate:
    """A place for an interactive job; `more` are fields of `Candidate`."""
    queue = queue_name(kind, backend, Priority.INTERACTIVE)
    fields = {"queue": queue, "max_waiting": mark, "reason": f"task-type:{kind}", "model": model, **more}
    return Candidate(backend, kind, **fields)


def decided(*candidates: Candidate, **more: Any) -> Decision:
    """The decision for these candidates; `more` are fields of `Decision`."""
    return Decision(candidates, **{"removals": (Removal("elsewhere", "model-not-served"),), **more})


def announced(name: str, state: CircuitState = CircuitState.CLOSED, **changes: object) -> Announcement:
    """What the one worker of a local backend says whose one instance is in this state."""
    return Announcement(
        node=f"k9-{name}@here", backend=name, kind=Kind.LOCAL, dialect="fake", models=("m", "other"),
        operations=tuple(Operation), slots=2, max_waiting=50, max_waiting_batch=50,
        instances=(InstanceHealth(name=name, state=state, reason="backend_unreachable"),),
    ).model_copy(update=changes)  # fmt: skip


async def sweep(mover: Mover, fleet: RedisFleet) -> dict[str, int]:
    """One look of the mover at the fleet as it is now."""
    return await mover.sweep(await fleet.snapshot(fresh=True))


async def admit(ledger: RedisLedger, request: InferenceRequest | None = None, backend: str = "a") -> Job:
    return await ledger.admit(new_job_id(), request or chat(), decided(candidate(backend), removals=()))


async def claim(ledger: RedisLedger, job: Job, kind: Kind = Kind.LOCAL) -> Claim:
    claimed = await ledger.claim(job.id, job.generation, "w", kind)
    assert claimed is not None
    return claimed


async def succeed(ledger: RedisLedger, claimed: Claim) -> None:
    assert await ledger.finish(claimed, Outcome.succeeded(Result("m")), 0)


def gauges(
    snapshot: Snapshot, decision: Decision, priority: Priority = Priority.INTERACTIVE
) -> dict[str, Gauge]:
    """The queue of each candidate, if one tenant has all the jobs in it."""
    views = {view.name: view for view in snapshot.backends}
    return {one.queue: views[one.backend].gauge(priority) for one in decision.candidates}
