"""Redis restarts, is killed, and comes back with a second missing."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hazards.conftest import SLOTS
from hazards.counted import NONE, Tally
from stack import Stack, ask
from stand import RedisProcess, wait_until

BOTH = 2 * SLOTS
MISSES_IT = "consumer: Cannot connect to redis"
SOON = 6
"""Seconds: whoever waits looks when the subscription is back, not only at his next look after ten."""


@pytest.mark.parametrize("kill", [False, True], ids=["restart", "kill"])
def test_hazard_02_a_worker_outlives_redis_with_jobs_in_flight(pair: Stack, kill: bool) -> None:
    """With kombu's transport as it is: a message is acknowledged when taken, so that closing a channel
    finds none to restore. Nothing is called twice."""
    tally, workers = Tally(pair), [child.process for child in pair.workers.values()]
    pair.fake.behave(latency_ms=4000)
    jobs = [pair.submit(f"prompt {number}") for number in range(BOTH + 4)]
    pair.fake.wait(lambda seen: seen["active"] == BOTH)
    missed = {name: child.log.count(MISSES_IT) for name, child in pair.workers.items()}
    pair.redis.stop(kill)
    for name, child in pair.workers.items():  # what they do then is done without Redis
        wait_until(lambda n=name, c=child: c.log.count(MISSES_IT) > missed[n], f"{name} misses Redis")
    pair.fake.wait(lambda seen: seen["active"] == 0)  # their answers have come
    pair.redis.start()
    pair.fake.behave(latency_ms=100)
    assert tally.damage(jobs, 30) == NONE
    assert [worker.poll() for worker in workers if worker] == [None, None]
    assert pair.fake.stats()["inferences"] == len(jobs)


# -- 14: the log is cut back ------------------------------------------------------------------------


def log_of(redis: RedisProcess) -> Path:
    (path,) = (redis.folder / "appendonlydir").glob("*.incr.aof")
    return path


def rewound(redis: RedisProcess, size: int) -> None:
    """As after a power cut: Redis dies, and what it had not yet put on the disk is gone."""
    redis.stop(kill=True)
    os.truncate(log_of(redis), size)
    redis.start()


class Waiter(threading.Thread):
    """A caller who waits for an answer, and when it came."""

    def __init__(self, call: Callable[[], tuple[int, Any, Any]]) -> None:
        super().__init__(daemon=True)
        self._call = call
        self.answer: tuple[int, Any, Any] = (0, None, None)
        self.answered_at = 0.0
        self.start()

    def run(self) -> None:
        self.answer = self._call()
        self.answered_at = time.monotonic()


def test_hazard_14_jobs_of_a_lost_second_are_unknown_and_nobody_waits_for_them(pair: Stack) -> None:
    pair.fake.behave(latency_ms=4000)
    tally, kept = Tally(pair), [pair.submit(f"kept {number}") for number in range(BOTH - 2)]
    pair.fake.wait(lambda seen: seen["active"] == BOTH - 2)
    size = log_of(pair.redis).stat().st_size
    lost = [pair.submit(f"lost {number}") for number in range(6)]  # two begin, four wait
    pair.fake.wait(lambda seen: seen["active"] == BOTH)
    body = {"model": pair.model, "messages": [{"role": "user", "content": "hello"}]}
    chat = f"{pair.url}/v1/chat/completions"
    waiters = {
        "plain": Waiter(lambda: ask(chat, body)),
        "streamed": Waiter(lambda: ask(chat, {**body, "stream": True})),
        "job": Waiter(lambda: ask(f"{pair.url}/v1/jobs/{lost[-1]}", headers={"Prefer": "wait=50"})),
        "events": Waiter(lambda: ask(f"{pair.url}/v1/jobs/{lost[-1]}/events")),
    }
    began = time.monotonic()
    waiting = pair.redis.client.llen
    while waiting("k9.local.fake.interactive") < 4 + 2:
        assert time.monotonic() < began + 10
        time.sleep(0.01)
    began = time.monotonic()
    rewound(pair.redis, size)
    for waiter in waiters.values():
        waiter.join(began + SOON - time.monotonic())
    assert not [name for name, waiter in waiters.items() if waiter.is_alive()]
    for name, waiter in waiters.items():
        status, _, said = waiter.answer
        assert status >= 400 or b'"error"' in said, name
    for job in lost:
        status, _, said = ask(f"{pair.url}/v1/jobs/{job}")
        assert (status, said["error"]["code"]) == (404, "job_not_found")
        assert ask(f"{pair.url}/v1/jobs/{job}", method="DELETE")[0] == 404
    assert tally.damage(kept, 20) == NONE
    pair.fake.behave(latency_ms=0)
    assert tally.damage([*kept, *(pair.submit(f"new {n}") for n in range(2 * BOTH))], 20) == NONE
