"""The asyncio pool under a stock Celery app: slots, limits, revocation, failures, both kinds of task."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
import redis
from celery import Celery

from stand import RedisProcess, wait_until

APP = """
import asyncio, os, time
import redis.asyncio, redis as sync_redis
from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded
from celery.signals import task_postrun
from k9_workers.pool import AsyncTask

URL = os.environ["BROKER"]
app = Celery("pooled", broker=URL, backend=URL)
app.conf.update(
    worker_pool="k9_workers.pool:TaskPool", worker_prefetch_multiplier=1, worker_disable_prefetch=True
)
client = redis.asyncio.Redis.from_url(URL)

@app.task(base=AsyncTask, name="double")
async def double(n):
    await asyncio.sleep(0.01)
    return 2 * n

@app.task(name="plain")
def plain(n):
    return n + 1

@app.task(base=AsyncTask, name="broken")
async def broken():
    await asyncio.sleep(0)
    raise ValueError("as told")

@app.task(base=AsyncTask, name="nap", bind=True)
async def nap(self, seconds):
    await client.incr("napping")
    try:
        await asyncio.sleep(seconds)
        return "slept"
    except asyncio.CancelledError:
        await client.incr("cancelled")
        raise
    except SoftTimeLimitExceeded:
        await client.incr("warned")
        return "warned"
    finally:
        await client.decr("napping")

@app.task(base=AsyncTask, name="limited", soft_time_limit=0.3)
async def limited():
    await asyncio.sleep(60)

@app.task(base=AsyncTask, name="cut", time_limit=0.3)
async def cut():
    try:
        await asyncio.sleep(60)
    finally:
        await client.incr("was cut")

@task_postrun.connect
def count(**_):
    sync_redis.Redis.from_url(URL).incr("postrun")
"""
SLOTS = 8


@pytest.fixture(scope="module")
def pooled(
    redis_server: RedisProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Celery, redis.Redis]]:
    redis_server.client.flushall()
    folder = tmp_path_factory.mktemp("pool")
    (folder / "pooled.py").write_text(APP)
    worker = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "pooled", "worker", "-c", str(SLOTS), "-l", "WARNING"],
        cwd=folder,
        env={**os.environ, "BROKER": redis_server.url},
    )
    app = Celery("client", broker=redis_server.url, backend=redis_server.url, set_as_current=False)
    try:
        assert app.send_task("plain", (1,)).get(timeout=40) == 2
        yield app, redis_server.client
    finally:
        worker.terminate()
        assert worker.wait(20) == 0


Pooled = tuple[Celery, redis.Redis]


def count(client: redis.Redis, key: str) -> int:
    return int(client.get(key) or 0)


def test_async_and_plain_tasks_give_their_results(pooled: Pooled) -> None:
    app, client = pooled
    before = count(client, "postrun")
    results = [app.send_task("double", (n,)) for n in range(50)]
    assert [result.get(timeout=20) for result in results] == [2 * n for n in range(50)]
    wait_until(lambda: count(client, "postrun") == before + 50, "Celery's signals were sent")


def test_an_exception_is_the_tasks_failure(pooled: Pooled) -> None:
    app, _ = pooled
    with pytest.raises(ValueError, match="as told"):
        app.send_task("broken").get(timeout=20)


def test_no_more_tasks_run_than_there_are_slots(pooled: Pooled) -> None:
    app, client = pooled
    results = [app.send_task("nap", (0.4,)) for _ in range(3 * SLOTS)]
    seen: list[int] = []

    def done() -> bool:
        seen.append(count(client, "napping"))
        return all(result.ready() for result in results)

    wait_until(done, "all naps are over")
    assert max(seen) == SLOTS
    assert {result.get() for result in results} == {"slept"}


def test_a_running_task_is_revoked_at_once_and_its_neighbours_are_not(pooled: Pooled) -> None:
    app, client = pooled
    before = count(client, "cancelled")
    victim, neighbour = app.send_task("nap", (60,)), app.send_task("nap", (1.5,))
    wait_until(lambda: count(client, "napping") == 2, "both run")
    victim.revoke(terminate=True)
    wait_until(lambda: count(client, "cancelled") == before + 1, "it was cancelled", 5)
    assert neighbour.get(timeout=10) == "slept"


def test_time_limits_are_kept(pooled: Pooled) -> None:
    app, client = pooled
    with pytest.raises(Exception, match="SoftTimeLimitExceeded"):
        app.send_task("limited").get(timeout=10)
    with pytest.raises(Exception, match="TimeLimitExceeded"):
        app.send_task("cut").get(timeout=10)
    wait_until(lambda: count(client, "was cut") == 1, "its clean-up ran")


def test_nothing_is_left_behind(pooled: Pooled) -> None:
    app, client = pooled
    app.send_task("plain", (1,)).get(timeout=20)
    wait_until(lambda: count(client, "napping") == 0 and not client.hlen("unacked"), "all is quiet")
