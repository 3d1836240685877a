"""What must not grow: with the depth of a queue, with the size of a fleet, with the length of a batch.

By Redis' own count of its time, by counts and by bytes; `benchmarks/scale.py` has the figures.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from statistics import mean

import psutil
import pytest

from k9_broker.adapters import keys
from k9_broker.backends import Announcement
from k9_broker.jobs import new_job_id
from k9_broker.policy import Policy
from k9_broker.requests import InferenceRequest, Operation, Priority
from k9_broker.snapshot import BackendView
from k9_broker.strategy.engine import Router
from stack import Stack
from walks import announced, chat

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

import scale_batch
import scale_depth
import scale_fleet
import scale_ground
from embed_batch import write_lines
from scale_ground import TENANT, Store, decided, fill, line

DEEP = 5_000
MB = 2**20


@pytest.fixture
async def here() -> AsyncIterator[Store]:
    async with scale_ground.store() as opened:
        yield opened


@pytest.fixture
async def empty() -> AsyncIterator[Store]:
    async with scale_ground.store() as opened:
        yield opened


async def test_a_job_costs_redis_the_same_however_many_wait_before_it(here: Store, empty: Store) -> None:
    await fill(here, DEEP)
    assert here.client.zcard(keys.waiting(scale_ground.queue())) == DEEP
    deep, shallow = scale_depth.Costs(), scale_depth.Costs()
    for _ in range(12):
        await deep.round(here, (TENANT,), Priority.BATCH)
        await shallow.round(empty, (TENANT,), Priority.BATCH)
    assert here.client.llen(scale_ground.queue()) == DEEP
    assert deep.ratio(shallow) < 2


@pytest.mark.parametrize(("lines", "jobs", "most"), [(1, 500, 5_000), (256, 100, 120)])
async def test_what_a_waiting_line_takes_of_redis(here: Store, lines: int, jobs: int, most: int) -> None:
    """`most`: bytes for each line."""
    asked = line(lines=lines)
    await here.ledger.admit(new_job_id(), asked, decided())
    before = here.memory
    for _ in range(jobs):
        await here.ledger.admit(new_job_id(), asked, decided())
    assert (here.memory - before) / (jobs * lines) < most


async def test_whoever_comes_to_a_queue_full_of_anothers_jobs_costs_little_more(
    here: Store, empty: Store
) -> None:
    await fill(here, 4 * DEEP)
    ratios = []
    for _ in range(3):  # what else the machine does is in a figure, but hardly in all
        light, alone = await scale_depth.beside_light(here, empty, 24, 0.0)
        ratios.append(light.admit.microseconds / alone.admit.microseconds)
    assert min(ratios) < 6


async def test_a_sweep_asks_for_no_more_when_many_jobs_wait(here: Store) -> None:
    reaper, counted = scale_fleet.sweeper(here)
    await asyncio.gather(*map(here.fleet.announce, scale_fleet.announcements(10)))
    await reaper.sweep()  # the first sets its clock
    asked = []
    for waiting in (1, DEEP):
        await fill(here, waiting)
        await asyncio.sleep(0.1)  # a snapshot of its own
        before = counted.asked
        assert not any((await reaper.sweep()).values())
        asked.append(counted.asked - before)
    await counted.close()
    assert asked[1] <= asked[0] < 20


async def test_a_decision_over_a_hundred_backends_stays_small_in_its_record(here: Store) -> None:
    await asyncio.gather(*map(here.fleet.announce, scale_fleet.announcements(100)))
    snapshot = await here.fleet.snapshot(fresh=True)
    body = {"model": "auto", "messages": [{"role": "user", "content": "hello"}]}
    asked = InferenceRequest(Operation.CHAT, "auto", body)
    decision = Router(Policy()).decide(asked, snapshot)
    assert len(decision.candidates) == 100 * scale_fleet.MODELS
    job = await here.ledger.admit(new_job_id(), asked, decision)
    _, explained = await here.ledger.explanation(job.id)
    assert len(explained["candidates"]) == len(decision.candidates)
    assert here.client.hstrlen(keys.job(job.id), "decision") < 8_192


async def test_nothing_is_kept_of_what_workers_have_said_before(here: Store) -> None:
    """A worker says something new every few seconds, for months; with hundreds of models that is long."""
    router = Router(Policy())
    for number in range(50):
        await here.fleet.announce(announced("talkative", service_seconds=float(number)))
        snapshot = await here.fleet.snapshot(fresh=True)
        assert snapshot.backends[0].service_seconds == number
        assert router.decide(chat(), snapshot).candidates
    del snapshot
    gc.collect()
    everything = gc.get_objects()
    assert sum(isinstance(one, Announcement) and one.node == "k9-talkative@here" for one in everything) < 5
    assert sum(isinstance(one, BackendView) and one.name == "talkative" for one in everything) < 5


async def test_a_snapshot_shows_new_depths_and_keeps_what_was_announced(here: Store) -> None:
    await here.fleet.announce(announced("a"))
    before = (await here.fleet.snapshot(fresh=True)).backends[0]
    here.client.zadd(keys.waiting("k9.local.a.batch"), {"job-1": 1, "job-2": 2})
    here.client.zadd(keys.leases("a"), {"job-3": 1e12})
    after = (await here.fleet.snapshot(fresh=True)).backends[0]
    assert (before.waiting[Priority.BATCH], before.in_flight) == (0, 0)
    assert (after.waiting[Priority.BATCH], after.in_flight) == (2, 1)
    assert after.models is before.models
    await here.fleet.withdraw("k9-a@here")
    gone = (await here.fleet.snapshot(fresh=True)).backends[0]
    assert (gone.workers, gone.waiting[Priority.BATCH]) == (0, 2)


def test_the_api_does_not_grow_with_a_batch(stack: Stack, tmp_path: Path) -> None:
    stack.fake.reset()
    assert stack.api is not None
    assert stack.api.process is not None
    process = psutil.Process(stack.api.process.pid)
    stack.fake.behave(latency_ms=1, dimensions=8)
    try:
        sizes = []
        for lines in (5_000, 50_000):
            source = write_lines(tmp_path / f"{lines}.jsonl", lines)
            watch, _ = scale_batch.embed(stack, source, tmp_path / f"{lines}.npy", lines)
            sizes.append(mean(watch.seen["API"][-3:]) if "API" in watch.seen else process.memory_info().rss)
    finally:
        stack.fake.reset()
    assert sizes[1] - sizes[0] < 20 * MB
