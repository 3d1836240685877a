"""A lost reply makes redis-py send a command again: every step of the ledger, done twice, is done once."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from k9_broker.adapters import keys
from k9_broker.adapters.connect import Commands, connect
from k9_broker.adapters.redis_ledger import RedisLedger
from k9_broker.adapters.redis_relay import RedisRelayWriter
from k9_broker.jobs import Job, JobState
from stand import JOBS, RedisProcess
from walks import admit, claim, succeed

QUEUE = "k9.local.a.interactive"


class Stammering(Commands):
    """Every script runs twice; only the second reply arrives."""

    async def script(self, name: str, keys: list[str], args: list[Any]) -> Any:
        await super().script(name, keys, args)
        return await super().script(name, keys, args)


@pytest.fixture
async def stammering(clean_redis: RedisProcess) -> AsyncIterator[Commands]:
    commands = Stammering(connect(clean_redis.url, retries=0))
    yield commands
    await commands.close()


@pytest.fixture
def ledger(stammering: Commands) -> RedisLedger:
    return RedisLedger(stammering, JOBS)


def events(redis: RedisProcess, job: Job) -> Counter[str]:
    return Counter(fields[b"kind"].decode() for _, fields in redis.client.xrange(keys.relay(job.id)))


async def test_a_whole_walk(ledger: RedisLedger, stammering: Commands, clean_redis: RedisProcess) -> None:
    job = await admit(ledger)
    assert clean_redis.client.llen(QUEUE) == 1
    claimed = await claim(ledger, job)
    assert await ledger.renew([claimed]) == []
    relay = RedisRelayWriter(stammering, lambda _: pytest.fail("the claim still holds"))
    for number in range(3):
        relay.send(claimed, {"choices": [number]})
    await relay.drain(claimed)
    await relay.close()
    await succeed(ledger, claimed)
    assert (await ledger.get(job.id)).attempts == 1
    assert events(clean_redis, job) == {"running": 1, "chunk": 3, "end": 1}
    assert clean_redis.client.hgetall(keys.ENDED) == {b"a chat succeeded": b"1"}


async def test_handing_back(ledger: RedisLedger, clean_redis: RedisProcess) -> None:
    claimed = await claim(ledger, await admit(ledger))
    clean_redis.client.delete(QUEUE)  # its message was taken
    await ledger.hand_back(claimed)
    job = await ledger.get(claimed.job.id)
    assert (job.state, job.generation, job.attempts) == (JobState.QUEUED, 2, 0)
    assert clean_redis.client.llen(QUEUE) == 1


async def test_bringing_back_an_orphan(ledger: RedisLedger, clean_redis: RedisProcess) -> None:
    claimed = await claim(ledger, await admit(ledger))
    clean_redis.client.delete(QUEUE)
    clean_redis.client.zadd(keys.leases("a"), {claimed.job.id: 0})
    await ledger.requeue_orphan(claimed.job)
    job = await ledger.get(claimed.job.id)
    assert (job.state, job.generation, job.attempts) == (JobState.QUEUED, 2, 1)
    assert clean_redis.client.llen(QUEUE) == 1


async def test_cancelling(ledger: RedisLedger, clean_redis: RedisProcess) -> None:
    job = await admit(ledger)
    assert (await ledger.cancel(job.id)).state is JobState.CANCELLED
    assert events(clean_redis, job) == {"end": 1}
    assert clean_redis.client.hgetall(keys.ENDED) == {b"a chat cancelled": b"1"}
