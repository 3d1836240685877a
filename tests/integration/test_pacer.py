"""The pace towards a backend, on a real Redis: several pacers, one key, real time."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from subprocess import PIPE, Popen

import pytest

from k9_broker.adapters import keys
from k9_broker.adapters.connect import Commands, connect
from k9_broker.adapters.redis_pacer import RedisPacer
from k9_broker.limits import Limit, RateLimits
from paced import backend, most_in_window
from stand import RedisProcess

PROCESS = """
import asyncio, sys, time
from k9_broker.adapters.connect import Commands, connect
from k9_broker.adapters.redis_pacer import RedisPacer
from paced import backend

async def caller(pacer, until, granted):
    while time.time() < until:
        turn = await pacer.take(1)
        while turn.wait > 0:
            await asyncio.sleep(turn.wait)
            turn = await pacer.take(1, turn=turn)
        granted.append(time.time())

async def main(url, requests, seconds):
    print("ready", flush=True)
    sys.stdin.readline()
    commands = Commands(connect(url, retries=1))
    pacer, granted = RedisPacer(commands, backend(requests=requests)), []
    until = time.time() + seconds
    await asyncio.gather(*(caller(pacer, until, granted) for _ in range(16)))
    print(*granted)
    await commands.close()

asyncio.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
"""


@pytest.fixture
async def others(clean_redis: RedisProcess) -> AsyncIterator[Commands]:
    """Another worker's connection."""
    shared = Commands(connect(clean_redis.url, retries=1))
    yield shared
    await shared.close()


def test_two_processes_share_one_limit_and_use_it(clean_redis: RedisProcess) -> None:
    """Ends when both have run for three seconds at a limit of 200 a second."""
    words = [sys.executable, "-c", PROCESS, clean_redis.url, "12000", "3"]
    here = {"PYTHONPATH": str(Path(__file__).parents[1])}
    both = [Popen(words, stdin=PIPE, stdout=PIPE, env=here, text=True) for _ in range(2)]
    for process in both:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in both:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate(timeout=30)[0] for process in both]
    assert all(process.returncode == 0 for process in both)
    each = [[float(instant) for instant in text.split()] for text in said]
    granted = sorted(instant for instants in each for instant in instants)
    took = granted[-1] - granted[0]
    burst = 1 + 120
    assert len(granted) <= burst + 200 * (took + 1.0)
    assert most_in_window([(instant, 1) for instant in granted], 1.0) <= burst + 2 * 200
    overlap = min(max(one) for one in each) - max(min(one) for one in each)
    assert overlap > 1, "the processes did not run together"
    assert len(granted) >= 0.9 * 200 * took
    assert min(map(len, each)) > 0.2 * len(granted)


async def test_the_pace_has_a_life_time(commands: Commands, clean_redis: RedisProcess) -> None:
    pacer = RedisPacer(commands, backend(requests=1))
    for _ in range(20):
        turn = await pacer.take(1)
    assert turn.wait > 1000
    assert clean_redis.client.ttl(keys.pace("cloud")) > turn.wait + 500
    await pacer.learn(RateLimits(requests=Limit(5, 5, 0)))
    assert clean_redis.client.ttl(keys.pace("cloud")) > turn.wait + 500


async def test_a_hold_of_one_worker_holds_the_others(commands: Commands, others: Commands) -> None:
    here, there = RedisPacer(commands, backend()), RedisPacer(others, backend())
    assert (await there.take(1)).wait == 0.0
    await here.hold(20)
    assert 19 < (await there.take(1)).wait <= 20
    await there.hold(5)
    assert (await here.take(1)).wait > 19, "a shorter hold does not end a longer one"
    await here.hold(3600)
    assert (await here.take(1)).wait <= 60


async def test_what_one_worker_heard_paces_the_others(commands: Commands, others: Commands) -> None:
    here, there = RedisPacer(commands, backend()), RedisPacer(others, backend())
    assert (await there.take(10**6)).wait == 0.0
    await here.learn(RateLimits(tokens=Limit(per_minute=600, remaining=600, reset_seconds=0.0)))
    await there.take(600)
    assert (await there.take(1)).wait > 50


async def test_who_has_no_patience_takes_no_turn(commands: Commands) -> None:
    pacer = RedisPacer(commands, backend(requests=6))
    assert (await pacer.take(1)).wait == 0.0
    refused = [await pacer.take(1, patience=0.2) for _ in range(50)]
    assert not any(turn.taken for turn in refused)
    assert (await pacer.take(1, patience=20)).wait < 10


async def test_a_turn_of_a_line_that_was_forgotten_is_taken_anew(
    commands: Commands, clean_redis: RedisProcess
) -> None:
    pacer = RedisPacer(commands, backend(requests=60))
    for _ in range(100):
        turn = await pacer.take(1)
    clean_redis.client.flushall()
    assert (await pacer.take(1, turn=turn)).wait == 0.0


async def test_calls_at_one_moment_share_round_trips_and_stay_in_order(commands: Commands) -> None:
    """Of 110 callers 61 go at once; the last waits for half a second."""
    pacer = RedisPacer(commands, backend(requests=6000))
    began, order = time.monotonic(), []

    async def caller(number: int) -> None:
        turn = await pacer.take(1)
        while turn.wait > 0:
            await asyncio.sleep(turn.wait)
            turn = await pacer.take(1, turn=turn)
        order.append(number)

    await asyncio.gather(*(caller(number) for number in range(110)))
    assert time.monotonic() - began >= 48 / 97 - 0.01
    misplaced = sum(abs(number - at) > 5 for at, number in enumerate(order))
    assert misplaced < 20
