"""Waiting for a job: wake-ups may be lost, and so may the job; nobody waits for ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from k9_broker.adapters import keys, redis_wake
from k9_broker.adapters.connect import Commands, connect
from k9_broker.adapters.redis_ledger import RedisLedger
from k9_broker.adapters.redis_wake import RedisRelayReader
from k9_broker.errors import JobNotFound
from stand import RedisProcess
from walks import admit, claim, succeed


@pytest.fixture
async def reader(commands: Commands, clean_redis: RedisProcess) -> AsyncIterator[RedisRelayReader]:
    reader = RedisRelayReader(connect(clean_redis.url, retries=0, connections=2), commands)
    reader.start()
    yield reader
    await reader.close()


async def test_whoever_waits_for_a_job_that_redis_forgot_hears_so(
    ledger: RedisLedger, reader: RedisRelayReader, clean_redis: RedisProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_wake, "LOOK_ANYWAY", 0.1)
    job = await admit(ledger)
    clean_redis.client.delete(keys.job(job.id))
    async with asyncio.timeout(5), reader.follow(job.id) as follower:
        with pytest.raises(JobNotFound):
            await follower.ended()


async def test_an_end_that_fell_into_a_cut_is_seen_as_soon_as_the_subscription_is_back(
    ledger: RedisLedger, reader: RedisRelayReader, clean_redis: RedisProcess
) -> None:
    claimed = await claim(ledger, await admit(ledger))  # admitted for nobody: no wake-up will come
    async with asyncio.timeout(5), reader.follow(claimed.job.id) as follower:
        waiting = asyncio.create_task(follower.ended())
        await succeed(ledger, claimed)
        await asyncio.sleep(0)
        while not clean_redis.client.execute_command("CLIENT", "KILL", "TYPE", "pubsub"):
            await asyncio.sleep(0.01)
        await waiting


async def test_events_asked_for_after_the_last_one_end_with_the_job(
    ledger: RedisLedger, reader: RedisRelayReader
) -> None:
    job = await admit(ledger)
    await reader.attend(job.id)
    async with asyncio.timeout(5), reader.follow(job.id) as follower:
        later = asyncio.create_task(anext(follower.events("9999999999999-0"), None))
        await succeed(ledger, await claim(ledger, job))
        assert await later is None
