"""What jobs hold of a queue is settled with their tenants: once, where they ran, with nothing left over."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from k9_broker.adapters import keys
from k9_broker.adapters.connect import Commands
from k9_broker.adapters.redis_ledger import RedisLedger
from k9_broker.jobs import Claim, Job, new_job_id
from stand import RedisProcess
from walks import candidate, chat, claim, decided, succeed

QUEUE = "k9.local.a.interactive"


async def admit(
    ledger: RedisLedger, tenant: str, *, busy: float = 1.0, mark: int = 1000, count: int = 1, **decision: Any
) -> list[Job]:
    place, request = candidate("a", mark=mark, seconds=busy), replace(chat(), tenant=tenant)
    return [
        await ledger.admit(new_job_id(), request, decided(place, removals=(), **decision))
        for _ in range(count)
    ]


async def take(ledger: RedisLedger, redis: RedisProcess) -> Claim:
    """What a worker does: the next message, and the claim it is good for."""
    message = redis.client.rpop(QUEUE)
    return await claim(ledger, await ledger.get(json.loads(message or b"{}")["headers"]["id"]))


async def order(ledger: RedisLedger, redis: RedisProcess, count: int) -> list[str]:
    """The tenants of the next jobs."""
    return [(await take(ledger, redis)).job.tenant for _ in range(count)]


async def test_what_took_longer_is_made_up_for_once(ledger: RedisLedger, clean_redis: RedisProcess) -> None:
    """While it ran, the queue's time went on by what others held: that much its tenant has paid already."""
    await admit(ledger, "slow", busy=1.0)
    slow = await take(ledger, clean_redis)
    await admit(ledger, "other", busy=1.0, count=100)
    await order(ledger, clean_redis, 60)
    clean_redis.client.hincrbyfloat(keys.job(slow.job.id), "started_at", -60.0)
    await succeed(ledger, slow)
    await admit(ledger, "slow", busy=1.0)
    assert "slow" in await order(ledger, clean_redis, 3)


async def test_a_job_that_moves_while_it_runs_is_charged_where_it_runs(
    ledger: RedisLedger, clean_redis: RedisProcess
) -> None:
    """It brings its tenant no credit at the queue it comes to, which it had not been charged there."""
    (job,) = await admit(ledger, "mover", busy=10.0)
    claimed = await take(ledger, clean_redis)
    turns = keys.turns("k9.local.b.interactive")
    places = [candidate("b", seconds=10.0)]
    assert await ledger.reroute(claimed.job, places, leaves="x", calls=1, token=claimed.token) == "b"
    assert float(clean_redis.client.hget(turns, "of mover") or 0) == pytest.approx(10e6)
    moved = await claim(ledger, await ledger.get(job.id))
    clean_redis.client.hincrbyfloat(keys.job(job.id), "started_at", -4.0)
    await succeed(ledger, moved)
    assert float(clean_redis.client.hget(turns, "of mover") or 0) == pytest.approx(4e6, rel=0.05)
    left = clean_redis.client.hget(keys.turns(QUEUE), "of mover")
    assert float(left or 0) < 1e6  # there it held a slot for a moment only


async def test_nobody_is_charged_for_longer_than_until_the_deadline(
    ledger: RedisLedger, clean_redis: RedisProcess
) -> None:
    """However many tokens a request allows; else its tenant would be put off for what it can never use."""
    request = replace(chat(), tenant="greedy", deadline=20.0)
    await ledger.admit(new_job_id(), request, decided(candidate("a", seconds=1e9), removals=()))
    assert float(clean_redis.client.hget(keys.turns(QUEUE), "of greedy") or 0) <= 20e6


async def test_jobs_whose_records_are_gone_take_no_share(
    ledger: RedisLedger, commands: Commands, clean_redis: RedisProcess
) -> None:
    """Else a tenant would have less room from then on, for ever."""
    jobs = await admit(ledger, "one", mark=8, shared=True, count=6)
    clean_redis.client.delete(QUEUE, *(keys.job(job.id) for job in jobs))
    queues = [keys.leases("a"), QUEUE, keys.waiting(QUEUE), "none", "none too"]
    await commands.script("overdue", queues, [200])
    assert not clean_redis.client.exists(keys.waiting(QUEUE), keys.queued(QUEUE, "one"))
    await admit(ledger, "one", mark=8, shared=True, count=6)
