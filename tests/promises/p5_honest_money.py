"""P5: what a job may cost is set aside before it is queued, and what it did cost takes its place."""

from __future__ import annotations

import asyncio
from typing import Any

from k9_broker.adapters.redis_ledger import RedisLedger
from k9_broker.errors import BudgetExhausted
from k9_broker.jobs import Claim, Job, JobState, new_job_id
from k9_broker.requests import Kind
from k9_broker.strategy.decision import Candidate
from letters import dies, done
from promises.mechanisms import lua
from promises.stage import Mechanism, Promise, Stage
from walks import candidate, chat, claim, decided

BUDGET = 1000
CLOUD = candidate("away", Kind.CLOUD, cost=100, mark=1000)
DEARER = candidate("dearer", Kind.CLOUD, cost=700, mark=1000)
HERE = candidate("a")


async def admit(ledger: RedisLedger, *places: Candidate, **more: Any) -> Job:
    decision = decided(*places or (CLOUD,), budget=more.pop("budget", BUDGET))
    return await ledger.admit(more.pop("job_id", None) or new_job_id(), chat(**more), decision)


async def spend(ledger: RedisLedger, *places: Candidate) -> Claim:
    job = await admit(ledger, *places)
    return await claim(ledger, job, job.kind)


async def many_spend_at_once(stage: Stage) -> None:
    outcomes = await asyncio.gather(*(admit(stage.ledger) for _ in range(60)), return_exceptions=True)
    jobs = [one for one in outcomes if isinstance(one, Job)]
    assert len(jobs) <= BUDGET / 100, "more is queued than the budget bears"
    assert len(jobs) == BUDGET / 100, "less is queued than the budget bears"
    assert sum(isinstance(one, BudgetExhausted) for one in outcomes) == 50
    claims = [await claim(stage.ledger, job, Kind.CLOUD) for job in jobs]

    async def end(number: int, one: Claim) -> None:
        await stage.ledger.finish(one, done(), 100 - 10 * (number % 3))
        await asyncio.gather(*(admit(stage.ledger) for _ in range(3)), return_exceptions=True)
        assert await stage.ledger.spent("default") <= BUDGET, "the budget is passed"

    await asyncio.gather(*(end(*one) for one in enumerate(claims)))


async def the_last_estimate_was_too_low(stage: Stage) -> None:
    """One job at a time, each of which costs 130 and not 100."""
    run = 0
    while run < 2 * BUDGET / 100:
        try:
            held = await spend(stage.ledger)
        except BudgetExhausted:
            break
        run += 1
        await stage.ledger.finish(held, done(), 130)
    assert await stage.ledger.spent("default") == 130 * run, "the account is not what was spent"
    assert 130 * run <= BUDGET + 30, "the budget is passed by more than one estimate's error"


