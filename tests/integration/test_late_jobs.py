"""Jobs that wait too long where they are go elsewhere: those it helps, once, and under the same promises."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from k9_broker.adapters import keys
from k9_broker.adapters.connect import Commands
from k9_broker.adapters.moving_late import LateMover
from k9_broker.adapters.redis_fleet import RedisFleet
from k9_broker.adapters.redis_ledger import RedisLedger
from k9_broker.jobs import Job, new_job_id
from k9_broker.lateness import LATE
from k9_broker.naming import queue_name
from k9_broker.requests import Kind, Priority, Privacy
from stand import RedisProcess
from walks import announced, candidate, chat, claim, decided

SLOW = {"slots": 1, "service_seconds": 4.0, "overflow_wait": 10.0}
FAST = {"kind": Kind.CLOUD, "slots": 8, "service_seconds": 1.0}


@pytest.fixture
async def two(fleet: RedisFleet) -> RedisFleet:
    await fleet.announce(announced("a", **SLOW))
    await fleet.announce(announced("b", **FAST))
    return fleet


@pytest.fixture
def late(commands: Commands, ledger: RedisLedger) -> LateMover:
    return LateMover(commands, ledger)


async def sweep(late: LateMover, fleet: RedisFleet) -> int:
    return await late.sweep(await fleet.snapshot(fresh=True), time.monotonic() + 2)


async def admit(ledger: RedisLedger, *, cost: int = 5, batch: bool = False, **decision: Any) -> Job:
    """It goes to `a` as if that had been quick when it came."""
    priority = Priority.BATCH if batch else Priority.INTERACTIVE
    request = replace(chat(), priority=priority, deadline=decision.pop("deadline", None))
    places = [
        candidate(name, kind, queue=queue_name(kind, name, priority), cost=cost * number)
        for number, (name, kind) in enumerate((("a", Kind.LOCAL), ("b", Kind.CLOUD)))
    ]
    return await ledger.admit(new_job_id(), request, decided(*places, removals=(), **decision))


async def wheres(ledger: RedisLedger, jobs: list[Job]) -> str:
    return "".join([(await ledger.get(job.id)).backend for job in jobs])


async def test_those_behind_the_mark_move_and_the_others_stay(
    ledger: RedisLedger, two: RedisFleet, late: LateMover, clean_redis: RedisProcess
) -> None:
    running = await admit(ledger)
    await claim(ledger, running)
    jobs = [await admit(ledger) for _ in range(8)]  # the last would wait for 32 seconds
    assert await sweep(late, two) == 4
    assert await wheres(ledger, jobs) == "aaaabbbb"
    moved = await ledger.get(jobs[-1].id)
    assert (moved.reason, moved.kind, moved.generation, moved.cost) == (LATE, Kind.CLOUD, 2, 5)
    assert f"a: {LATE}" in moved.skipped
    assert clean_redis.client.zcard(keys.waiting("k9.local.a.interactive")) == 4
    assert await ledger.claim(moved.id, 1, "w", Kind.LOCAL) is None  # its old message
    assert await ledger.claim(moved.id, 2, "w", Kind.CLOUD) is not None


async def test_one_that_moved_does_not_move_again(
    ledger: RedisLedger, two: RedisFleet, late: LateMover
) -> None:
    await claim(ledger, await admit(ledger))
    jobs = [await admit(ledger) for _ in range(8)]
    await sweep(late, two)
    await two.announce(announced("b", **{**FAST, "slots": 1, "service_seconds": 60.0}, overflow_wait=10.0))
    assert await sweep(late, two) == 0
    assert await wheres(ledger, jobs) == "aaaabbbb"


async def test_nobody_moves_to_where_it_takes_as_long(
    ledger: RedisLedger, two: RedisFleet, late: LateMover
) -> None:
    await two.announce(announced("b", **{**FAST, "slots": 1, "service_seconds": 30.0}))
    await claim(ledger, await admit(ledger))
    await claim(ledger, replace(await admit_to_b(ledger)), Kind.CLOUD)
    jobs = [await admit(ledger) for _ in range(6)]
    assert await sweep(late, two) == 0
    assert await wheres(ledger, jobs) == "aaaaaa"


async def admit_to_b(ledger: RedisLedger) -> Job:
    return await ledger.admit(new_job_id(), chat(), decided(candidate("b", Kind.CLOUD), removals=()))


@pytest.mark.parametrize("refused", [{"privacy": Privacy.LOCAL_ONLY}, {"budget": 4}])
async def test_what_must_stay_stays(
    ledger: RedisLedger, two: RedisFleet, late: LateMover, refused: dict[str, Any]
) -> None:
    await claim(ledger, await admit(ledger))
    jobs = [await admit(ledger, **refused) for _ in range(8)]
    assert await sweep(late, two) == 0
    assert await wheres(ledger, jobs) == "a" * 8


async def test_a_batch_moves_for_its_deadline_alone(
    ledger: RedisLedger, two: RedisFleet, late: LateMover
) -> None:
    await claim(ledger, await admit(ledger))
    patient = [await admit(ledger, batch=True) for _ in range(12)]
    assert await sweep(late, two) == 0
    pressed = [await admit(ledger, batch=True, deadline=30.0) for _ in range(2)]
    assert await sweep(late, two) == 2
    assert await wheres(ledger, [*patient, *pressed]) == "a" * 12 + "bb"


async def test_a_long_queue_is_looked_at_page_by_page(
    ledger: RedisLedger, two: RedisFleet, late: LateMover, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("k9_broker.adapters.moving_late._PAGE", 5)
    await claim(ledger, await admit(ledger))
    jobs = [await admit(ledger) for _ in range(12)]
    moved = [await sweep(late, two) for _ in range(4)]
    assert sum(moved) == 8
    assert max(moved) <= 5
    assert await wheres(ledger, jobs) == "aaaabbbbbbbb"


async def test_one_that_would_begin_in_time_and_end_too_late_moves(
    ledger: RedisLedger, two: RedisFleet, late: LateMover
) -> None:
    await claim(ledger, await admit(ledger))
    places = [candidate("a", seconds=20.0), candidate("b", Kind.CLOUD, seconds=5.0)]
    request = replace(chat(), deadline=30.0)
    jobs = [await ledger.admit(new_job_id(), request, decided(*places, removals=())) for _ in range(3)]
    assert await sweep(late, two) == 1  # the third begins after 12 seconds and needs 20
    assert await wheres(ledger, jobs) == "aab"


async def test_a_full_queue_here_keeps_no_batch_job_from_a_deadline_the_cloud_can_keep(
    ledger: RedisLedger, two: RedisFleet, late: LateMover
) -> None:
    await two.announce(announced("c", slots=8, max_waiting_batch=0))
    await claim(ledger, await admit(ledger))
    for _ in range(5):
        await admit(ledger, batch=True)
    request = replace(chat(), priority=Priority.BATCH, deadline=15.0)
    places = [
        candidate(name, kind, queue=queue_name(kind, name, Priority.BATCH))
        for name, kind in (("a", Kind.LOCAL), ("c", Kind.LOCAL), ("b", Kind.CLOUD))
    ]
    places[0] = places[0]._replace(slots=99)  # it looked quick when it came
    job = await ledger.admit(new_job_id(), request, decided(*places, removals=()))
    assert await wheres(ledger, [job]) == "a"
    assert await sweep(late, two) == 1
    assert await wheres(ledger, [job]) == "b"
