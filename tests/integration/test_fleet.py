"""Who serves what: seen by Redis' clock, and by many askers at once."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

import pytest

from k9_broker.adapters import keys
from k9_broker.adapters.connect import Commands, connect
from k9_broker.adapters.redis_fleet import RedisFleet
from k9_broker.backends import Announcement, Kind
from k9_broker.errors import LedgerUnavailable
from k9_broker.requests import Operation
from stand import RedisProcess, free_port

SAID = Announcement(
    node="k9-a@here", backend="a", kind=Kind.LOCAL, dialect="fake", models=("m",),
    operations=tuple(Operation), slots=4, max_waiting=10, max_waiting_batch=10,
)  # fmt: skip


async def test_a_worker_whose_clock_is_wrong_is_alive_all_the_same(
    fleet: RedisFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_000_000.0)
    await fleet.announce(SAID)
    (view,) = (await fleet.snapshot()).backends
    assert view.workers == 1


async def test_a_worker_that_left_is_gone_and_its_backend_is_remembered(commands: Commands) -> None:
    await RedisFleet(commands).announce(SAID)
    await RedisFleet(commands).withdraw(SAID.node)
    (view,) = (await RedisFleet(commands).snapshot()).backends
    assert (view.workers, view.name, view.models) == (0, "a", frozenset({"m"}))
    assert await RedisFleet(commands).last_models(SAID.node) == ("m",)


async def test_an_announcement_it_cannot_read_hides_nobody_else(
    fleet: RedisFleet, clean_redis: RedisProcess
) -> None:
    await fleet.announce(SAID)
    await fleet.announce(SAID.model_copy(update={"node": "k9-b@newer", "backend": "b"}))
    clean_redis.client.set(keys.worker("k9-b@newer"), '{"backend": "b", "kind": "local", "news": 1}')
    (view,) = (await fleet.snapshot()).backends
    assert view.name == "a"


async def test_all_who_ask_a_frozen_redis_hear_of_it_together(tmp_path: Path) -> None:
    """One after the other, the last of many would wait for minutes."""
    server = RedisProcess(tmp_path, free_port()).start()
    commands = Commands(connect(server.url, retries=0))
    fleet = RedisFleet(commands)
    await fleet.snapshot()
    assert server.process is not None
    server.process.send_signal(signal.SIGSTOP)
    try:
        await asyncio.sleep(0.1)  # the last snapshot is stale
        async with asyncio.timeout(9):
            heard = await asyncio.gather(*(fleet.snapshot() for _ in range(4)), return_exceptions=True)
        assert [type(one) for one in heard] == [LedgerUnavailable] * 4
    finally:
        server.process.send_signal(signal.SIGCONT)
        await commands.close()
        server.stop()
