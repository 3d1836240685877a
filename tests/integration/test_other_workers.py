"""A worker that can call no instance leaves its jobs to the other workers of its backend."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence

import pytest

from k9_broker.adapters.redis_fleet import RedisFleet
from k9_broker.adapters.redis_ledger import RedisLedger
from k9_broker.backends import Announcement, Backend
from k9_broker.errors import BackendUnreachable, CircuitOpen, K9Error
from k9_broker.health import CircuitState, InstanceHealth
from k9_broker.jobs import JobState, new_job_id
from k9_broker.models import ModelCard
from k9_broker.requests import InferenceRequest, Kind, Operation
from k9_broker.results import Chunk, Result
from k9_workers.execute import OTHER_WORKERS, execute
from k9_workers.runtime import Runtime
from stand import JOBS, RedisProcess
from walks import candidate, chat, decided

OUT, OPEN, CLOSED, HALF_OPEN = (
    CircuitState.OUT,
    CircuitState.OPEN,
    CircuitState.CLOSED,
    CircuitState.HALF_OPEN,
)


class Ill:
    """A backend whose one instance fails every call."""

    state = OPEN
    error: K9Error = CircuitOpen(retry_after=30)

    async def models(self) -> Mapping[str, ModelCard]:
        return {"m": ModelCard()}

    def health(self) -> Sequence[InstanceHealth]:
        return (InstanceHealth(name="x", state=self.state),)

    def spare(self, model: str) -> bool:
        return False

    async def watch(self) -> None:
        await asyncio.Event().wait()

    def reset(self) -> None:
        pass

    async def call(self, request: InferenceRequest) -> Result:
        raise self.error

    def stream(self, request: InferenceRequest) -> AsyncGenerator[Chunk, None]:
        raise NotImplementedError

    async def close(self) -> None:
        pass


@pytest.fixture
async def runtime(clean_redis: RedisProcess) -> AsyncIterator[Runtime]:
    backend = Backend.model_validate({"name": "a", "dialect": "fake", "url": "http://127.0.0.1:1"})
    runtime = Runtime(
        backend=backend, order=0, node="here", caller=Ill(), redis_url=clean_redis.url, jobs=JOBS
    )
    yield runtime
    await runtime.close()


def worker(node: str, state: CircuitState = CLOSED) -> Announcement:
    return Announcement(
        node=node, backend="a", kind=Kind.LOCAL, dialect="fake", models=("m",), operations=tuple(Operation),
        slots=2, max_waiting=1, max_waiting_batch=1, instances=(InstanceHealth(name="x", state=state),),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("error", "state"),
    [(CircuitOpen(retry_after=30), OPEN), (CircuitOpen(retry_after=0.5), HALF_OPEN), (CircuitOpen(), OUT)],
    ids=["open", "half-open", "out"],
)  # fmt: skip
async def test_its_jobs_go_on_to_another_worker(
    runtime: Runtime, ledger: RedisLedger, fleet: RedisFleet, error: K9Error, state: CircuitState
) -> None:
    ill = runtime.caller
    assert isinstance(ill, Ill)
    ill.error, ill.state = error, state
    aside: list[bool] = []
    runtime.on_aside = aside.append
    for one in (worker("here", state), worker("there")):
        await fleet.announce(one)
    job, _ = [
        await ledger.admit(new_job_id(), chat(), decided(candidate("a"), removals=())) for _ in range(2)
    ]  # the other one fills its queue
    assert await execute(runtime, job.id, 1) == {"backend": "a", "rerouted": "a"}
    waits = await ledger.get(job.id)
    assert (waits.state, waits.generation, waits.tried) == (JobState.QUEUED, 2, ())
    assert aside == ([] if state is HALF_OPEN else [True]), "one whose turn it is to be tried takes a job"
    # Not for ever: whoever announced that it is well may not be.
    for generation in range(2, OTHER_WORKERS + 1):
        assert (await execute(runtime, job.id, generation)).get("rerouted") == "a"
    assert (await ledger.get(job.id)).skipped == (f"a: failed:{error.code}",) * OTHER_WORKERS


async def test_one_that_is_alone_takes_its_jobs_itself(
    runtime: Runtime, ledger: RedisLedger, fleet: RedisFleet
) -> None:
    aside: list[bool] = []
    runtime.on_aside = aside.append
    for one in (worker("here", OPEN), worker("there", OPEN)):
        await fleet.announce(one)
    job = await ledger.admit(new_job_id(), chat(), decided(candidate("a"), removals=()))
    assert (await execute(runtime, job.id, 1))["state"] == "failed"
    assert aside == []


async def test_it_takes_jobs_again_when_it_is_well_or_alone(runtime: Runtime, fleet: RedisFleet) -> None:
    ill = runtime.caller
    assert isinstance(ill, Ill)
    aside: list[bool] = []
    runtime.on_aside = aside.append
    await fleet.announce(worker("there"))
    alone = await fleet.snapshot(fresh=True)
    assert runtime.leaves_it_to_others(alone)
    ill.state = CLOSED
    assert not runtime.leaves_it_to_others(alone)
    ill.state, ill.error = OPEN, BackendUnreachable()
    runtime.leaves_it_to_others(alone)
    await fleet.withdraw("there")
    assert not runtime.leaves_it_to_others(await fleet.snapshot(fresh=True))
    assert aside == [True, False, True, False]
