"""Who serves what: seen by Redis' clock, and by many askers at once."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

import pytest

from k9_broker.adapters import keys, redis_fleet
from k9_broker.adapters.connect import Commands, connect
from k9_broker.adapters.redis_fleet import RedisFleet
from k9_broker.backends import Announcement
from k9_broker.errors import LedgerUnavailable
from k9_broker.models import Latency, ModelCard
from k9_broker.requests import Kind, Operation, Priority
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


async def test_jobs_of_ones_own_are_counted_until_the_next_look(
    fleet: RedisFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fleet.announce(SAID)
    monkeypatch.setattr(redis_fleet, "_FRESH", 3600)
    await fleet.snapshot()
    fleet.admitted("a", Priority.INTERACTIVE)
    fleet.admitted("a", Priority.INTERACTIVE)
    fleet.admitted("a", Priority.BATCH)
    fleet.admitted("unheard-of", Priority.BATCH)
    (view,) = (await fleet.snapshot()).backends
    assert view.waiting == {Priority.INTERACTIVE: 2, Priority.BATCH: 1}
    monkeypatch.setattr(redis_fleet, "_FRESH", -1)
    (view,) = (await fleet.snapshot()).backends
    assert view.waiting == {Priority.INTERACTIVE: 0, Priority.BATCH: 0}


async def test_what_a_backend_s_workers_say_is_put_together(fleet: RedisFleet) -> None:
    fast, slow = Latency(ttft=0.1, tpot=0.01), Latency(ttft=0.3, tpot=0.03)
    card = ModelCard(quality=0.5, tags=("small",))
    for node, changes in {
        "one": {"latencies": {"m": fast}, "cards": {"m": card}, "gpu_usd_per_hour": 4.0, "order": 3},
        "two": {"latencies": {"m": slow, "n": slow}, "models": ("m", "n"), "slots": 8, "max_waiting": 20},
    }.items():
        await fleet.announce(SAID.model_copy(update={"node": node, **changes}))
    (view,) = (await fleet.snapshot()).backends
    assert (view.workers, view.slots, view.models, view.order) == (2, 12, {"m", "n"}, 0)
    assert view.max_waiting == {Priority.INTERACTIVE: 20, Priority.BATCH: 10}
    assert view.cards == {"m": card}
    assert view.latencies["m"].seconds(100) == pytest.approx(2.2)
    assert view.latencies["n"] == slow
    assert view.slot_usd_per_hour == pytest.approx(0.5)  # one of them says a dollar a slot, the other none


async def test_a_backend_that_moved_to_the_cloud_shows_the_depth_of_its_present_queue(
    fleet: RedisFleet, clean_redis: RedisProcess
) -> None:
    await fleet.announce(SAID)
    await fleet.withdraw(SAID.node)
    await fleet.announce(SAID.model_copy(update={"node": "k9-a@away", "kind": Kind.CLOUD}))
    clean_redis.client.zadd(keys.waiting("k9.local.a.interactive"), {"job-1": 1})
    clean_redis.client.zadd(keys.waiting("k9.cloud.a.interactive"), {"job-2": 2, "job-3": 3})
    (view,) = (await fleet.snapshot()).backends
    assert (view.kind, view.waiting[Priority.INTERACTIVE]) == (Kind.CLOUD, 2)


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
