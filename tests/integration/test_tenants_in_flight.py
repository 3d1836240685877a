"""A tenant has no more jobs in flight than it may, keeps nobody else waiting, and loses none."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from k9_broker.adapters import keys
from k9_broker.adapters.connect import Commands
from k9_broker.adapters.reaper import Reaper
from k9_broker.adapters.redis_fleet import RedisFleet
from k9_broker.adapters.redis_ledger import RedisLedger
from k9_broker.jobs import Claim, Job, JobState, new_job_id
from k9_broker.requests import Kind
from stand import JOBS, RedisProcess
from walks import announced, candidate, chat, decided, succeed

QUEUE = "k9.local.a.interactive"


async def admit(ledger: RedisLedger, tenant: str = "capped", most: int | None = 2) -> Job:
    request = replace(chat(), tenant=tenant)
    return await ledger.admit(new_job_id(), request, decided(candidate("a"), removals=(), max_in_flight=most))


async def take_all(ledger: RedisLedger, redis: RedisProcess) -> list[Claim]:
    """What idle workers do: take every message there is."""
    claims = []
    while message := redis.client.rpop(QUEUE):
        job_id, generation = json.loads(message)["properties"]["delivery_tag"].split(":")[:2]
        if claimed := await ledger.claim(job_id, int(generation), "w", Kind.LOCAL):
            claims.append(claimed)
    return claims


async def states(ledger: RedisLedger, jobs: list[Job]) -> list[str]:
    return [(await ledger.get(job.id)).state.value for job in jobs]


async def test_the_others_wait_without_a_message_until_one_has_ended(
    ledger: RedisLedger, clean_redis: RedisProcess
) -> None:
    jobs = [await admit(ledger) for _ in range(5)]
    first = await take_all(ledger, clean_redis)
    assert [one.job.id for one in first] == [job.id for job in jobs[:2]]
    assert await states(ledger, jobs) == ["running"] * 2 + ["queued"] * 3
    assert clean_redis.client.zcard(keys.parked_in(QUEUE)) == 3
    await succeed(ledger, first[0])
    second = await take_all(ledger, clean_redis)
    assert [one.job.id for one in second] == [jobs[2].id]
    for claimed in (*second, first[1]):
        await succeed(ledger, claimed)
    for claimed in await take_all(ledger, clean_redis):
        await succeed(ledger, claimed)
    assert await states(ledger, jobs) == ["succeeded"] * 5
    queues = keys.waiting(QUEUE), keys.parked_in(QUEUE)
    assert not clean_redis.client.exists(keys.parked("capped"), keys.running("capped"), *queues)


async def test_nobody_else_waits_for_it(ledger: RedisLedger, clean_redis: RedisProcess) -> None:
    for _ in range(6):
        await admit(ledger)
    await admit(ledger, "free", None)
    tenants = [one.job.tenant for one in await take_all(ledger, clean_redis)]
    assert sorted(tenants) == ["capped", "capped", "free"]


@pytest.mark.parametrize("how", ["hand back", "orphan", "reroute", "cancel"])
async def test_however_one_leaves_its_slot_the_next_may_run(
    ledger: RedisLedger, commands: Commands, fleet: RedisFleet, clean_redis: RedisProcess, how: str
) -> None:
    await fleet.announce(announced("a"))
    jobs = [await admit(ledger, most=1) for _ in range(2)]
    (claimed,) = await take_all(ledger, clean_redis)
    match how:
        case "hand back":
            await ledger.hand_back(claimed)
        case "orphan":
            clean_redis.client.zadd(keys.leases("a"), {claimed.job.id: 0})
            await ledger.requeue_orphan(claimed.job)
        case "reroute":
            await ledger.reroute(claimed.job, [candidate("b")], leaves="x", calls=1, token=claimed.token)
        case "cancel":
            await ledger.cancel(claimed.job.id)
    assert not clean_redis.client.zcard(keys.running("capped"))
    if how in ("hand back", "orphan"):  # it is the first again
        (again,) = await take_all(ledger, clean_redis)
        assert again.job.id == claimed.job.id
        await succeed(ledger, again)
    else:
        reaper = Reaper(commands, ledger, fleet, lease_seconds=JOBS.lease_seconds)
        reaper._missing = {(jobs[1].id, jobs[1].generation): float("-inf")}
        await reaper.sweep()
    (last,) = await take_all(ledger, clean_redis)
    assert last.job.id == jobs[1].id


async def test_a_parked_job_can_be_cancelled_and_moved(
    ledger: RedisLedger, clean_redis: RedisProcess
) -> None:
    jobs = [await admit(ledger, most=1) for _ in range(3)]
    (claimed,) = await take_all(ledger, clean_redis)
    await ledger.cancel(jobs[1].id)
    assert await ledger.reroute(await ledger.get(jobs[2].id), [candidate("b")], leaves="x", calls=0) == "b"
    assert not clean_redis.client.exists(keys.parked("capped"))
    await succeed(ledger, claimed)
    assert not await take_all(ledger, clean_redis)
    moved = await ledger.get(jobs[2].id)
    assert await ledger.claim(moved.id, moved.generation, "w", Kind.LOCAL) is not None


async def test_the_reaper_lets_no_parked_job_go_before_its_time(
    ledger: RedisLedger, commands: Commands, fleet: RedisFleet, clean_redis: RedisProcess
) -> None:
    await fleet.announce(announced("a"))
    job = [await admit(ledger, most=1) for _ in range(2)][1]
    await take_all(ledger, clean_redis)
    reaper = Reaper(commands, ledger, fleet, lease_seconds=JOBS.lease_seconds)
    reaper._missing = {(job.id, job.generation): float("-inf")}
    assert (await reaper.sweep())["requeued"] == 0
    assert (await ledger.get(job.id)).state is JobState.QUEUED
    assert not clean_redis.client.llen(QUEUE)
