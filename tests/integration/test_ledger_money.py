"""A tenant's money on a real Redis: set aside at admission, settled at the end, never overdrawn."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest
from redis.exceptions import ResponseError

from k9_broker.adapters import keys
from k9_broker.adapters.redis_ledger import RedisLedger
from k9_broker.errors import BackendUnreachable, BudgetExhausted
from k9_broker.jobs import Claim, Job, JobState, new_job_id
from k9_broker.money import MOST
from k9_broker.requests import InferenceRequest, Kind
from k9_broker.results import Outcome, Result, Usage
from k9_broker.strategy.decision import Candidate, Decision
from stand import RedisProcess
from walks import candidate, chat, claim, decided

LOCAL = candidate("here", model="small")
CLOUD = candidate("away", Kind.CLOUD, model="large", cost=100)
UNPRICED = candidate("unpriced", Kind.CLOUD, model="large", cost=None)


async def admit(ledger: RedisLedger, decision: Decision, request: InferenceRequest | None = None) -> Job:
    return await ledger.admit(new_job_id(), request or chat(), decision)


async def spends(ledger: RedisLedger, candidate: Candidate = CLOUD, budget: int | None = 250) -> Claim:
    """A job that has been claimed."""
    return await claim(ledger, await admit(ledger, decided(candidate, budget=budget)), Kind.CLOUD)


def done(outcome: str = "succeeded") -> Outcome:
    usage = Usage(30, 10)
    if outcome == "succeeded":
        return Outcome.succeeded(Result("large", usage))
    return Outcome.failed(BackendUnreachable(), usage)


async def test_what_may_be_spent_is_set_aside_and_given_back(ledger: RedisLedger) -> None:
    first, second = [await admit(ledger, decided(CLOUD, budget=250)) for _ in range(2)]
    assert await ledger.spent("default") == 200
    with pytest.raises(BudgetExhausted):
        await admit(ledger, decided(CLOUD, budget=250))
    assert (await ledger.cancel(first.id)).cost == 0
    assert await ledger.spent("default") == 100
    assert (await admit(ledger, decided(CLOUD, budget=250))).backend == "away"
    assert second.cost == 100
    assert await ledger.spent("another") == 0


@pytest.mark.parametrize(
    ("outcome", "cost", "settled"),
    [
        ("succeeded", 60, 60),
        ("succeeded", 100, 100),
        ("succeeded", 170, 170),
        ("succeeded", 0, 0),
        ("succeeded", None, 100),
        ("failed", 0, 0),
        ("failed", 45, 45),
        ("failed", None, 100),
    ],
)
async def test_what_it_cost_takes_the_place_of_what_was_set_aside(
    ledger: RedisLedger, outcome: str, cost: int | None, settled: int
) -> None:
    other = await spends(ledger)
    claimed = await spends(ledger)
    for _ in range(2):  # a lost reply makes it be said twice
        assert await ledger.finish(claimed, done(outcome), cost)
    assert (await ledger.get(claimed.job.id)).cost == settled
    assert await ledger.spent("default") == 100 + settled
    assert (await ledger.get(other.job.id)).cost == 100


@pytest.mark.parametrize(("cost", "after"), [(30, 30), (0, 0), (None, 0)])
async def test_what_had_no_price_is_counted_when_its_cost_is_known(
    ledger: RedisLedger, cost: int | None, after: int
) -> None:
    claimed = await spends(ledger, UNPRICED, budget=None)
    assert (claimed.job.cost, await ledger.spent("default")) == (None, 0)
    await ledger.finish(claimed, done(), cost)
    assert (await ledger.get(claimed.job.id)).cost == cost
    assert await ledger.spent("default") == after


async def test_what_was_free_and_cost_something_is_counted(ledger: RedisLedger) -> None:
    claimed = await claim(ledger, await admit(ledger, decided(LOCAL)))
    await ledger.finish(claimed, done(), 12)
    assert await ledger.spent("default") == 12


async def test_a_job_that_is_cancelled_while_it_runs_keeps_what_was_set_aside(ledger: RedisLedger) -> None:
    claimed = await spends(ledger)
    assert (await ledger.cancel(claimed.job.id)).cost == 100
    assert not await ledger.finish(claimed, done(), 5)
    assert await ledger.spent("default") == 100


@pytest.mark.parametrize("ran", [False, True])
async def test_a_job_that_expires_gives_back_what_it_cannot_have_spent(
    ledger: RedisLedger, ran: bool
) -> None:
    job = await admit(ledger, decided(CLOUD, budget=250), replace(chat(), deadline=0.3))
    if ran:
        await claim(ledger, job, Kind.CLOUD)
    async with asyncio.timeout(5):
        while (await ledger.get(job.id)).state is not JobState.EXPIRED:
            await ledger.expire(job.id)
    assert await ledger.spent("default") == (100 if ran else 0)


async def test_a_job_that_expires_when_claimed_gives_it_back(ledger: RedisLedger) -> None:
    job = await admit(ledger, decided(CLOUD, budget=250), replace(chat(), deadline=0.01))
    await asyncio.sleep(0.02)  # the deadline is an instant of the server's clock
    assert await ledger.claim(job.id, 1, "w", Kind.CLOUD) is None
    assert await ledger.spent("default") == 0


async def test_many_at_once_never_set_aside_more_than_the_budget(ledger: RedisLedger) -> None:
    decision = decided(candidate("away", Kind.CLOUD, mark=1000, cost=100), budget=9_999)
    outcomes = await asyncio.gather(*(admit(ledger, decision) for _ in range(200)), return_exceptions=True)
    assert sum(isinstance(one, Job) for one in outcomes) == 99
    assert sum(isinstance(one, BudgetExhausted) for one in outcomes) == 101
    assert await ledger.spent("default") == 9_900


async def test_an_absurd_price_is_counted_as_far_as_can_be_counted(ledger: RedisLedger) -> None:
    claimed = await spends(ledger, candidate("away", Kind.CLOUD, cost=10**30), budget=None)
    assert await ledger.spent("default") == claimed.job.cost == MOST
    assert await ledger.finish(claimed, done(), 10**30)
    assert await ledger.spent("default") == MOST
    with pytest.raises(BudgetExhausted):
        await admit(ledger, decided(candidate("away", Kind.CLOUD, cost=10**30), budget=10**15))


async def test_an_account_that_cannot_count_further_leaves_nothing_half_done(
    ledger: RedisLedger, clean_redis: RedisProcess
) -> None:
    account = keys.spent("default", await ledger._today())
    clean_redis.client.set(account, 2**63 - 1)
    with pytest.raises(ResponseError):
        await admit(ledger, decided(CLOUD))
    assert clean_redis.client.keys() == [account.encode()]


async def test_a_repeated_admission_sets_aside_once(ledger: RedisLedger) -> None:
    job_id = new_job_id()
    jobs = await asyncio.gather(*(ledger.admit(job_id, chat(), decided(CLOUD, budget=250)) for _ in range(5)))
    assert {job.cost for job in jobs} == {100}
    assert await ledger.spent("default") == 100
    await ledger.cancel(job_id)
    assert (await ledger.admit(job_id, chat(), decided(CLOUD, budget=250))).state is JobState.CANCELLED
    assert await ledger.spent("default") == 0


@pytest.mark.parametrize("why", ["hand-back", "orphan", "lost"])
async def test_whoever_goes_back_to_the_queue_keeps_its_money_and_its_model(
    ledger: RedisLedger, clean_redis: RedisProcess, why: str
) -> None:
    odd = 'org/"größe" \\ 模型'
    job = await admit(ledger, decided(candidate("away", Kind.CLOUD, model=odd, cost=100), budget=250))
    clean_redis.client.delete(CLOUD.queue)
    if why == "lost":
        assert await ledger.requeue_lost(job) == "requeued"
    else:
        claimed = await claim(ledger, job, Kind.CLOUD)
        if why == "orphan":
            clean_redis.client.zadd("k9:leases:away", {job.id: 0})
            assert await ledger.requeue_orphan(claimed.job) == "requeued"
        else:
            assert await ledger.hand_back(claimed)
    again = await ledger.get(job.id)
    assert (again.state, again.generation, again.model, again.cost) == (JobState.QUEUED, 2, odd, 100)
    assert await ledger.spent("default") == 100
    message = json.loads(clean_redis.client.lindex(CLOUD.queue, -1))
    assert message["headers"]["argsrepr"] == f"{odd} chat"
    claimed = await claim(ledger, again, Kind.CLOUD)
    await ledger.finish(claimed, done(), 80)
    assert await ledger.spent("default") == 80
