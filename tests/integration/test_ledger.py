"""The ledger on a real Redis: every transition, and every race that must have one winner."""

from __future__ import annotations

import asyncio
import json

import pytest

from k9_broker.adapters import keys
from k9_broker.adapters.connect import Commands
from k9_broker.adapters.reaper import Reaper
from k9_broker.adapters.redis_fleet import RedisFleet
from k9_broker.adapters.redis_ledger import RedisLedger
from k9_broker.backends import Announcement
from k9_broker.errors import (
    BackendUnreachable,
    IdempotencyConflict,
    JobCancelled,
    JobExpired,
    JobNotFound,
    QueueFull,
    WorkerLost,
)
from k9_broker.jobs import Job, JobState, new_job_id
from k9_broker.naming import queue_name
from k9_broker.requests import InferenceRequest, Kind, Operation, Priority
from k9_broker.results import Outcome, Result, Usage, Vectors
from k9_broker.strategy.decision import Decision
from stand import JOBS, RedisProcess, wait_until
from walks import candidate, claim, decided

SECRET = "the prompt nobody else may read"


def request(model: str = "m", **changes: object) -> InferenceRequest:
    body = {"model": model, "messages": [{"role": "user", "content": SECRET}]}
    return InferenceRequest(Operation.CHAT, model, body, **changes)  # type: ignore[arg-type]


def decision(*names: str, mark: int = 10) -> Decision:
    return decided(*(candidate(name, mark=mark, cost=7) for name in names))


async def admit(ledger: RedisLedger, *names: str, mark: int = 10, **changes: object) -> Job:
    return await ledger.admit(new_job_id(), request(**changes), decision(*names or ("a",), mark=mark))


async def test_a_job_walks_from_admission_to_its_result(ledger: RedisLedger) -> None:
    job = await admit(ledger)
    assert (job.state, job.backend, job.reason, job.generation) == (
        JobState.QUEUED,
        "a",
        "task-type:local",
        1,
    )
    assert job.skipped == ("elsewhere: model-not-served",)
    assert job == await ledger.get(job.id)
    claimed = await claim(ledger, job)
    assert claimed.request == request()
    assert (await ledger.get(job.id)).state is JobState.RUNNING
    result = Result("m", Usage(3, 4), body={"choices": []})
    assert await ledger.finish(claimed, Outcome.succeeded(result), 0)
    done = await ledger.get(job.id)
    assert (done.state, done.prompt_tokens, done.completion_tokens) == (JobState.SUCCEEDED, 3, 4)
    assert await ledger.result(job.id) == result


async def test_vectors_come_back_bit_for_bit(ledger: RedisLedger) -> None:
    claimed = await claim(ledger, await admit(ledger))
    result = Result("m", vectors=Vectors.from_floats([[0.1, -2.5], [3.0, 1e-9]]), errors={1: {"code": "x"}})
    await ledger.finish(claimed, Outcome.succeeded(result), 0)
    assert await ledger.result(claimed.job.id) == result


async def test_admission_takes_the_next_backend_at_the_mark_and_refuses_at_the_last(
    ledger: RedisLedger,
) -> None:
    first = [await admit(ledger, "a", "b", mark=2) for _ in range(4)]
    assert [job.backend for job in first] == ["a", "a", "b", "b"]
    assert first[2].reason == "overflow:depth"
    assert first[2].skipped == ("a: overflow:depth", "elsewhere: model-not-served")
    with pytest.raises(QueueFull):
        await admit(ledger, "a", "b", mark=2)


async def test_the_mark_holds_under_concurrent_admission(ledger: RedisLedger) -> None:
    outcomes = await asyncio.gather(*(admit(ledger, "a", mark=7) for _ in range(100)), return_exceptions=True)
    assert sum(isinstance(outcome, Job) for outcome in outcomes) == 7
    assert sum(isinstance(outcome, QueueFull) for outcome in outcomes) == 93


async def test_the_same_id_is_admitted_once(ledger: RedisLedger, clean_redis: RedisProcess) -> None:
    job_id = new_job_id()
    jobs = await asyncio.gather(*(ledger.admit(job_id, request(), decision("a")) for _ in range(5)))
    assert len({job.created_at for job in jobs}) == 1
    assert clean_redis.client.llen("k9.local.a.interactive") == 1
    with pytest.raises(IdempotencyConflict):
        await ledger.admit(job_id, request("other"), decision("a"))
    assert await ledger.find(job_id, request()) == jobs[0]
    assert await ledger.find("job-unknown", request()) is None
    with pytest.raises(IdempotencyConflict):
        await ledger.find(job_id, request("other"))


