"""Jobs that change their backend, on a real Redis: fenced, counted, paid for once."""

from __future__ import annotations

import asyncio
import json

import pytest

from k9_broker.adapters import keys, moving
from k9_broker.adapters.connect import Commands
from k9_broker.adapters.moving import Mover
from k9_broker.adapters.redis_fleet import RedisFleet
from k9_broker.adapters.redis_ledger import RedisLedger
from k9_broker.health import CircuitState, InstanceHealth
from k9_broker.jobs import Job, JobState, new_job_id
from k9_broker.requests import Kind, Privacy
from k9_broker.results import Outcome, Result
from stand import RedisProcess
from walks import announced, candidate, chat, claim, decided, succeed, sweep

HERE = candidate("a", cost=40)
NEXT = candidate("b", reason="failover:backend_unreachable", model="other", cost=100)
AWAY = candidate("c", Kind.CLOUD, reason="failover:backend_unreachable", cost=70)


async def admit(ledger: RedisLedger, *more: object, **decision: object) -> Job:
    return await ledger.admit(new_job_id(), chat(), decided(HERE, NEXT, AWAY, **decision))


async def leave(ledger: RedisLedger, job: Job, *places: object, **how: object) -> str | None:
    said = {"leaves": "failed:backend_unreachable", "calls": 1, **how}
    return await ledger.reroute(job, places or (NEXT,), **said)  # type: ignore[arg-type]


async def test_a_running_job_goes_on_to_the_next_backend(
    ledger: RedisLedger, fleet: RedisFleet, clean_redis: RedisProcess
) -> None:
    claimed = await claim(ledger, await admit(ledger))
    assert await leave(ledger, claimed.job, token=claimed.token) == "b"
    job = await ledger.get(claimed.job.id)
    assert (job.state, job.generation, job.backend, job.model) == (JobState.QUEUED, 2, "b", "other")
    assert (job.reason, job.tried, job.calls, job.attempts) == ("failover:backend_unreachable", ("a",), 1, 0)
    assert job.skipped == ("elsewhere: model-not-served", "a: failed:backend_unreachable")
    redis = clean_redis.client
    assert redis.zcard(keys.leases("a")) == 0
    assert redis.zrange(keys.waiting("k9.local.b.interactive"), 0, -1) == [job.id.encode()]
    message = json.loads(redis.lindex("k9.local.b.interactive", 0))
    assert message["headers"]["argsrepr"] == "other chat"
    assert not await ledger.finish(claimed, Outcome.succeeded(Result("m")), 0), "the old claim is superseded"
    assert await ledger.claim(job.id, 1, "w", Kind.LOCAL) is None, "the old message too"
    assert await fleet.rerouted() == {("a", "b", "failover:backend_unreachable"): 1}
    again = await claim(ledger, job)
    assert again.request.model == "other"
    await succeed(ledger, again)


async def test_of_many_who_move_a_job_one_wins(ledger: RedisLedger) -> None:
    claimed = await claim(ledger, await admit(ledger))
    went = await asyncio.gather(*(leave(ledger, claimed.job, token=claimed.token) for _ in range(20)))
    assert sorted(went, key=str) == [None] * 19 + ["b"]
    waiting = await ledger.get(claimed.job.id)
    went = await asyncio.gather(*(leave(ledger, waiting, AWAY) for _ in range(20)))
    assert sum(one == "c" for one in went) == 1


async def test_a_job_that_was_claimed_meanwhile_stays(ledger: RedisLedger) -> None:
    job = await admit(ledger)
    claimed = await claim(ledger, job)
    assert await leave(ledger, job) is None
    assert (await ledger.get(job.id)).backend == "a"
    await ledger.cancel(job.id)
    assert await leave(ledger, claimed.job, token=claimed.token) is None


async def test_where_there_is_no_room_nothing_changes(ledger: RedisLedger) -> None:
    claimed = await claim(ledger, await admit(ledger))
    full = NEXT._replace(max_waiting=0)
    assert await leave(ledger, claimed.job, full, token=claimed.token) == ""
    assert await ledger.get(claimed.job.id) == claimed.job
    assert await leave(ledger, claimed.job, full, AWAY, token=claimed.token) == "c"


async def test_a_local_only_job_is_not_moved_to_a_cloud(ledger: RedisLedger) -> None:
    claimed = await claim(ledger, await admit(ledger, privacy=Privacy.LOCAL_ONLY))
    assert await leave(ledger, claimed.job, AWAY, token=claimed.token) == ""
    disguised = AWAY._replace(kind=Kind.LOCAL)
    assert await leave(ledger, claimed.job, disguised, token=claimed.token) == ""
    assert await leave(ledger, claimed.job, AWAY, NEXT, token=claimed.token) == "b"


