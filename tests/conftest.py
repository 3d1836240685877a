"""Fixtures every suite shares."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from k9_broker.adapters.connect import Commands, connect
from k9_broker.adapters.redis_fleet import RedisFleet
from k9_broker.adapters.redis_ledger import RedisLedger
from k9_broker.testing import FakeServer
from stack import Stack
from stand import JOBS, RedisProcess, free_port


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    """One Redis for the tests that do not harm it."""
    server = RedisProcess(tmp_path_factory.mktemp("redis"), free_port()).start()
    yield server
    server.stop()


@pytest.fixture
def clean_redis(redis_server: RedisProcess) -> RedisProcess:
    """The shared Redis, emptied."""
    redis_server.client.flushall()
    return redis_server


@pytest.fixture
async def commands(clean_redis: RedisProcess) -> AsyncIterator[Commands]:
    shared = Commands(connect(clean_redis.url, retries=1))
    yield shared
    await shared.close()


@pytest.fixture
def ledger(commands: Commands) -> RedisLedger:
    return RedisLedger(commands, JOBS)


@pytest.fixture
def fleet(commands: Commands) -> RedisFleet:
    return RedisFleet(commands)


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One running K-9 for the tests that leave it as they found it."""
    yield from running_stack(tmp_path_factory.mktemp("stack"))


@pytest.fixture
def own_stack(tmp_path: Path) -> Iterator[Stack]:
    """A K-9 of the test's own, to be harmed."""
    yield from running_stack(tmp_path)


def running_stack(folder: Path) -> Iterator[Stack]:
    redis = RedisProcess(folder, free_port(), fsync="always").start()
    fake = FakeServer()
    stack = Stack(folder, redis, fake)
    stack.start_worker()
    stack.start_api()
    try:
        yield stack.wait_ready()
    finally:
        stack.stop()
