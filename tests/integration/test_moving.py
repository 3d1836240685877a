"""Waiting jobs that move: in their order, no dearer than they were, once there and back, at little cost."""

from __future__ import annotations

import json
from typing import Any

import pytest

from k9_broker.adapters import keys
from k9_broker.adapters.connect import Commands
from k9_broker.adapters.moving import Mover
from k9_broker.adapters.redis_fleet import RedisFleet
from k9_broker.adapters.redis_ledger import RedisLedger
from k9_broker.backends import Announcement
from k9_broker.failover import RETURNED
from k9_broker.health import CircuitState
from k9_broker.jobs import Job, new_job_id
from stand import RedisProcess
from walks import announced, candidate, chat, claim, decided, sweep

CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN


def said(name: str, state: CircuitState = CLOSED, **changes: object) -> Announcement:
    return announced(name, state, **{"models": ("m",), "slots": 4, **changes})


@pytest.fixture
async def two(fleet: RedisFleet) -> RedisFleet:
    for name in ("a", "b"):
        await fleet.announce(said(name))
    return fleet


@pytest.fixture
def mover(commands: Commands, ledger: RedisLedger) -> Mover:
    return Mover(commands, ledger)


async def admit(ledger: RedisLedger, *names: str, **decision: object) -> Job:
    places = [candidate(name, cost=10 * number) for number, name in enumerate(names, 1)]
    return await ledger.admit(new_job_id(), chat(), decided(*places, **decision))


async def test_they_keep_their_order_and_nobody_is_passed(
    ledger: RedisLedger, two: RedisFleet, mover: Mover, clean_redis: RedisProcess
) -> None:
    there = [await admit(ledger, "b") for _ in range(2)]
    moved = [await admit(ledger, "a", "b") for _ in range(4)]
    await two.announce(said("a", OPEN))
    assert await sweep(mover, two) == {"moved": 4, "returned": 0}
    messages = clean_redis.client.lrange("k9.local.b.interactive", 0, -1)
    taken = [json.loads(message)["headers"]["id"] for message in reversed(messages)]
    assert taken == [job.id for job in (*there, *moved)]


async def test_a_backend_that_is_only_tried_gets_one_back(
    ledger: RedisLedger, two: RedisFleet, mover: Mover
) -> None:
    for _ in range(4):
        await admit(ledger, "a", "b")
    await two.announce(said("a", OPEN))
    await sweep(mover, two)
    await two.announce(said("a", HALF_OPEN))
    assert await sweep(mover, two) == {"moved": 0, "returned": 1}
    assert await sweep(mover, two) == {"moved": 0, "returned": 0}
    await two.announce(said("a"))
    assert await sweep(mover, two) == {"moved": 0, "returned": 3}


async def test_a_backend_at_its_rate_limit_gets_none_back(
    ledger: RedisLedger, two: RedisFleet, mover: Mover
) -> None:
    await admit(ledger, "a", "b")
    await two.announce(said("a", OPEN))
    await sweep(mover, two)
    await two.announce(said("a", paced_seconds=20.0))
    assert await sweep(mover, two) == {"moved": 0, "returned": 0}
    await two.announce(said("a"))
    assert await sweep(mover, two) == {"moved": 0, "returned": 1}


async def test_a_job_comes_back_once(ledger: RedisLedger, two: RedisFleet, mover: Mover) -> None:
    job = await admit(ledger, "a", "b")
    seen = []
    for _ in range(4):
        await two.announce(said("a", OPEN))
        await sweep(mover, two)
        await two.announce(said("a"))
        await sweep(mover, two)
        seen.append((await ledger.get(job.id)).backend)
    assert seen == ["a", "b", "b", "b"]


async def test_one_that_its_budget_keeps_away_holds_up_no_other(
    ledger: RedisLedger, two: RedisFleet, mover: Mover
) -> None:
    poor = await ledger.admit(
        new_job_id(), chat(), decided(candidate("a", cost=90), candidate("b", cost=0), budget=100)
    )
    rich = await admit(ledger, "a", "b")
    await two.announce(said("a", OPEN))
    await sweep(mover, two)
    await ledger.admit(new_job_id(), chat(), decided(candidate("c", cost=50)))
    await two.announce(said("a"))
    assert await sweep(mover, two) == {"moved": 0, "returned": 1}
    assert (await ledger.get(poor.id)).backend == "b"
    assert (await ledger.get(rich.id)).reason == RETURNED


async def test_what_failed_elsewhere_and_never_ran_here_costs_nothing(ledger: RedisLedger) -> None:
    claimed = await claim(ledger, await admit(ledger, "a", "b"))
    places = [candidate("b", cost=20)]
    how: dict[str, Any] = {"leaves": "failed:backend_unreachable", "calls": 1, "token": claimed.token}
    assert await ledger.reroute(claimed.job, places, **how) == "b"
    assert await ledger.spent("default") == 20
    await ledger.cancel(claimed.job.id)
    assert await ledger.spent("default") == 0
    assert await ledger.usage("default", 1) == []


@pytest.mark.parametrize("why", ["they may go nowhere", "there is no room"])
async def test_jobs_that_must_stay_cost_a_sweep_next_to_nothing(
    ledger: RedisLedger, two: RedisFleet, mover: Mover, clean_redis: RedisProcess, why: str
) -> None:
    nowhere = why == "they may go nowhere"
    for _ in range(60):
        await ledger.admit(
            new_job_id(), chat(), decided(candidate("a"), *([] if nowhere else [candidate("b")]))
        )
    if not nowhere:
        await two.announce(said("b", max_waiting=5))
        for _ in range(5):
            await admit(ledger, "b")
    await two.announce(said("a", OPEN))
    await sweep(mover, two)

    def commands() -> int:
        return int(clean_redis.client.info("stats")["total_commands_processed"])

    snapshot = await two.snapshot(fresh=True)
    before = commands()
    for _ in range(10):
        assert await mover.sweep(snapshot) == {"moved": 0, "returned": 0}
    assert commands() - before < 60
    # As soon as something changes they are looked at again.
    if not nowhere:
        await two.announce(said("b", max_waiting=50))
        assert (await sweep(mover, two))["moved"] == 45
        assert clean_redis.client.zcard(keys.waiting("k9.local.b.interactive")) == 50