@pytest.mark.parametrize(
    ("budget", "places", "went", "spent"),
    [
        (None, (NEXT,), "b", 100),
        (100, (NEXT,), "b", 100),
        (99, (NEXT,), "", 40),
        (99, (NEXT, AWAY), "c", 70),
        (99, (NEXT._replace(cost=None),), "", 40),
        (None, (NEXT._replace(cost=None),), "b", 0),
        (None, (NEXT._replace(cost=0),), "b", 0),
    ],
)
async def test_what_was_set_aside_follows_the_job(
    ledger: RedisLedger, budget: int | None, places: tuple[object, ...], went: str, spent: int
) -> None:
    claimed = await claim(ledger, await admit(ledger, budget=budget))
    assert await ledger.spent("default") == 40
    assert await leave(ledger, claimed.job, *places, token=claimed.token) == went
    assert await ledger.spent("default") == spent
    if went:
        job = await ledger.get(claimed.job.id)
        again = await claim(ledger, job, job.kind)
        assert await ledger.finish(again, Outcome.succeeded(Result("m")), 30)
        assert await ledger.spent("default") == 30


# -- jobs that wait ---------------------------------------------------------------------------------


@pytest.fixture
async def two(fleet: RedisFleet) -> RedisFleet:
    for name in ("a", "b"):
        await fleet.announce(announced(name))
    return fleet


@pytest.fixture
def mover(commands: Commands, ledger: RedisLedger, monkeypatch: pytest.MonkeyPatch) -> Mover:
    monkeypatch.setattr(moving, "ASK_AGAIN_AFTER", 0.0)
    return Mover(commands, ledger)


@pytest.mark.parametrize("how", ["dies", "opens", "out"])
async def test_waiting_jobs_move_on_from_a_backend_that_is_down_and_come_back(
    ledger: RedisLedger, two: RedisFleet, mover: Mover, how: str
) -> None:
    jobs = [await admit(ledger) for _ in range(5)]
    assert await sweep(mover, two) == {"moved": 0, "returned": 0}
    state = CircuitState.OUT if how == "out" else CircuitState.OPEN
    await (two.withdraw("k9-a@here") if how == "dies" else two.announce(announced("a", state)))
    why = {"dies": "no-worker", "opens": "circuit-open", "out": "out:backend_unreachable"}[how]
    assert await sweep(mover, two) == {"moved": 5, "returned": 0}
    moved = [await ledger.get(job.id) for job in jobs]
    assert {(job.backend, job.generation, job.reason, job.home) for job in moved} == {
        ("b", 2, f"failover:{why}", "a")
    }
    assert moved[0].skipped[-1] == f"a: {why}"
    assert moved[0].tried == ()
    # One is run where it is; of the others as many come back as the backend can begin with.
    ran = await claim(ledger, moved[0])
    await two.announce(announced("a"))
    assert await sweep(mover, two) == {"moved": 0, "returned": 2}
    now = [await ledger.get(job.id) for job in jobs]
    assert [job.backend for job in now].count("a") == 2
    assert {job.reason for job in now if job.backend == "a"} == {"returned:recovered"}
    assert now[0].backend == "b"
    await succeed(ledger, ran)
    assert await sweep(mover, two) == {"moved": 0, "returned": 0}, "it has no room for more"
    for job in now:
        if job.backend == "a":
            await succeed(ledger, await claim(ledger, job))
    assert await sweep(mover, two) == {"moved": 0, "returned": 2}


async def test_jobs_that_may_go_nowhere_else_wait_and_hold_up_nobody(
    ledger: RedisLedger, two: RedisFleet, mover: Mover, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moving, "_PAGE", 2)
    pinned = [await ledger.admit(new_job_id(), chat(), decided(HERE)) for _ in range(5)]
    free = [await admit(ledger) for _ in range(5)]
    await two.announce(announced("a", CircuitState.OPEN))
    assert (await sweep(mover, two))["moved"] == 5
    assert {(await ledger.get(job.id)).backend for job in pinned} == {"a"}
    assert {(await ledger.get(job.id)).backend for job in free} == {"b"}
    await two.announce(announced("b", CircuitState.OPEN))
    assert await sweep(mover, two) == {"moved": 0, "returned": 0}, "nobody is fit"


async def test_a_backend_with_one_fit_instance_is_fit(fleet: RedisFleet) -> None:
    ill = InstanceHealth(name="x", state=CircuitState.OPEN)
    well, tried = InstanceHealth(name="y"), InstanceHealth(name="z", state=CircuitState.HALF_OPEN)
    await fleet.announce(announced("a", instances=(ill, ill, well, tried), slots=16))
    await fleet.announce(announced("b", instances=(ill, ill)))
    await fleet.announce(announced("b", instances=(), node="k9-b@there"))
    a, b = (await fleet.snapshot(fresh=True)).backends
    assert (a.fit, a.slots, a.down) == (True, 4 + 1, "")
    assert (b.fit, b.slots) == (True, 2)


async def test_an_operator_resets_a_backend_at_its_workers(commands: Commands, fleet: RedisFleet) -> None:
    assert await fleet.reset("a") == 0


async def test_every_key_of_a_moved_job_has_its_time(
    ledger: RedisLedger, two: RedisFleet, mover: Mover, clean_redis: RedisProcess
) -> None:
    await admit(ledger)
    await two.announce(announced("a", CircuitState.OPEN))
    await sweep(mover, two)
    assert 0 < clean_redis.client.ttl(keys.moved("a")) <= 86400
