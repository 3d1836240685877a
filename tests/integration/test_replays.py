"""What becomes of a replayed job on a real Redis: its readers, its money, where it may go."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from k9_broker import dead_letters
from k9_broker.adapters import keys
from k9_broker.adapters.connect import Commands
from k9_broker.adapters.redis_dead import RedisDeadLetters
from k9_broker.adapters.redis_fleet import RedisFleet
from k9_broker.adapters.redis_ledger import RedisLedger
from k9_broker.adapters.redis_wake import RedisFollower
from k9_broker.errors import (
    BackendUnreachable,
    BudgetExhausted,
    ModelNotFound,
    PrivacyRefused,
    QueueFull,
)
from k9_broker.jobs import Job, new_job_id
from k9_broker.ports import Event
from k9_broker.requests import InferenceRequest, Kind, Privacy
from k9_broker.results import Outcome
from k9_broker.snapshot import Snapshot
from k9_broker.strategy.decision import Candidate, Decision
from letters import CLOUD, HERE, dies, done, listed, replayed, same
from stand import JOBS, RedisProcess
from walks import candidate, chat, claim, decided, succeed

RETENTION = JOBS.retention_seconds


@pytest.fixture
def letters(commands: Commands) -> RedisDeadLetters:
    return RedisDeadLetters(commands, JOBS)


async def events(commands: Commands, job: Job, after: str = "0") -> list[Event]:
    """What a new reader is told until it has nothing more to read."""
    found = []
    reading = RedisFollower(commands, job.id).events(after)
    try:
        while True:
            found.append(await asyncio.wait_for(anext(reading), 0.5))
    except (TimeoutError, StopAsyncIteration):
        return found


# -- read on --------------------------------------------------------------------------------------


async def test_readers_go_on_after_the_old_end(
    ledger: RedisLedger, letters: RedisDeadLetters, commands: Commands
) -> None:
    dead = await dies(ledger)
    before = await events(commands, dead)
    assert [event.kind for event in before] == ["running", "end"]
    job = await replayed(letters, dead)
    await succeed(ledger, await claim(ledger, job))
    new = await events(commands, job)
    assert [event.kind for event in new] == ["restart", "running", "end"]
    assert (new[0].data, new[-1].data["state"]) == ({"generation": 2}, "succeeded")
    for last in before:  # whoever resumes after any event of the first run misses nothing of the second
        assert await events(commands, job, after=last.id) == new


async def test_ids_go_on_rising_even_when_the_clock_has_been_set_back(
    ledger: RedisLedger, letters: RedisDeadLetters, commands: Commands, clean_redis: RedisProcess
) -> None:
    dead = await dies(ledger)
    future = f"{2**45}-7"
    clean_redis.client.xadd(keys.relay(dead.id), {"kind": "end", "data": "{}"}, id=future)
    await replayed(letters, dead)
    assert [event.kind for event in await events(commands, dead, after=future)] == ["restart"]


async def test_the_answer_of_the_first_run_is_forgotten(
    ledger: RedisLedger, letters: RedisDeadLetters, clean_redis: RedisProcess
) -> None:
    dead = await dies(ledger, cost=5)
    job = await replayed(letters, dead)
    assert (job.prompt_tokens, job.cloud_cost) == (0, None)
    assert clean_redis.client.hget(keys.job(job.id), "relayed") == b"0"
    assert not clean_redis.client.hexists(keys.job(job.id), "token")


# -- money ----------------------------------------------------------------------------------------


async def test_what_was_spent_is_spent_and_what_will_be_is_reserved(
    ledger: RedisLedger, letters: RedisDeadLetters
) -> None:
    dead = await dies(ledger, place=CLOUD, cost=40, budget=250)
    assert await ledger.spent("default") == 40
    job = await replayed(letters, dead, CLOUD, budget=250)
    assert (job.cost, await ledger.spent("default")) == (100, 140)
    await ledger.finish(await claim(ledger, job, Kind.CLOUD), done(), 70)
    assert await ledger.spent("default") == 110
    (row,) = await ledger.usage("default", 1)
    assert (row.jobs, row.cost, row.prompt_tokens) == (2, 110, 37)


async def test_a_replay_that_is_cancelled_gives_back_its_own_money_only(
    ledger: RedisLedger, letters: RedisDeadLetters
) -> None:
    dead = await dies(ledger, place=CLOUD, cost=40)
    await ledger.cancel((await replayed(letters, dead, CLOUD)).id)
    assert await ledger.spent("default") == 40
    free = await dies(ledger, place=CLOUD, cost=40)
    await ledger.finish(await claim(ledger, await replayed(letters, free, HERE)), done(), 0)
    assert await ledger.spent("default") == 80


async def test_what_had_no_price_is_counted_when_its_cost_is_known(
    ledger: RedisLedger, letters: RedisDeadLetters
) -> None:
    dead = await dies(ledger, place=CLOUD, cost=40)
    job = await replayed(letters, dead, candidate("unpriced", Kind.CLOUD, cost=None))
    assert job.cost is None
    await ledger.finish(await claim(ledger, job, Kind.CLOUD), done(), 30)
    assert await ledger.spent("default") == 70


async def test_a_budget_that_is_used_up_keeps_it_a_dead_letter(
    ledger: RedisLedger, letters: RedisDeadLetters, clean_redis: RedisProcess
) -> None:
    dead = await dies(ledger, place=CLOUD, cost=40, budget=130)
    before = clean_redis.client.hgetall(keys.job(dead.id))
    with pytest.raises(BudgetExhausted):
        await replayed(letters, dead, CLOUD, budget=130)
    assert clean_redis.client.hgetall(keys.job(dead.id)) == before
    assert (await ledger.spent("default"), await listed(letters)) == (40, 1)
    assert (await replayed(letters, dead, CLOUD, HERE, budget=130)).backend == "a"


async def test_a_full_queue_keeps_it_a_dead_letter(ledger: RedisLedger, letters: RedisDeadLetters) -> None:
    dead = await dies(ledger)
    small = candidate("a", mark=1)
    await ledger.admit(new_job_id(), chat(), decided(small))
    with pytest.raises(QueueFull):
        await replayed(letters, dead, small)
    assert (same(await ledger.get(dead.id)), await listed(letters)) == (same(dead), 1)
    job = await replayed(letters, dead, small, candidate("b"))
    assert (job.backend, job.reason) == ("b", "overflow:depth")


# -- where it may go ------------------------------------------------------------------------------


class Deciding:
    """A router that would send anything to the cloud, unless its caller wants it local."""

    def __init__(self, *places: Candidate) -> None:
        self.places = places

    async def __call__(self, request: InferenceRequest, snapshot: Snapshot) -> Decision:
        stays = request.privacy is Privacy.LOCAL_ONLY
        may = [one for one in self.places if one.kind is Kind.LOCAL or not stays]
        return decided(*may, privacy=request.privacy, privacy_by=("caller",) if stays else ())


async def anew(letters: RedisDeadLetters, fleet: RedisFleet, job: Job, *places: Candidate) -> Job:
    return await dead_letters.replay(job.id, letters=letters, fleet=fleet, decide=Deciding(*places))


async def test_what_had_to_stay_here_stays_here(
    ledger: RedisLedger, letters: RedisDeadLetters, fleet: RedisFleet
) -> None:
    found: Mapping[str, Any] = {"privacy": Privacy.LOCAL_ONLY, "privacy_by": ("found:email",)}
    dead = await dies(ledger, **found)
    with pytest.raises(ModelNotFound):
        await anew(letters, fleet, dead, CLOUD)
    assert await listed(letters) == 1
    job = await anew(letters, fleet, dead, CLOUD, HERE)
    assert (job.backend, job.privacy) == ("a", Privacy.LOCAL_ONLY)
    assert (await ledger.explanation(job.id))[1]["privacy_by"] == ["found:email"]


async def test_the_script_itself_lets_nothing_private_out(
    ledger: RedisLedger, letters: RedisDeadLetters
) -> None:
    dead = await dies(ledger, privacy=Privacy.LOCAL_ONLY)
    with pytest.raises(PrivacyRefused):
        await replayed(letters, dead, CLOUD, privacy=Privacy.ANY)
    job = await replayed(letters, dead, CLOUD, HERE, privacy=Privacy.ANY)
    assert (job.kind, job.privacy) == (Kind.LOCAL, Privacy.LOCAL_ONLY)


async def test_a_stricter_wish_of_today_holds(ledger: RedisLedger, letters: RedisDeadLetters) -> None:
    dead = await dies(ledger)
    job = await replayed(letters, dead, HERE, privacy=Privacy.LOCAL_ONLY)
    assert job.privacy is Privacy.LOCAL_ONLY


async def test_the_decision_and_the_limits_of_today_take_the_place_of_those_before(
    ledger: RedisLedger, letters: RedisDeadLetters, clean_redis: RedisProcess
) -> None:
    dead = await dies(ledger, budget=500, weight=2.0, max_in_flight=1)
    limits = {b"budget", b"weight", b"max_in_flight"}
    job = await replayed(letters, dead, strategy="mine")
    assert (job.strategy, (await ledger.explanation(job.id))[1]["strategy"]) == ("mine", "mine")
    assert not limits & set(clean_redis.client.hgetall(keys.job(dead.id)))
    await ledger.finish(await claim(ledger, job), Outcome.failed(BackendUnreachable()), 0)
    await replayed(letters, await ledger.get(job.id), budget=9, weight=0.5, max_in_flight=2)
    assert clean_redis.client.hmget(keys.job(dead.id), *sorted(limits)) == [b"9", b"2", b"0.5"]
