"""Tenants take turns at a queue: by what their jobs hold of it, by weight, and nobody is starved."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from k9_broker.adapters import keys
from k9_broker.adapters.connect import Commands, connect
from k9_broker.adapters.redis_ledger import RedisLedger
from k9_broker.errors import QueueFull
from k9_broker.jobs import Claim, Job, new_job_id
from k9_broker.requests import Kind
from stand import JOBS, RedisProcess
from walks import candidate, chat, decided, succeed

QUEUE = "k9.local.a.interactive"


async def admit(
    ledger: RedisLedger, tenant: str, *, busy: float = 1.0, mark: int = 1000, count: int = 1, **decision: Any
) -> list[Job]:
    place = candidate("a", mark=mark, seconds=busy)
    request = replace(chat(), tenant=tenant)
    return [
        await ledger.admit(new_job_id(), request, decided(place, removals=(), **decision))
        for _ in range(count)
    ]


def waiting(redis: RedisProcess) -> list[str]:
    """The ids of the jobs in the list, in the order in which workers take them."""
    messages = redis.client.lrange(QUEUE, 0, -1)
    return [json.loads(message)["headers"]["id"] for message in reversed(messages)]


async def take(ledger: RedisLedger, redis: RedisProcess) -> Claim | None:
    """What a worker does: the next message, and the claim it is good for."""
    message = redis.client.rpop(QUEUE)
    assert message is not None
    job_id = json.loads(message)["headers"]["id"]
    generation = (await ledger.get(job_id)).generation
    return await ledger.claim(job_id, generation, "w", Kind.LOCAL)


async def order(ledger: RedisLedger, redis: RedisProcess, count: int) -> list[str]:
    """The tenants of the next jobs, each of which ends at once but is taken to last as expected."""
    taken = []
    for _ in range(count):
        claimed = await take(ledger, redis)
        assert claimed is not None
        taken.append(claimed.job.tenant)
    return taken


def initials(tenants: Sequence[str]) -> str:
    return "".join(name[0] for name in tenants)


async def test_who_comes_late_does_not_stand_behind_all_that_another_has_queued(
    ledger: RedisLedger, clean_redis: RedisProcess
) -> None:
    await admit(ledger, "heavy", count=50)
    await order(ledger, clean_redis, 5)
    await admit(ledger, "light", count=3)
    assert initials(await order(ledger, clean_redis, 8)) == "lhlhlhhh"


async def test_one_tenant_alone_is_served_in_order(ledger: RedisLedger, clean_redis: RedisProcess) -> None:
    jobs = await admit(ledger, "one", count=30)
    assert waiting(clean_redis) == [job.id for job in jobs]


@pytest.mark.parametrize(("weight", "share"), [(1.0, 20), (3.0, 30), (0.25, 8)])
async def test_a_weight_is_a_share(
    ledger: RedisLedger, clean_redis: RedisProcess, weight: float, share: int
) -> None:
    for _ in range(40):
        await admit(ledger, "weighed", weight=weight)
        await admit(ledger, "other")
    counts = Counter(await order(ledger, clean_redis, 40))
    assert abs(counts["weighed"] - share) <= 1


async def test_long_jobs_count_for_what_they_hold(ledger: RedisLedger, clean_redis: RedisProcess) -> None:
    await admit(ledger, "long", busy=4.0, count=20)
    await admit(ledger, "short", busy=1.0, count=40)
    counts = Counter(await order(ledger, clean_redis, 25))
    assert abs(counts["long"] * 4 - counts["short"]) <= 4


async def test_what_took_longer_than_expected_is_made_up_for(
    ledger: RedisLedger, clean_redis: RedisProcess
) -> None:
    await admit(ledger, "slow", busy=0.01, count=1)
    await admit(ledger, "other", busy=0.01, count=30)
    claimed = await take(ledger, clean_redis)
    assert claimed is not None
    assert claimed.job.tenant == "slow"
    clean_redis.client.hincrbyfloat(keys.job(claimed.job.id), "started_at", -0.1)  # ten times as long
    await succeed(ledger, claimed)
    await admit(ledger, "slow", busy=0.01, count=1)
    assert initials(await order(ledger, clean_redis, 12)).index("s") in (9, 10, 11)


async def test_who_has_much_waiting_does_not_gain_by_wrong_expectations(
    ledger: RedisLedger, clean_redis: RedisProcess
) -> None:
    """All jobs take ten times as long as expected; one tenant always has seven times as many waiting."""
    await admit(ledger, "many", busy=0.01, count=14)
    await admit(ledger, "few", busy=0.01, count=2)
    counts: Counter[str] = Counter()
    for number in range(220):
        claimed = await take(ledger, clean_redis)
        assert claimed is not None
        clean_redis.client.hincrbyfloat(keys.job(claimed.job.id), "started_at", -0.1)
        await succeed(ledger, claimed)
        await admit(ledger, claimed.job.tenant, busy=0.01)
        counts[claimed.job.tenant] += number >= 100
    assert 0.8 < counts["many"] / counts["few"] < 1.25


async def test_who_cancels_has_the_turn_back(ledger: RedisLedger, clean_redis: RedisProcess) -> None:
    jobs = await admit(ledger, "fickle", count=20)
    await admit(ledger, "other", count=20)
    for job in jobs:
        await ledger.cancel(job.id)
    await admit(ledger, "fickle", count=1)
    open_ones = [(await ledger.get(job_id)).tenant for job_id in waiting(clean_redis) if job_id not in
                 {job.id for job in jobs}]  # fmt: skip
    assert initials(open_ones)[:2] in ("fo", "of")


async def test_turns_cannot_be_saved_up(ledger: RedisLedger, clean_redis: RedisProcess) -> None:
    await admit(ledger, "busy", count=60)
    await order(ledger, clean_redis, 40)  # while the other one is away
    await admit(ledger, "away", count=20)
    counts = Counter(await order(ledger, clean_redis, 20))
    assert abs(counts["away"] - counts["busy"]) <= 2


async def test_no_tenant_fills_a_queue_that_others_use(ledger: RedisLedger) -> None:
    """Three quarters for one alone; then still room for every other."""
    taken = {}
    for tenant in ("one", "two", "three"):
        count = 0
        try:
            while True:
                await admit(ledger, tenant, mark=40, shared=True)
                count += 1
        except QueueFull:
            taken[tenant] = count
    assert taken["one"] == 30
    assert taken["two"] == 8
    assert taken["three"] == 2
    with pytest.raises(QueueFull):
        await admit(ledger, "one", mark=40, shared=True)
    assert len(await admit(ledger, "alone", mark=41, shared=False)) == 1


async def test_what_has_left_takes_no_share(ledger: RedisLedger, clean_redis: RedisProcess) -> None:
    jobs = await admit(ledger, "one", mark=8, shared=True, count=6)
    with pytest.raises(QueueFull):
        await admit(ledger, "one", mark=8, shared=True)
    await ledger.cancel(jobs[5].id)
    await admit(ledger, "one", mark=8, shared=True)
    claimed = await take(ledger, clean_redis)
    assert claimed is not None
    await admit(ledger, "one", mark=8, shared=True)
    assert await ledger.hand_back(claimed)
    assert clean_redis.client.scard(keys.queued(QUEUE, "one")) == 7


STEP = st.tuples(
    st.sampled_from("abc"), st.floats(0.01, 20), st.sampled_from(["admit", "admit", "take", "cancel"])
)


@given(steps=st.lists(STEP, min_size=5, max_size=60))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_list_index_and_shares_agree_whatever_happens(
    clean_redis: RedisProcess, steps: list[tuple[str, float, str]]
) -> None:
    async def play() -> None:
        clean_redis.client.flushall()
        commands = Commands(connect(clean_redis.url, retries=0))
        ledger, jobs = RedisLedger(commands, JOBS), list[Job]()
        try:
            for tenant, busy, what in steps:
                if what == "admit" or not clean_redis.client.llen(QUEUE):
                    jobs += await admit(ledger, tenant, busy=busy)
                elif what == "take":
                    if claimed := await take(ledger, clean_redis):
                        await succeed(ledger, claimed)
                else:
                    await ledger.cancel(jobs[int(busy) % len(jobs)].id)
            index = [one.decode() for one in clean_redis.client.zrange(keys.waiting(QUEUE), 0, -1)]
            there = waiting(clean_redis)
            assert [job_id for job_id in there if job_id in set(index)] == by_turn(clean_redis, there, index)
            owned = {
                tenant: {one.decode() for one in clean_redis.client.smembers(keys.queued(QUEUE, tenant))}
                for tenant in "abc"
            }
            tenant_of = {job.id: job.tenant for job in jobs}
            assert owned == {name: {one for one in index if tenant_of[one] == name} for name in "abc"}
        finally:
            await commands.close()

    asyncio.run(play())


def by_turn(redis: RedisProcess, there: list[str], index: list[str]) -> list[str]:
    """The jobs of the index in the order of their turns; equals in the order of the list."""
    turns = {job_id: redis.client.zscore(keys.waiting(QUEUE), job_id) for job_id in index}
    return sorted((one for one in there if one in turns), key=lambda one: turns[one] or 0.0)


@given(sizes=st.lists(st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)), min_size=10, max_size=40))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_two_that_always_wait_get_the_same(
    clean_redis: RedisProcess, sizes: list[tuple[float, float]]
) -> None:
    """Of what is served, neither is ever ahead by more than a job of each (the bound of the method)."""

    async def play() -> None:
        clean_redis.client.flushall()
        commands = Commands(connect(clean_redis.url, retries=0))
        ledger, size = RedisLedger(commands, JOBS), dict[str, float]()
        try:
            for mine, yours in sizes:
                for tenant, busy in (("a", mine), ("b", yours)):
                    size |= {job.id: busy for job in await admit(ledger, tenant, busy=busy)}
            served, left = {"a": 0.0, "b": 0.0}, {"a": len(sizes), "b": len(sizes)}
            bound = max(mine for mine, _ in sizes) + max(yours for _, yours in sizes)
            while min(left.values()) > 0:
                claimed = await take(ledger, clean_redis)
                assert claimed is not None
                served[claimed.job.tenant] += size[claimed.job.id]
                left[claimed.job.tenant] -= 1
                assert abs(served["a"] - served["b"]) <= bound + 0.001
        finally:
            await commands.close()

    asyncio.run(play())