async def many_estimates_were_too_low(stage: Stage) -> None:
    """As many as the budget bears run at once, and each costs 130: their errors add up, and no more."""
    held = [await spend(stage.ledger) for _ in range(BUDGET // 100)]
    for number, one in enumerate(held, 1):
        await stage.ledger.finish(one, done(), 130)
        assert await stage.ledger.spent("default") == BUDGET + 30 * number, (
            "the account is not what was spent"
        )
        try:
            await admit(stage.ledger)
        except BudgetExhausted:
            continue
        raise AssertionError("a budget that is passed takes another job")


async def every_end_is_settled(stage: Stage) -> None:
    """The account is what ran did cost, and what may yet be spent."""
    ledger = stage.ledger
    costs = {"cheaper": 40, "dearer": 170, "free": 0}
    for cost in costs.values():
        held = await spend(ledger)
        for _ in range(2):  # the reply is lost, so it is said again
            await ledger.finish(held, done(), cost)
    assert await ledger.spent("default") == sum(costs.values()), "what is set aside stays on the account"
    await ledger.cancel((await admit(ledger)).id)
    waits = await admit(ledger)
    assert await ledger.spent("default") == sum(costs.values()) + 100, (
        "what is set aside stays on the account"
    )
    assert (await ledger.get(waits.id)).state is JobState.QUEUED


async def a_submission_is_repeated(stage: Stage) -> None:
    job_id = new_job_id()
    for _ in range(4):
        await admit(stage.ledger, job_id=job_id)
    assert await stage.ledger.spent("default") == 100, "one job is charged twice"


async def a_job_moves(stage: Stage) -> None:
    """To a dearer place, while the money lasts, and to one that costs nothing."""
    ledger = stage.ledger
    held = [await spend(ledger) for _ in range(3)]

    async def move(one: Claim, place: Candidate) -> str | None:
        return await ledger.reroute(one.job, [place], leaves="x", calls=1, token=one.token)

    assert await move(held[0], DEARER) == "dearer"
    assert await ledger.spent("default") == 900, "the money of a moved job stays where it was"
    assert await move(held[1], DEARER) == "", "a moved job passes the budget"
    assert await move(held[2], HERE) == "a"
    assert await ledger.spent("default") == 800, "the money of a moved job stays where it was"
    again = await claim(ledger, await ledger.get(held[0].job.id), Kind.CLOUD)
    await ledger.finish(again, done(), 650)
    here = await claim(ledger, await ledger.get(held[2].job.id))
    await ledger.finish(here, done(), 0)
    assert await ledger.spent("default") == 750, "the money of a moved job stays where it was"


async def a_dead_letter_is_replayed(stage: Stage) -> None:
    """What its first run did cost stays spent; the second one's money is set aside beside it."""
    dead = await dies(stage.ledger, place=CLOUD, cost=20)
    request = await stage.letters.request(dead.id)
    await stage.letters.replay(dead, request, decided(CLOUD, budget=BUDGET))
    assert await stage.ledger.spent("default") == 120, "a replayed job runs on nobody's money"
    again = await claim(stage.ledger, await stage.ledger.get(dead.id), Kind.CLOUD)
    await stage.ledger.finish(again, done(), 90)
    assert await stage.ledger.spent("default") == 110


_RESERVE = "local account = place.cost and place.cost > 0 and reserve(tenant, place.cost)"
_SETTLE = "pcall(settle, job, cost) -- a number"

P5 = Promise(
    "p5_honest_money",
    {
        "admission sets money aside": Mechanism(
            many_spend_at_once,
            lua("admit", _RESERVE, "local account = nil"),
            "more is queued than the budget bears",
        ),
        "admission looks at the budget": Mechanism(
            many_spend_at_once,
            lua(
                "parts/places",
                "if asked.money and place.cost > 0 and place.cost > asked.money then"
                " return 'budget:exhausted', false end",
            ),
            "more is queued than the budget bears",
        ),
        "what was set aside counts as spent": Mechanism(
            many_spend_at_once,
            lua("parts/money", "redis.call('INCRBY', account, string.format('%.0f', cost))"),
            "more is queued than the budget bears",
        ),
        "the end settles": Mechanism(
            every_end_is_settled,
            lua("parts/ends", _SETTLE, "-- "),
            "what is set aside stays on the account",
        ),
        "the end settles what was dearer than expected": Mechanism(
            the_last_estimate_was_too_low,
            lua("parts/ends", _SETTLE, "-- "),
            "the account is not what was spent",
        ),
        "the end settles what many have cost": Mechanism(
            many_estimates_were_too_low,
            lua("parts/ends", _SETTLE, "-- "),
            "the account is not what was spent",
        ),
        "a budget that is passed is over": Mechanism(
            many_estimates_were_too_low,
            lua(
                "parts/places",
                "if asked.money and place.cost > 0 and place.cost > asked.money then",
                "if asked.money and asked.money > -100 and place.cost > asked.money then",
            ),
            "a budget that is passed takes another job",
        ),
        "a submission is charged once": Mechanism(
            a_submission_is_repeated,
            lua("admit", "if known then", "if false then"),
            "one job is charged twice",
        ),
        "money moves with its job": Mechanism(
            a_job_moves,
            lua("reroute", "\nset_aside(place.cost)"),
            "the money of a moved job stays where it was",
        ),
        "a move looks at the budget": Mechanism(
            a_job_moves, lua("reroute", "if h[9] then", "if false then"), "a moved job passes the budget"
        ),
        "a replay sets money aside": Mechanism(
            a_dead_letter_is_replayed,
            lua("replay", _RESERVE, "local account = nil"),
            "a replayed job runs on nobody's money",
        ),
    },
)