async def test_one_of_many_claims_wins(ledger: RedisLedger) -> None:
    job = await admit(ledger)
    claims = await asyncio.gather(*(ledger.claim(job.id, 1, f"w{i}", Kind.LOCAL) for i in range(20)))
    assert sum(one is not None for one in claims) == 1


async def test_a_superseded_generation_is_not_claimed(ledger: RedisLedger) -> None:
    job = await admit(ledger)
    assert await ledger.claim(job.id, 2, "w", Kind.LOCAL) is None
    assert await ledger.claim("job-unknown", 1, "w", Kind.LOCAL) is None


async def test_a_cancelled_job_never_runs_and_a_running_one_is_fenced(ledger: RedisLedger) -> None:
    queued = await admit(ledger)
    assert (await ledger.cancel(queued.id)).state is JobState.CANCELLED
    assert await ledger.claim(queued.id, 1, "w", Kind.LOCAL) is None
    claimed = await claim(ledger, await admit(ledger))
    await ledger.cancel(claimed.job.id)
    assert await ledger.renew([claimed]) == [claimed.job.id]
    assert not await ledger.finish(claimed, Outcome.succeeded(Result("m")), 0)
    with pytest.raises(JobCancelled):
        await ledger.result(claimed.job.id)
    with pytest.raises(JobNotFound):
        await ledger.cancel("job-unknown")


async def test_cancelling_an_ended_job_changes_nothing(ledger: RedisLedger) -> None:
    claimed = await claim(ledger, await admit(ledger))
    await ledger.finish(claimed, Outcome.succeeded(Result("m")), 0)
    assert (await ledger.cancel(claimed.job.id)).state is JobState.SUCCEEDED


async def test_finish_may_be_repeated_and_records_once(ledger: RedisLedger) -> None:
    claimed = await claim(ledger, await admit(ledger))
    outcome = Outcome.failed(BackendUnreachable())
    assert await ledger.finish(claimed, outcome, 0)
    assert await ledger.finish(claimed, outcome, 0)
    with pytest.raises(BackendUnreachable):
        await ledger.result(claimed.job.id)


async def test_a_handed_back_job_goes_to_the_front_under_the_next_generation(
    ledger: RedisLedger, clean_redis: RedisProcess
) -> None:
    first, second = await admit(ledger), await admit(ledger)
    claimed = await claim(ledger, first)
    clean_redis.client.rpop("k9.local.a.interactive")
    assert await ledger.hand_back(claimed)
    assert not await ledger.hand_back(claimed)
    message = json.loads(clean_redis.client.lindex("k9.local.a.interactive", -1))
    assert message["properties"]["delivery_tag"].startswith(f"{first.id}:2:")
    assert not await ledger.finish(claimed, Outcome.succeeded(Result("m")), 0)
    again = await ledger.claim(first.id, 2, "w", Kind.LOCAL)
    assert again is not None
    assert again.job.attempts == 1
    assert second.generation == 1


async def test_an_expired_job_is_not_run(ledger: RedisLedger) -> None:
    job = await admit(ledger, deadline=0.01)
    await asyncio.sleep(0.02)  # the deadline is an instant of the server's clock
    assert await ledger.claim(job.id, 1, "w", Kind.LOCAL) is None
    with pytest.raises(JobExpired):
        await ledger.result(job.id)


# -- the reaper -----------------------------------------------------------------------------------


@pytest.fixture
async def reaper(commands: Commands, ledger: RedisLedger, fleet: RedisFleet) -> Reaper:
    await fleet.announce(
        Announcement(
            node="k9-a@here", backend="a", kind=Kind.LOCAL, dialect="fake", models=("m",),
            operations=tuple(Operation), slots=4, max_waiting=10, max_waiting_batch=10,
        )
    )  # fmt: skip
    return Reaper(commands, ledger, fleet, lease_seconds=JOBS.lease_seconds)


