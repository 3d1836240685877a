"""A worker's runtime on a real Redis: which of its calls it ends, and that its duties outlive surprises."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence

import pytest

from k9_broker.adapters.redis_ledger import RedisLedger
from k9_broker.backends import Backend
from k9_broker.errors import BackendRateLimited
from k9_broker.health import InstanceHealth
from k9_broker.jobs import JobState
from k9_broker.models import ModelCard
from k9_broker.requests import InferenceRequest
from k9_broker.results import Chunk, Result
from k9_workers.execute import execute
from k9_workers.runtime import Runtime
from stand import JOBS, RedisProcess
from walks import admit, chat


class Talker:
    """A backend that streams a chunk every few milliseconds; the first call never stops."""

    calls = 0

    def spare(self, model: str) -> bool:
        return False

    async def models(self) -> Mapping[str, ModelCard]:
        return {"m": ModelCard()}

    def health(self) -> Sequence[InstanceHealth]:
        return ()

    async def watch(self) -> None:
        await asyncio.Event().wait()

    def reset(self) -> None:
        pass

    async def call(self, request: InferenceRequest) -> Result:
        raise NotImplementedError

    async def stream(self, request: InferenceRequest) -> AsyncGenerator[Chunk, None]:
        self.calls += 1
        left = 50 if self.calls > 1 else 100_000
        while left := left - 1:
            yield {"choices": [{"delta": {"content": "word "}}]}
            await asyncio.sleep(0.005)

    async def close(self) -> None:
        pass


@pytest.fixture
async def runtime(clean_redis: RedisProcess) -> AsyncIterator[Runtime]:
    backend = Backend.model_validate({"name": "a", "dialect": "fake", "url": "http://127.0.0.1:1"})
    runtime = Runtime(
        backend=backend, order=0, node="n", caller=Talker(), redis_url=clean_redis.url, jobs=JOBS
    )
    yield runtime
    await runtime.close()


async def test_a_worker_that_is_given_its_lost_job_again_ends_the_old_call_only(
    runtime: Runtime, ledger: RedisLedger, clean_redis: RedisProcess
) -> None:
    await runtime.start()
    job = await admit(ledger, chat(stream=True))
    async with asyncio.timeout(10):
        first = asyncio.create_task(execute(runtime, job.id, 1))
        while clean_redis.client.hget(f"k9:job:{job.id}", "relayed") in (None, b"0"):
            await asyncio.sleep(0.01)
        clean_redis.client.zadd("k9:leases:a", {job.id: 0})
        assert await ledger.requeue_orphan(await ledger.get(job.id)) == "requeued"
        second = asyncio.create_task(execute(runtime, job.id, 2))
        assert (await second)["state"] == "succeeded"
        assert (await first)["taken"]
    assert (await ledger.get(job.id)).state is JobState.SUCCEEDED


async def test_leases_are_renewed_again_after_a_surprise(
    runtime: Runtime, ledger: RedisLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asyncio.Event()
    broken = True

    async def renew(claims: object) -> list[str]:
        nonlocal broken
        if broken:
            broken = False
            raise RuntimeError("as told")
        asked.set()
        return []

    monkeypatch.setattr(runtime.ledger, "renew", renew)
    await runtime.start()
    working = asyncio.create_task(execute(runtime, (await admit(ledger, chat(stream=True))).id, 1))
    async with asyncio.timeout(10):
        await asked.wait()
    working.cancel()
    await asyncio.wait([working])


async def test_a_rate_limit_is_not_asked_again_and_again_because_another_instance_is_fit(
    runtime: Runtime, ledger: RedisLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime.caller, "spare", lambda model: True)
    turns = 0

    async def turn(tokens: int, patience: float, **_: float) -> None:
        nonlocal turns
        turns += 1
        raise BackendRateLimited(retry_after=30)

    monkeypatch.setattr(runtime.pacing, "turn", turn)
    async with asyncio.timeout(5):
        assert (await execute(runtime, (await admit(ledger)).id, 1))["state"] == "failed"
    assert turns == 1
