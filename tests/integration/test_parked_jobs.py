"""Jobs that their tenant's cap has parked hold nobody up: in no estimate, order or search do they count."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

from k9_broker.adapters import keys
from k9_broker.adapters.connect import Commands
from k9_broker.adapters.moving_late import LateMover
from k9_broker.adapters.reaper import Reaper
from k9_broker.adapters.redis_fleet import RedisFleet
from k9_broker.adapters.redis_ledger import RedisLedger
from k9_broker.jobs import Claim, Job, new_job_id
from k9_broker.naming import queue_name
from k9_broker.requests import Kind, Priority
from stand import JOBS, RedisProcess
from walks import announced, candidate, chat, decided, succeed

QUEUE = queue_name(Kind.LOCAL, "a", Priority.INTERACTIVE)
BATCH = queue_name(Kind.LOCAL, "a", Priority.BATCH)


async def admit(
    ledger: RedisLedger, tenant: str = "capped", most: int | None = 1, *, batch: bool = False, **place: Any
) -> Job:
    priority = Priority.BATCH if batch else Priority.INTERACTIVE
    request = replace(chat(), tenant=tenant, priority=priority)
    places = [
        candidate(name, kind, queue=queue_name(kind, name, priority), **place)
        for name, kind in (("a", Kind.LOCAL), ("b", Kind.CLOUD))
    ]
    return await ledger.admit(new_job_id(), request, decided(*places, removals=(), max_in_flight=most))


async def take_all(ledger: RedisLedger, redis: RedisProcess) -> list[Claim]:
    """What idle workers do: take every message there is, interactive ones first."""
    claims = []
    while message := redis.client.rpop(QUEUE) or redis.client.rpop(BATCH):
        job_id, generation = json.loads(message)["properties"]["delivery_tag"].split(":")[:2]
        if claimed := await ledger.claim(job_id, int(generation), "w", Kind.LOCAL):
            claims.append(claimed)
    return claims


async def others_went(ledger: RedisLedger, redis: RedisProcess, count: int) -> None:
    """Jobs of another tenant come, run and end, so that the queue's time passes the parked ones."""
    for _ in range(count):
        await admit(ledger, "other", None)
        for claimed in await take_all(ledger, redis):
            await succeed(ledger, claimed)


async def test_nobody_else_overflows_because_of_them(ledger: RedisLedger, clean_redis: RedisProcess) -> None:
    for _ in range(20):
        await admit(ledger)
    await take_all(ledger, clean_redis)
    await others_went(ledger, clean_redis, 30)
    job = await admit(ledger, "other", None, slots=4, overflow_wait=2.0, overflow_at=10)
    assert job.backend == "a", job.skipped
    (place,) = await ledger.ahead([job.id])
    assert place == ("a", 0)


async def test_they_still_fill_the_queue(ledger: RedisLedger, clean_redis: RedisProcess) -> None:
    for _ in range(5):
        await admit(ledger)
    await take_all(ledger, clean_redis)
    assert (await admit(ledger, "other", None, mark=4)).backend == "b"


async def test_routing_sees_them_in_the_depth_but_not_in_the_wait(
    ledger: RedisLedger, fleet: RedisFleet, clean_redis: RedisProcess
) -> None:
    await fleet.announce(announced("a", slots=2))
    for _ in range(20):
        await admit(ledger)
    await take_all(ledger, clean_redis)
    (view,) = (await fleet.snapshot(fresh=True)).backends
    assert view.waiting[Priority.INTERACTIVE] == 19
    assert view.estimated_wait(Priority.INTERACTIVE) == 0


async def test_late_or_not_they_do_not_move(
    ledger: RedisLedger, fleet: RedisFleet, commands: Commands, clean_redis: RedisProcess
) -> None:
    """They would be parked there too, and then be paid for."""
    await fleet.announce(announced("a", slots=1, service_seconds=4.0, overflow_wait=5.0))
    await fleet.announce(announced("b", kind=Kind.CLOUD, slots=8))
    jobs = [await admit(ledger) for _ in range(9)]
    await take_all(ledger, clean_redis)
    snapshot = await fleet.snapshot(fresh=True)
    assert await LateMover(commands, ledger).sweep(snapshot, time.monotonic() + 2) == 0
    assert {(await ledger.get(job.id)).backend for job in jobs} == {"a"}


async def test_interactive_ones_go_before_batch_ones(ledger: RedisLedger, clean_redis: RedisProcess) -> None:
    await admit(ledger)
    (first,) = await take_all(ledger, clean_redis)
    await admit(ledger, batch=True)
    await take_all(ledger, clean_redis)
    await admit(ledger)
    await take_all(ledger, clean_redis)
    await succeed(ledger, first)
    (second,) = await take_all(ledger, clean_redis)
    assert second.job.priority is Priority.INTERACTIVE


async def test_many_of_them_do_not_hide_a_lost_message(
    ledger: RedisLedger, commands: Commands, clean_redis: RedisProcess
) -> None:
    for _ in range(16):
        await admit(ledger)
    await take_all(ledger, clean_redis)
    await others_went(ledger, clean_redis, 20)
    lost = await admit(ledger, "other", None)
    assert clean_redis.client.rpop(QUEUE)
    queues = [name for queue in (QUEUE, BATCH) for name in (queue, keys.waiting(queue))]
    _, _, found = await commands.script("overdue", [keys.leases("a"), *queues], [1])
    assert found == [lost.id.encode(), b"1"]


async def test_when_a_running_one_is_cancelled_the_next_goes_at_once(
    ledger: RedisLedger, clean_redis: RedisProcess
) -> None:
    jobs = [await admit(ledger) for _ in range(2)]
    await take_all(ledger, clean_redis)
    await ledger.cancel(jobs[0].id)
    assert [one.job.id for one in await take_all(ledger, clean_redis)] == [jobs[1].id]


async def test_a_forgotten_one_is_let_go_by_the_reaper(
    ledger: RedisLedger, commands: Commands, fleet: RedisFleet, clean_redis: RedisProcess
) -> None:
    await fleet.announce(announced("a"))
    jobs = [await admit(ledger) for _ in range(2)]
    await take_all(ledger, clean_redis)
    clean_redis.client.delete(keys.running("capped"), keys.parked("capped"))
    reaper = Reaper(commands, ledger, fleet, lease_seconds=JOBS.lease_seconds)
    reaper._missing = {(jobs[1].id, 1): float("-inf")}
    assert (await reaper.sweep())["requeued"] == 1
    assert [one.job.id for one in await take_all(ledger, clean_redis)] == [jobs[1].id]
