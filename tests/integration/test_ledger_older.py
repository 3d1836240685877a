"""Jobs that an older version queued, before there was money or privacy, are run by this one."""

from __future__ import annotations

from k9_broker.adapters import keys
from k9_broker.adapters.redis_ledger import RedisLedger
from k9_broker.jobs import Job, JobState, new_job_id
from k9_broker.requests import InferenceRequest, Kind
from k9_broker.results import Outcome, Result, Usage
from stand import RedisProcess
from walks import candidate, chat, claim, decided

NEWER = ("privacy", "cost", "account", "decision", "cloud_prices", "task_type", "strategy", "asked")
OLD_REQUEST = (
    b'{"operation":"chat","model":"m","body":{"model":"m","messages":[{"role":"user","content":"hi"}]},'
    b'"tenant":"default","priority":"interactive","deadline":null,"partial":false}'
)


async def admitted_before(ledger: RedisLedger, redis: RedisProcess) -> Job:
    job = await ledger.admit(new_job_id(), chat(), decided(candidate(kind=Kind.CLOUD)))
    redis.client.hdel(keys.job(job.id), *NEWER)
    redis.client.hset(keys.job(job.id), "request", OLD_REQUEST)
    return await ledger.get(job.id)


async def test_an_older_job_is_run_and_paid_for(ledger: RedisLedger, clean_redis: RedisProcess) -> None:
    job = await admitted_before(ledger, clean_redis)
    claimed = await claim(ledger, job, Kind.CLOUD)
    assert claimed.request == InferenceRequest.load(OLD_REQUEST)
    assert await ledger.finish(claimed, Outcome.succeeded(Result("m", Usage(3, 2))), 70)
    assert (await ledger.get(job.id)).cost == await ledger.spent("default") == 70
    (row,) = await ledger.usage("default", 1)
    assert (row.model, row.kind, row.jobs, row.cost) == ("m", Kind.CLOUD, 1, 70)


async def test_an_older_job_may_be_cancelled_handed_back_and_explained(
    ledger: RedisLedger, clean_redis: RedisProcess
) -> None:
    job = await admitted_before(ledger, clean_redis)
    assert await ledger.hand_back(await claim(ledger, job, Kind.CLOUD))
    assert (await ledger.cancel(job.id)).state is JobState.CANCELLED
    assert await ledger.spent("default") == 0
    assert (await ledger.explanation(job.id))[1] == {}
