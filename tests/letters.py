"""Dead letters, and steps of their way, for the tests that are about them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from k9_broker.adapters import keys
from k9_broker.adapters.redis_dead import RedisDeadLetters
from k9_broker.adapters.redis_ledger import RedisLedger
from k9_broker.errors import BackendUnreachable, K9Error
from k9_broker.jobs import Job, new_job_id
from k9_broker.requests import InferenceRequest, Kind
from k9_broker.results import Outcome, Result, Usage
from k9_broker.strategy.decision import Candidate
from stand import JOBS, RedisProcess
from walks import candidate, chat, claim, decided

HERE = candidate("a")
CLOUD = candidate("away", Kind.CLOUD, cost=100)


async def dies(
    ledger: RedisLedger,
    *,
    error: K9Error | None = None,
    place: Candidate = HERE,
    request: InferenceRequest | None = None,
    cost: int | None = 0,
    **decision: Any,
) -> Job:
    """A job that was claimed and has failed with the error."""
    admitted = await ledger.admit(new_job_id(), request or chat(), decided(place, **decision))
    claimed = await claim(ledger, admitted, place.kind)
    outcome = Outcome.failed(error or BackendUnreachable(), Usage(7, 0))
    assert await ledger.finish(claimed, outcome, cost)
    return await ledger.get(admitted.id)


async def loses_its_workers(ledger: RedisLedger, redis: RedisProcess) -> Job:
    """A job whose worker died as often as is allowed."""
    job = await ledger.admit(new_job_id(), chat(), decided(HERE))
    for _ in range(JOBS.max_attempts):
        job = (await claim(ledger, await ledger.get(job.id))).job
        redis.client.zadd(keys.leases("a"), {job.id: 0})
        await ledger.requeue_orphan(job)
    return await ledger.get(job.id)


def same(job: Job) -> tuple[Job, str]:
    """The job as it can be compared: two errors never are the same."""
    return replace(job, error=None), job.error.code if job.error else ""


async def listed(letters: RedisDeadLetters) -> int:
    return len((await letters.page()).letters)


async def replayed(letters: RedisDeadLetters, job: Job, *places: Candidate, **decision: Any) -> Job:
    return await letters.replay(job, await letters.request(job.id), decided(*places or (HERE,), **decision))


def done() -> Outcome:
    return Outcome.succeeded(Result("m", Usage(30, 10)))
