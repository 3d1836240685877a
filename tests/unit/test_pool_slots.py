"""The pool's slots, without a worker around them: each is given back, whatever becomes of its task."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest
from celery import Celery
from celery.worker import state

from k9_workers import pool as pool_module
from k9_workers.pool import AsyncTask, TaskPool
from stand import wait_until


@pytest.fixture
def pool() -> Iterator[TaskPool]:
    pool = TaskPool(4)
    pool.on_start()
    yield pool
    if TaskPool.running is pool:
        TaskPool.running = None


def running(pool: TaskPool) -> int:
    return int(pool._get_info()["running"])


def test_a_task_that_is_ended_before_its_first_step_gives_its_slot_back(pool: TaskPool) -> None:
    pool.loop.call_soon_threadsafe(time.sleep, 0.2)  # so that the loop meets both at once
    pool.on_apply(lambda: None).terminate()
    wait_until(lambda: not running(pool), "the slot is free", 3)
    pool.on_stop()


def test_a_cold_shutdown_ends_even_when_a_task_does_not(
    pool: TaskPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stubborn() -> None:
        begun.set()
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                continue

    begun = threading.Event()
    task = Celery("t", set_as_current=False).task(stubborn, base=AsyncTask, name="stubborn")
    pool.on_apply(task)
    assert begun.wait(5)
    monkeypatch.setattr(state, "should_terminate", 1)
    monkeypatch.setattr(pool_module, "HAND_BACK_WITHIN", 0.2, raising=False)
    stopping = threading.Thread(target=pool.on_stop, daemon=True)
    stopping.start()
    stopping.join(8)
    assert not stopping.is_alive()
