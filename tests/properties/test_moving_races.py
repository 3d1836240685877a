"""Whatever happens to jobs at once, each stands in one place and is paid for once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
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
TENANTS = ("free", "capped")
MOST = 2
"""Jobs in flight that the capped tenant may have."""


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
        who = self.rng.choice(TENANTS)
        decision = decided(
            *self.places(),
            budget=BUDGET,
            removals=(),
            weight=2.0,
            max_in_flight=MOST if who == "capped" else None,
        )
        with suppress(QueueFull, BudgetExhausted):
            request = replace(chat(), tenant=who)
            self.jobs.append(await self.ledger.admit(new_job_id(), request, decision))

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
        redis, spent = self.redis, dict.fromkeys(TENANTS, 0)
        shares: dict[str, list[str]] = {}
        stands: dict[str, list[str]] = {}
        for name in NAMES:
            queue = queue_name(Kind.LOCAL, name, Priority.INTERACTIVE)
            for index in keys.waiting(queue), keys.parked_in(queue):
                for member in redis.zrange(index, 0, -1):
                    stands.setdefault(member.decode(), []).append(f"queued {name}")
            for who in TENANTS:
                for member in redis.smembers(keys.queued(queue, who)):
                    shares.setdefault(member.decode(), []).append(f"queued {who}")
            for member in redis.zrange(keys.leases(name), 0, -1):
                stands.setdefault(member.decode(), []).append(f"running {name}")
        for job in [await self.ledger.get(job.id) for job in self.jobs]:
            where = [] if job.state.ended else [f"{job.state.value} {job.backend}"]
            assert stands.get(job.id, []) == where, job
            waits = [f"queued {job.tenant}"] if job.state is JobState.QUEUED else []
            assert shares.get(job.id, []) == waits, job
            spent[job.tenant] += job.cost or 0
        assert {who: await self.ledger.spent(who) for who in TENANTS} == spent
        await self.check_cap()

    async def check_cap(self) -> None:
        running = {one.decode() for one in self.redis.zrange(keys.running("capped"), 0, -1)}
        capped = [
            job for job in [await self.ledger.get(one.id) for one in self.jobs] if job.tenant == "capped"
        ]
        assert running == {job.id for job in capped if job.state is JobState.RUNNING}
        assert len(running) <= MOST
        parked = {one.decode() for one in self.redis.zrange(keys.parked("capped"), 0, -1)}
        assert parked <= {job.id for job in capped if job.state is JobState.QUEUED}
        stand = [keys.parked_in(queue_name(Kind.LOCAL, name, Priority.INTERACTIVE)) for name in NAMES]
        assert parked == {one.decode() for index in stand for one in self.redis.zrange(index, 0, -1)}


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
