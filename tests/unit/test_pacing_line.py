"""The line before a rate limit: a batch never makes it longer than an interactive caller would wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from k9_broker.adapters.connect import Commands, connect
from k9_broker.adapters.redis_pacer import RedisPacer
from k9_broker.errors import BackendRateLimited
from k9_workers.pacing import Pacing
from paced import backend
from stand import RedisProcess

AHEAD = 1.0


@pytest.fixture
async def commands(clean_redis: RedisProcess) -> AsyncIterator[Commands]:
    commands = Commands(connect(clean_redis.url, retries=0))
    yield commands
    await commands.close()


async def test_an_interactive_call_does_not_wait_behind_a_whole_batch(commands: Commands) -> None:
    limited = backend(requests=1200)  # about 19 a second
    workers = [Pacing(RedisPacer(commands, limited), limited) for _ in range(2)]
    granted: list[float] = []

    async def line(number: int) -> None:
        await workers[number % 2].turn(1, 60.0, ahead=AHEAD)
        granted.append(time.monotonic())

    began = time.monotonic()
    batch = [asyncio.create_task(line(number)) for number in range(200)]  # ten seconds of it
    while len(granted) < 10:
        await asyncio.sleep(0.01)
    assert max(worker.paced_seconds for worker in workers) < AHEAD + 1
    asked = time.monotonic()
    await workers[0].turn(1, 5.0)
    assert time.monotonic() - asked < AHEAD + 1
    while len(granted) < 60:  # and the batch has the whole limit all the while
        await asyncio.sleep(0.01)
    assert time.monotonic() - began < 1.6 * 60 / 19.4
    for task in batch:
        task.cancel()
    await asyncio.wait(batch)


async def test_a_batch_too_hears_when_its_turn_cannot_come_in_time(commands: Commands) -> None:
    limited = backend(requests=6)
    pacing = Pacing(RedisPacer(commands, limited), limited)
    await pacing.turn(1, 1.0, ahead=AHEAD)
    began = time.monotonic()
    with pytest.raises(BackendRateLimited) as caught:
        await pacing.turn(1, 5.0, ahead=AHEAD)
    assert (caught.value.retry_after or 0) > 5
    assert time.monotonic() - began < 1