async def sweep_until(reaper: Reaper, what: str, seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not (await reaper.sweep())[what]:
            await asyncio.sleep(0.05)


async def test_the_job_of_a_dead_worker_is_brought_back_and_in_the_end_a_dead_letter(
    ledger: RedisLedger, reaper: Reaper
) -> None:
    job = await admit(ledger)
    for generation in range(1, JOBS.max_attempts + 1):
        claimed = await ledger.claim(job.id, generation, "w", Kind.LOCAL)
        assert claimed is not None
        assert (await reaper.sweep())["requeued"] == 0  # its lease still runs
        last = generation == JOBS.max_attempts
        await sweep_until(reaper, "dead" if last else "requeued")
        assert not await ledger.finish(claimed, Outcome.succeeded(Result("m")), 0)
    assert (await ledger.get(job.id)).state is JobState.DEAD
    with pytest.raises(WorkerLost):
        await ledger.result(job.id)


async def test_a_renewed_lease_is_left_alone(ledger: RedisLedger, reaper: Reaper) -> None:
    claimed = await claim(ledger, await admit(ledger))
    for _ in range(6):
        await asyncio.sleep(JOBS.lease_seconds / 4)
        assert await ledger.renew([claimed]) == []
        assert (await reaper.sweep())["requeued"] == 0
    assert await ledger.finish(claimed, Outcome.succeeded(Result("m")), 0)


async def test_a_lost_message_is_sent_again_and_waiting_ones_are_not(
    ledger: RedisLedger, reaper: Reaper, clean_redis: RedisProcess
) -> None:
    lost, waiting = await admit(ledger), await admit(ledger)
    assert lost.id in clean_redis.client.rpop("k9.local.a.interactive").decode()
    await sweep_until(reaper, "requeued")
    assert (await ledger.get(lost.id)).generation == 2
    assert (await ledger.get(waiting.id)).generation == 1
    assert clean_redis.client.llen("k9.local.a.interactive") == 2


async def test_the_reaper_expires_what_waits_past_its_deadline(ledger: RedisLedger, reaper: Reaper) -> None:
    job = await admit(ledger, deadline=0.05)
    await sweep_until(reaper, "expired")
    assert (await ledger.get(job.id)).state is JobState.EXPIRED


async def test_ended_jobs_are_counted_once(ledger: RedisLedger, fleet: RedisFleet) -> None:
    claimed = await claim(ledger, await admit(ledger))
    for _ in range(2):
        await ledger.finish(claimed, Outcome.succeeded(Result("m")), 0)
    await ledger.cancel((await admit(ledger)).id)
    assert await fleet.ended() == {
        ("a", Operation.CHAT, JobState.SUCCEEDED): 1,
        ("a", Operation.CHAT, JobState.CANCELLED): 1,
    }


# -- tidy and quiet -------------------------------------------------------------------------------


async def test_every_key_has_a_life_time_or_a_reason(
    ledger: RedisLedger, fleet: RedisFleet, reaper: Reaper, clean_redis: RedisProcess
) -> None:
    ended = await claim(ledger, await admit(ledger))
    await ledger.finish(ended, Outcome.succeeded(Result("m")), 0)
    await claim(ledger, await admit(ledger))
    await admit(ledger)
    found = {key.decode(): clean_redis.client.ttl(key) for key in clean_redis.client.scan_iter()}
    day = 24 * 3600  # money and usage are kept long, not for ever
    assert 39 * day < found[keys.spent("default", await ledger._today())] <= 40 * day
    assert 399 * day < found[keys.usage("default", await ledger._today())] <= 400 * day
    eternal = {key for key, seconds in found.items() if seconds == -1}
    queues = {queue_name(Kind.LOCAL, "a", priority) for priority in Priority}
    unexplained = {
        key for key in eternal - queues if not any(key.startswith(known) for known in keys.PERMANENT)
    }
    assert not unexplained


async def test_the_prompt_is_in_the_record_only_and_leaves_it_with_success(
    ledger: RedisLedger, clean_redis: RedisProcess
) -> None:
    claimed = await claim(ledger, await admit(ledger))
    await admit(ledger)
    for message in clean_redis.client.lrange("k9.local.a.interactive", 0, -1):
        assert SECRET.encode() not in message
    await ledger.finish(claimed, Outcome.succeeded(Result("m")), 0)
    assert not clean_redis.client.hexists(keys.job(claimed.job.id), "request")


async def test_indexes_are_empty_when_all_jobs_have_ended(
    ledger: RedisLedger, clean_redis: RedisProcess
) -> None:
    jobs = [await admit(ledger) for _ in range(3)]
    await ledger.cancel(jobs[0].id)
    await ledger.finish(await claim(ledger, jobs[1]), Outcome.succeeded(Result("m")), 0)
    await ledger.cancel((await claim(ledger, jobs[2])).job.id)
    client = clean_redis.client
    wait_until(lambda: not client.exists(keys.DEADLINES), "deadlines are empty", 1)
    assert not client.exists(keys.leases("a"), keys.waiting("k9.local.a.interactive"))
