"""Whatever happens to jobs at once, each stands in one place and is paid for once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from random import Random

import pytest

from k9_broker.adapters import keys
from k9_broker.adapters.connect import Commands, connect
from k9_broker.adapters.redis_ledger import RedisLedger
from k9_broker.errors import BudgetExhausted, QueueFull
from k9_broker.jobs import Claim, Job, JobState, new_job_id
from k9_broker.naming import queue_name
from k9_broker.requests import Kind, Priority
from k9_broker.results import Outcome, Result
from stand import JOBS, RedisProcess
from walks import candidate, chat, decided

NAMES = ("a", "b", "c")
MARK = 4
BUDGET = 700


class Play:
    """Some jobs, and everybody who acts on them, each on old news now and then."""

    def __init__(self, seed: int, ledger: RedisLedger, redis: RedisProcess) -> None:
        self.rng = Random(seed)
        self.ledger = ledger
        self.redis = redis.client
        self.jobs: list[Job] = []
        self.claims: list[Claim] = []

    def places(self) -> list[object]:
        rng = self.rng
        return [
            candidate(name, mark=MARK, cost=rng.choice((0, 30, 90)))
            for name in rng.sample(NAMES, rng.randint(1, 3))
        ]

    async def admit(self) -> None:
        job_id, decision = new_job_id(), decided(*self.places(), budget=BUDGET, removals=())
        with suppress(QueueFull, BudgetExhausted):
            self.jobs.append(await self.ledger.admit(job_id, chat(), decision))

    async def claim(self, job: Job) -> None:
        job = await self.ledger.get(job.id)
        if claimed := await self.ledger.claim(job.id, job.generation, "w", Kind.LOCAL):
            self.claims.append(claimed)

    async def leave(self, claimed: Claim) -> None:
        calls, home = self.rng.randint(0, 3), self.rng.choice(("", claimed.job.backend))
        await self.ledger.reroute(
            claimed.job, self.places(), leaves="failed:x", calls=calls, token=claimed.token, home=home
        )

    async def move(self, job: Job) -> None:
        job = await self.ledger.get(job.id)
        await self.ledger.reroute(job, self.places(), leaves="x", calls=job.calls, home=job.home or "a")

    async def finish(self, claimed: Claim) -> None:
        await self.ledger.finish(claimed, Outcome.succeeded(Result("m")), self.rng.choice((0, 20, 99)))

    async def hand_back(self, claimed: Claim) -> None:
        await self.ledger.hand_back(claimed)

    async def die(self, job: Job) -> None:
        job = await self.ledger.get(job.id)
        self.redis.zadd(keys.leases(job.backend), {job.id: 0}, xx=True)
        await self.ledger.requeue_orphan(job)

    async def lose(self, job: Job) -> None:
        await self.ledger.requeue_lost(job)

    async def cancel(self, job: Job) -> None:
        await self.ledger.cancel(job.id)

    async def step(self) -> None:
        """A few of them at once, over few jobs, so that they meet."""
        on_jobs: list[Callable[[Job], Awaitable[None]]] = [self.claim, self.move, self.die, self.lose]
        on_claims: list[Callable[[Claim], Awaitable[None]]] = [self.leave, self.leave, self.hand_back]
        rng, acts = self.rng, []
        for _ in range(rng.randint(1, 6)):
            if not self.jobs or rng.random() < 0.2:
                acts.append(self.admit())
            elif self.claims and rng.random() < 0.5:
                claimed = rng.choice(self.claims[-6:])
                acts.append((self.finish if rng.random() < 0.15 else rng.choice(on_claims))(claimed))
            else:
                job = rng.choice(self.jobs[-6:])
                acts.append((self.cancel if rng.random() < 0.05 else rng.choice(on_jobs))(job))
        await asyncio.gather(*acts)

    async def check(self) -> None:
        redis, spent = self.redis, 0
        stands: dict[str, list[str]] = {}
        for name in NAMES:
            queue = queue_name(Kind.LOCAL, name, Priority.INTERACTIVE)
            for member in redis.zrange(keys.waiting(queue), 0, -1):
                stands.setdefault(member.decode(), []).append(f"queued {name}")
            for member in redis.zrange(keys.leases(name), 0, -1):
                stands.setdefault(member.decode(), []).append(f"running {name}")
        for job in [await self.ledger.get(job.id) for job in self.jobs]:
            where = [] if job.state.ended else [f"{job.state.value} {job.backend}"]
            assert stands.get(job.id, []) == where, job
            spent += job.cost or 0
        assert await self.ledger.spent("default") == spent


@pytest.mark.parametrize("seed", range(12))
async def test_every_job_stands_in_one_place_and_its_money_too(seed: int, clean_redis: RedisProcess) -> None:
    commands = Commands(connect(clean_redis.url, retries=0))
    play = Play(seed, RedisLedger(commands, JOBS), clean_redis)
    try:
        for _ in range(40):
            await play.step()
            await play.check()
        states = {(await play.ledger.get(job.id)).state for job in play.jobs}
        assert states & {JobState.SUCCEEDED, JobState.DEAD, JobState.CANCELLED}
    finally:
        await commands.close()
