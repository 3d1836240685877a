"""A worker trusts no wall clock of its own, and after a long silence asks before it calls."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence

import pytest

from k9_broker.adapters import keys
from k9_broker.adapters.redis_ledger import RedisLedger
from k9_broker.backends import Backend
from k9_broker.errors import BackendOverloaded
from k9_broker.health import InstanceHealth
from k9_broker.models import ModelCard
from k9_broker.requests import InferenceRequest
from k9_broker.results import Result
from k9_workers import execute as walk
from k9_workers.execute import execute
from k9_workers.runtime import Runtime
from stand import JOBS, RedisProcess
from walks import admit

A_DAY = 86400.0


class Once:
    """A backend that fails so many calls and then answers."""

    def __init__(self) -> None:
        self.calls = 0
        self.fails = 0

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
        self.calls += 1
        if self.calls <= self.fails:
            raise BackendOverloaded
        return Result("m")

    def stream(self, request: InferenceRequest) -> AsyncIterator[object]:
        raise NotImplementedError

    async def close(self) -> None:
        pass


@pytest.fixture
async def runtime(clean_redis: RedisProcess) -> AsyncIterator[Runtime]:
    backend = Backend.model_validate({"name": "a", "dialect": "fake", "url": "http://127.0.0.1:1"})
    runtime = Runtime(backend=backend, order=0, node="n", caller=Once(), redis_url=clean_redis.url, jobs=JOBS)
    yield runtime
    await runtime.close()


@pytest.mark.parametrize("skew", [-A_DAY, A_DAY], ids=["behind", "ahead"])
async def test_deadlines_are_redis_own(
    runtime: Runtime, ledger: RedisLedger, monkeypatch: pytest.MonkeyPatch, skew: float
) -> None:
    """A day ahead every deadline would have passed; a day behind none ever would."""
    here = time.time
    monkeypatch.setattr(time, "time", lambda: here() + skew)
    patience: list[float] = []

    async def turn(tokens: int, patient: float, **_: float) -> None:
        patience.append(patient)

    monkeypatch.setattr(runtime.pacing, "turn", turn)
    monkeypatch.setitem(walk.TURN, (job := await admit(ledger)).priority, 2 * A_DAY)
    runtime.caller.fails = 1
    assert (await execute(runtime, job.id, 1))["state"] == "succeeded"
    allowed = job.deadline_at - job.created_at
    assert patience == pytest.approx([allowed] * 2, abs=2.0)


@pytest.mark.parametrize("another", [False, True], ids=["nobody took it", "another has it"])
async def test_who_was_frozen_before_the_call_asks_whether_the_job_is_still_its_own(
    runtime: Runtime, ledger: RedisLedger, monkeypatch: pytest.MonkeyPatch, another: bool
) -> None:
    job = await admit(ledger)

    async def frozen(tokens: int, patience: float, **_: float) -> None:
        await ledger._commands.command("ZADD", keys.leases("a"), 0, job.id)
        if another:
            assert await ledger.requeue_orphan(await ledger.get(job.id)) == "requeued"
        runtime._held[job.id].renewed -= JOBS.lease_seconds + 1

    monkeypatch.setattr(runtime.pacing, "turn", frozen)
    said = await execute(runtime, job.id, 1)
    assert runtime.caller.calls == (0 if another else 1)
    assert said == {"backend": "a", "taken": True} if another else said["state"] == "succeeded"
