"""The index of dead letters on a real Redis; each is replayed once, or dropped once, whoever asks."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from k9_broker.adapters import keys, redis_dead
from k9_broker.adapters.connect import Commands
from k9_broker.adapters.redis_dead import RedisDeadLetters
from k9_broker.adapters.redis_ledger import RedisLedger
from k9_broker.dead_letters import NoDeadLetter, Wanted, search
from k9_broker.errors import (
    BackendUnreachable,
    BadRequest,
    JobNotFound,
    K9Error,
    PrivacyRefused,
)
from k9_broker.jobs import JobState, new_job_id
from k9_broker.requests import Kind
from k9_broker.results import Outcome, Result
from letters import CLOUD, HERE, dies, done, listed, loses_its_workers, replayed, same
from stand import JOBS, RedisProcess
from walks import candidate, chat, claim, decided, succeed

RETENTION = JOBS.retention_seconds


@pytest.fixture
def letters(commands: Commands) -> RedisDeadLetters:
    return RedisDeadLetters(commands, JOBS)


# -- which there are ------------------------------------------------------------------------------


async def test_a_job_whose_workers_died_is_listed_and_shown(
    ledger: RedisLedger, letters: RedisDeadLetters, clean_redis: RedisProcess
) -> None:
    job = await loses_its_workers(ledger, clean_redis)
    (letter,) = (await letters.page()).letters
    assert (letter.id, letter.backend, letter.model, letter.tenant) == (job.id, "a", "m", "default")
    assert (letter.attempts, letter.error.code, letter.ended_at) == (3, "worker_lost", job.ended_at)
    assert await listed(letters) == 1
    shown, explained = await letters.show(job.id)
    assert (same(shown), explained["candidates"][0]["backend"]) == (same(job), "a")
    assert await letters.request(job.id) == chat()


@pytest.mark.parametrize(
    ("error", "blameless"),
    [(BackendUnreachable(), True), (K9Error(), True), (BadRequest("no"), False), (PrivacyRefused(), False)],
)
async def test_a_failure_is_a_dead_letter_unless_its_caller_is_to_blame(
    ledger: RedisLedger, letters: RedisDeadLetters, error: K9Error, blameless: bool
) -> None:
    job = await dies(ledger, error=error)
    assert await listed(letters) == blameless
    if blameless:
        assert same((await letters.show(job.id))[0]) == same(job)
        return
    for act in letters.show, letters.drop:
        with pytest.raises(NoDeadLetter):
            await act(job.id)


async def test_what_was_cancelled_or_succeeded_is_none(
    ledger: RedisLedger, letters: RedisDeadLetters
) -> None:
    cancelled, done = [await ledger.admit(new_job_id(), chat(), decided(HERE)) for _ in range(2)]
    await ledger.cancel(cancelled.id)
    await succeed(ledger, await claim(ledger, done))
    assert await listed(letters) == 0
    for job in cancelled, done:
        with pytest.raises(NoDeadLetter):
            await letters.drop(job.id)
        assert await ledger.get(job.id)


async def test_those_that_are_wanted_come_newest_first_however_many_pages_they_fill(
    ledger: RedisLedger, letters: RedisDeadLetters, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_dead, "_PAGE", 3)
    jobs = [
        await dies(ledger, place=candidate("ab"[i % 2]), request=replace(chat(), tenant=f"t{i % 3}"))
        for i in range(10)
    ]
    newest = [job.id for job in reversed(jobs)]

    async def found(most: int | None = None, **wanted: Any) -> list[str]:
        return [letter.id for letter in await search(letters, Wanted(**wanted), most)]

    assert await found() == newest
    assert await found(4) == newest[:4]
    assert await found(backend="b") == newest[::2]
    assert await found(tenant="t0", backend="a") == [jobs[6].id, jobs[0].id]
    assert await found(code="worker_lost") == []
    assert await found(code="backend_unreachable", since=jobs[5].ended_at) == newest[:5]


async def test_one_whose_record_is_gone_leaves_the_list(
    ledger: RedisLedger, letters: RedisDeadLetters, clean_redis: RedisProcess
) -> None:
    gone, there = [await dies(ledger) for _ in range(2)]
    clean_redis.client.delete(keys.job(gone.id))
    assert clean_redis.client.zcard(keys.DEAD) == 2
    assert [letter.id for letter in (await letters.page()).letters] == [there.id]
    assert clean_redis.client.zcard(keys.DEAD) == 1
    with pytest.raises(JobNotFound):
        await letters.show(gone.id)


# -- replayed -------------------------------------------------------------------------------------


async def test_a_replayed_job_is_as_new_under_its_own_id(
    ledger: RedisLedger, letters: RedisDeadLetters, clean_redis: RedisProcess
) -> None:
    dead = await loses_its_workers(ledger, clean_redis)
    other = candidate("b", model="other", reason="task-type:spare")
    job = await replayed(letters, dead, other)
    assert (job.id, job.state, job.generation) == (dead.id, JobState.QUEUED, dead.generation + 1)
    assert (job.backend, job.model, job.reason) == ("b", "other", "task-type:spare")
    assert (job.attempts, job.calls, job.tried, job.home, job.error, job.ended_at) == (
        0,
        0,
        (),
        "",
        None,
        None,
    )
    assert (job.worker, job.started_at, job.skipped) == (None, None, ("elsewhere: model-not-served",))
    assert job.deadline_at - job.created_at == pytest.approx(600)
    assert dead.ended_at is not None
    assert job.created_at >= dead.ended_at
    redis = clean_redis.client
    assert redis.zrange(keys.waiting(other.queue), 0, -1) == [job.id.encode()]
    assert redis.llen(other.queue) == 1
    assert redis.zscore(keys.DEADLINES, job.id) == pytest.approx(job.deadline_at, abs=1e-5)
    assert redis.ttl(keys.job(job.id)) == pytest.approx(600 + RETENTION, abs=2)
    assert redis.ttl(keys.relay(job.id)) == pytest.approx(600 + RETENTION, abs=2)
    assert await listed(letters) == 0
    for generation in range(1, job.generation):
        assert await ledger.claim(job.id, generation, "w", Kind.LOCAL) is None
    claimed = await claim(ledger, job)
    assert (claimed.request.model, claimed.job.attempts) == ("other", 1)
    await succeed(ledger, claimed)
    assert await ledger.result(dead.id) == Result("m")
    assert await ledger.find(dead.id, chat()), "its Idempotency-Key still finds it"


async def test_it_may_die_again_and_be_replayed_again(ledger: RedisLedger, letters: RedisDeadLetters) -> None:
    job = await dies(ledger)
    for generation in (2, 3):
        job = await replayed(letters, job)
        assert job.generation == generation
        claimed = await claim(ledger, job)
        await ledger.finish(claimed, Outcome.failed(BackendUnreachable()), 0)
        job = await ledger.get(job.id)
        assert await listed(letters) == 1


async def test_of_many_who_replay_or_drop_it_one_wins(
    ledger: RedisLedger, letters: RedisDeadLetters, clean_redis: RedisProcess
) -> None:
    winners: Counter[str] = Counter()
    for turn in range(12):
        dead = await dies(ledger, place=CLOUD, budget=10_000)
        clean_redis.client.delete(CLOUD.queue)  # the message of the run that failed
        acts = [replayed(letters, dead, CLOUD, budget=10_000) for _ in range(5)]
        acts.insert(turn % 6, letters.drop(dead.id))  # type: ignore[arg-type]
        said = await asyncio.gather(*acts, return_exceptions=True)
        lost = [one for one in said if isinstance(one, NoDeadLetter | JobNotFound)]
        assert len(lost) == 5, said
        won = next(one for one in said if one not in lost)
        if won is None:
            winners["drop"] += 1
            assert not clean_redis.client.exists(keys.job(dead.id), keys.relay(dead.id))
            assert await ledger.spent("default") == 0
            continue
        winners["replay"] += 1
        assert await ledger.spent("default") == 100, "reserved once"
        assert (
            clean_redis.client.llen(CLOUD.queue) == clean_redis.client.zcard(keys.waiting(CLOUD.queue)) == 1
        )
        await ledger.finish(await claim(ledger, await ledger.get(dead.id), Kind.CLOUD), done(), 0)
        assert await ledger.claim(dead.id, 2, "w", Kind.CLOUD) is None
    assert winners["replay"], winners


async def test_one_that_expires_meanwhile_is_not_brought_to_life(
    ledger: RedisLedger, letters: RedisDeadLetters, clean_redis: RedisProcess
) -> None:
    dead = await dies(ledger)
    request = await letters.request(dead.id)
    clean_redis.client.delete(keys.job(dead.id), keys.relay(dead.id), HERE.queue)
    with pytest.raises(JobNotFound):
        await letters.replay(dead, request, decided(HERE))
    assert not clean_redis.client.exists(keys.job(dead.id), keys.relay(dead.id), HERE.queue, keys.DEAD)
    with pytest.raises(JobNotFound):
        await letters.drop(dead.id)


async def test_a_worker_that_wakes_up_late_has_no_claim_on_it(
    ledger: RedisLedger, letters: RedisDeadLetters, clean_redis: RedisProcess
) -> None:
    job = await ledger.admit(new_job_id(), chat(), decided(HERE))
    for _ in range(JOBS.max_attempts):
        frozen = await claim(ledger, await ledger.get(job.id))
        clean_redis.client.zadd(keys.leases("a"), {job.id: 0})
        await ledger.requeue_orphan(frozen.job)
    again = await replayed(letters, await ledger.get(job.id))
    assert not await ledger.finish(frozen, Outcome.succeeded(Result("m")), 0)
    assert await ledger.renew([frozen]) == [job.id]
    assert (await ledger.get(job.id)).state is JobState.QUEUED
    await succeed(ledger, await claim(ledger, again))


# -- tidy -----------------------------------------------------------------------------------------


async def test_every_key_has_a_life_time_or_a_reason(
    ledger: RedisLedger, letters: RedisDeadLetters, clean_redis: RedisProcess
) -> None:
    kept, again, dropped = [await dies(ledger, place=CLOUD) for _ in range(3)]
    await replayed(letters, again, CLOUD)
    await letters.drop(dropped.id)
    redis = clean_redis.client
    assert not redis.exists(keys.job(dropped.id), keys.relay(dropped.id))
    assert redis.zrange(keys.DEAD, 0, -1) == [kept.id.encode()]
    assert 0 < redis.ttl(keys.DEAD) <= RETENTION
    eternal = {key.decode() for key in redis.scan_iter() if redis.ttl(key) == -1} - {CLOUD.queue}
    assert not [key for key in eternal if not any(key.startswith(known) for known in keys.PERMANENT)]
