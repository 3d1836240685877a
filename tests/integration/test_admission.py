"""Admission on a real Redis: whom the script takes and whom it never takes, whoever decided."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from k9_broker.adapters.connect import Commands, connect
from k9_broker.adapters.redis_ledger import RedisLedger
from k9_broker.adapters.redis_wake import RedisRelayReader
from k9_broker.errors import BudgetExhausted, K9Error, PrivacyRefused, QueueFull
from k9_broker.jobs import Job, JobState, new_job_id
from k9_broker.requests import InferenceRequest, Kind, Privacy
from k9_broker.strategy import admission
from k9_broker.strategy.decision import Decision
from stand import RedisProcess
from walks import candidate, chat, claim, decided, succeed

PRIVATE = {"privacy": Privacy.LOCAL_ONLY, "privacy_by": ("caller",)}
LOCAL = candidate("here", model="small")
CLOUD = candidate("away", Kind.CLOUD, model="large", cost=100)
UNPRICED = candidate("unpriced", Kind.CLOUD, model="large", cost=None)
FULL = candidate("full", mark=0)
FULL_CLOUD = candidate("away", Kind.CLOUD, mark=0, cost=100)
CLOUD_IN_A_LOCAL_QUEUE = candidate("away", Kind.CLOUD, queue="k9.local.away.interactive")
LOCAL_IN_A_CLOUD_QUEUE = candidate("here", queue="k9.cloud.here.interactive")
IN_NO_QUEUE_OF_OURS = candidate("here", queue="celery")
NOT_LOCAL, NO_ROOM = "privacy:local-only", "overflow:depth"
NO_MONEY, NO_PRICE = "budget:exhausted", "budget:unknown-price"


async def admit(ledger: RedisLedger, decision: Decision, request: InferenceRequest | None = None) -> Job:
    return await ledger.admit(new_job_id(), request or chat(), decision)


# -- whom it takes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("decision", "taken", "reason"),
    [
        (decided(LOCAL, CLOUD), "here", LOCAL.reason),
        (decided(CLOUD, LOCAL), "away", CLOUD.reason),
        (decided(FULL, LOCAL), "here", NO_ROOM),
        (decided(CLOUD, LOCAL, **PRIVATE), "here", NOT_LOCAL),
        (decided(CLOUD_IN_A_LOCAL_QUEUE, LOCAL, **PRIVATE), "here", NOT_LOCAL),
        (decided(LOCAL_IN_A_CLOUD_QUEUE, LOCAL, **PRIVATE), "here", NOT_LOCAL),
        (decided(IN_NO_QUEUE_OF_OURS, LOCAL, **PRIVATE), "here", NOT_LOCAL),
        (decided(FULL, CLOUD, LOCAL, **PRIVATE), "here", NO_ROOM),
        (decided(CLOUD, **PRIVATE), PrivacyRefused, NOT_LOCAL),
        (decided(CLOUD, budget=100, **PRIVATE), PrivacyRefused, NOT_LOCAL),
        (decided(CLOUD, FULL, **PRIVATE), QueueFull, NOT_LOCAL),
        (decided(FULL), QueueFull, NO_ROOM),
        (decided(CLOUD, budget=100), "away", CLOUD.reason),
        (decided(CLOUD, budget=99), BudgetExhausted, NO_MONEY),
        (decided(CLOUD, LOCAL, budget=99), "here", NO_MONEY),
        (decided(LOCAL, budget=0), "here", LOCAL.reason),
        (decided(CLOUD, FULL, budget=0), QueueFull, NO_MONEY),
        (decided(FULL, CLOUD, budget=0), QueueFull, NO_ROOM),
        (decided(UNPRICED), "unpriced", UNPRICED.reason),
        (decided(UNPRICED, budget=10**12), BudgetExhausted, NO_PRICE),
        (decided(UNPRICED, CLOUD, budget=10**12), "away", NO_PRICE),
        (decided(UNPRICED, LOCAL, budget=0), "here", NO_PRICE),
        (decided(FULL_CLOUD, budget=99), BudgetExhausted, NO_MONEY),
    ],
)
async def test_whom_it_takes_and_what_a_dry_run_says(
    ledger: RedisLedger,
    clean_redis: RedisProcess,
    decision: Decision,
    taken: str | type[K9Error],
    reason: str,
) -> None:
    gauges = await ledger.gauges("default", decision)
    dry = admission.choose(decision, chat(), gauges, await ledger.spent("default"))
    assert dry.reason == reason
    if isinstance(taken, type):
        with pytest.raises(taken):
            await admit(ledger, decision)
        assert dry.candidate is None
        assert not clean_redis.client.keys("k9:*")
        return
    job = await admit(ledger, decision)
    assert (job.backend, job.reason) == (taken, reason)
    assert dry.candidate is not None
    assert (dry.candidate.backend, dry.candidate.model, dry.candidate.cost) == (taken, job.model, job.cost)
    assert job.skipped == (*(f"{one.backend}: {why}" for one, why in dry.passed), REMOVED)
    assert job == await ledger.get(job.id)
    assert clean_redis.client.keys("k9.*") == [dry.candidate.queue.encode()]


REMOVED = "elsewhere: model-not-served"


async def test_what_was_asked_for_and_what_was_chosen_are_both_kept(ledger: RedisLedger) -> None:
    asked = replace(chat(), model="auto", body={**chat().body, "model": "auto"})
    job = await admit(ledger, decided(LOCAL), asked)
    assert (job.asked, job.model) == ("auto", "small")
    claimed = await claim(ledger, job)
    assert (claimed.request.model, claimed.request.body["model"]) == ("small", "small")


# -- the message ----------------------------------------------------------------------------------


def args_repr(redis: RedisProcess, queue: str) -> str:
    return str(json.loads(redis.client.lindex(queue, -1))["headers"]["argsrepr"])


@pytest.mark.parametrize(
    "model",
    [
        "llama3.1:8b", "org/model/v1", 'with "quotes"', "back\\slash", "模型-é-🦙", "tab\tand\nline", "123",
        "@K9-QUEUE@", "@K9-SEQUENCE@", "%s %d", "\x7f\x01", "nil",
    ],
)  # fmt: skip
async def test_the_message_names_the_model_whatever_it_is_called(
    ledger: RedisLedger, clean_redis: RedisProcess, model: str
) -> None:
    job = await admit(ledger, decided(candidate(model=model)))
    assert job.model == model == (await ledger.get(job.id)).model
    assert args_repr(clean_redis, "k9.local.a.interactive") == f"{model} chat"
    await succeed(ledger, await claim(ledger, job))
    assert [row.model for row in await ledger.usage("default", 1)] == [model]


# -- a claim by the wrong kind of worker ----------------------------------------------------------


@pytest.fixture
async def relay(commands: Commands, clean_redis: RedisProcess) -> AsyncIterator[RedisRelayReader]:
    reader = RedisRelayReader(connect(clean_redis.url, retries=0, connections=2), commands)
    reader.start()
    wait_for = f"k9:wake:{reader.waiter}".encode()
    async with asyncio.timeout(5):
        while wait_for not in clean_redis.client.pubsub_channels():
            await asyncio.sleep(0.01)
    yield reader
    await reader.close()


async def test_a_cloud_worker_never_gets_a_local_only_job_and_whoever_waits_hears_so(
    ledger: RedisLedger, relay: RedisRelayReader
) -> None:
    place = candidate("here", cost=9)
    free, private = decided(place), decided(place, **PRIVATE)
    assert await ledger.claim((await admit(ledger, free)).id, 1, "w", Kind.CLOUD) is not None
    job_id = new_job_id()
    async with asyncio.timeout(5), relay.follow(job_id) as follower:
        job = await ledger.admit(job_id, chat(), private, waiter=relay.waiter)
        assert job.privacy is Privacy.LOCAL_ONLY
        assert await ledger.claim(job_id, 1, "w", Kind.CLOUD) is None
        await follower.ended()
    ended = await ledger.get(job_id)
    assert (ended.state, ended.attempts) == (JobState.FAILED, 0)
    assert isinstance(ended.error, PrivacyRefused)
    assert ended.cost == 0
    assert await ledger.spent("default") == 9
    assert await ledger.claim(job_id, 1, "w", Kind.LOCAL) is None
