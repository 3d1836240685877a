"""What the simulator has in memory is what the product does: queues as in Redis, workers' rules and times."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from k9_broker.adapters import keys, moving_late, reaper, redis_fleet
from k9_broker.adapters.connect import Commands
from k9_broker.adapters.redis_ledger import RedisLedger
from k9_broker.jobs import Job, new_job_id
from k9_broker.naming import queue_name
from k9_broker.requests import Kind, Priority
from k9_broker.simulation import deciding, late, servers, world
from k9_broker.simulation.calls import Call
from k9_broker.simulation.queues import TurnQueue
from k9_workers import announcing
from walks import candidate, chat, claim, decided, succeed

QUEUE = queue_name(Kind.LOCAL, "a", Priority.INTERACTIVE)
WEIGHTS = {"one": 1.0, "half": 0.5, "three": 3.0}
STEPS = 120


@pytest.mark.parametrize("seed", range(4))
async def test_a_queue_is_shared_as_in_redis(ledger: RedisLedger, commands: Commands, seed: int) -> None:
    """Jobs of three tenants come, run and are cancelled; after each step both queues are the same."""
    draw, ours = Random(seed), TurnQueue()
    jobs: dict[str, tuple[Job, Call]] = {}
    for _ in range(STEPS):
        what = draw.choices(("comes", "begins", "is cancelled"), (6, 3, 1))[0]
        if what == "comes":
            tenant = draw.choice(list(WEIGHTS))
            busy = draw.choice((0.25, 1.0, 1.5, 20.0))
            request = replace(chat(), tenant=tenant)
            decision = decided(candidate(seconds=busy), weight=WEIGHTS[tenant], shared=True, removals=())
            job = await ledger.admit(new_job_id(), request, decision)
            call = Call("t", request, WEIGHTS[tenant])
            ours.take_turn(call, busy)
            jobs[job.id] = job, call
        elif what == "begins" and (call := ours.take()) is not None:
            job = next(job for job, one in jobs.values() if one is call)
            claimed = await claim(ledger, job)
            del jobs[job.id]
            await commands.command("HSET", keys.job(job.id), "started_at", "9e12")  # it takes no time
            await succeed(ledger, claimed)
            ours.settle(call, 0.0)
        elif what == "is cancelled" and jobs:
            job, call = draw.choice(list(jobs.values()))
            await ledger.cancel(job.id)
            ours.leave(call)
            del jobs[job.id]
        order = await commands.command("ZRANGE", keys.waiting(QUEUE), 0, -1)
        of = {id(call): name for name, (_, call) in jobs.items()}
        same = [(jobs[name.decode()][1].number, jobs[name.decode()][1].tenant) for name in order]
        assert same == [(call.number, call.tenant) for call in ours]
        assert len(of) == len(ours)
        for tenant in WEIGHTS:
            found = (await ledger.gauges(tenant, decided(candidate())))[QUEUE]
            assert (found.waiting, found.ahead, found.own) == (
                len(ours),
                ours.ahead(tenant),
                ours.own(tenant),
            )


def test_times_are_the_products() -> None:
    assert world.ANNOUNCE_EVERY == redis_fleet.ANNOUNCE_EVERY
    assert world.SWEEP_EVERY == reaper.SWEEP_EVERY
    assert world.LOOK_EVERY == announcing.LOOK_EVERY
    assert servers.MOVED == announcing.MOVED
    assert deciding.FRESH == redis_fleet._FRESH
    assert (late._PAGE, late._SOON) == (moving_late._PAGE, moving_late._SOON)
