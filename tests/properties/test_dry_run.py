"""A dry run gives exactly what the real one would: ten thousand requests, asked and then done.

Each world stands still while its requests are made: what one admission changes, its cancellation undoes.
"""

from __future__ import annotations

import gc
import os
from asyncio import gather
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from random import Random
from typing import Any

import pytest

import worlds
from k9_broker.adapters import keys
from k9_broker.adapters.connect import Commands
from k9_broker.adapters.redis_fleet import RedisFleet
from k9_broker.adapters.redis_ledger import RedisLedger
from k9_broker.backends import Announcement
from k9_broker.errors import BudgetExhausted, K9Error, PrivacyRefused, QueueFull
from k9_broker.jobs import Job, JobState, new_job_id
from k9_broker.naming import queue_name
from k9_broker.requests import InferenceRequest, Kind, Priority, Privacy
from k9_broker.saturation import Gauge
from k9_broker.snapshot import Snapshot
from k9_broker.strategy.admission import Admission, choose
from k9_broker.strategy.decision import Candidate, Decision
from k9_broker.strategy.engine import Router
from k9_broker.strategy.refusal import turned_away
from stand import JOBS, RedisProcess
from walks import candidate

SEED = int(os.environ.get("K9_TEST_SEED", "30000"))
REQUESTS, A_WORLD = 10_000, 50
Rule = Callable[[Decision, InferenceRequest, Mapping[str, Gauge], int], Admission]
REFUSALS = (QueueFull, BudgetExhausted, PrivacyRefused)


class World:
    def __init__(self, seed: int, commands: Commands, redis: RedisProcess, rule: Rule) -> None:
        self.name = f"K9_TEST_SEED={seed}"
        self.rng = rng = Random(seed)
        self.commands, self.redis, self.rule = commands, redis, rule
        self.fleet, self.ledger = RedisFleet(commands), RedisLedger(commands, JOBS)
        self.router = Router(worlds.policy(rng, local=0.1, budget=0.8))
        self.said = worlds.announcements(rng)

    async def freeze(self) -> Snapshot:
        """A fleet in which some queues are full or nearly, some workers gone, and some money is spent."""
        await self.commands.command("FLUSHDB")
        await gather(*map(self.fleet.announce, self.said))
        fillers = [f"filler-{number}" for number in range(4)]
        with self.redis.client.pipeline() as pipe:
            for said in self.said:
                for priority in Priority:
                    waiting = keys.waiting(queue_name(said.kind, said.backend, priority))
                    for number, filler in enumerate(fillers[: self.rng.choice((0, 0, 0, 1, 1, 2, 4))]):
                        pipe.zadd(waiting, {filler: number})
                for filler in fillers[: self.rng.randint(0, 4)]:
                    pipe.zadd(keys.leases(said.backend), {filler: 9e12})
                self._occupy(pipe, said)
            for tenant in worlds.TENANTS:
                spent = self.rng.choice((0, 10**4, 10**5, 10**6, 3 * 10**6, 10**9))
                pipe.set(keys.spent(tenant, await self.ledger._today()), spent)
            pipe.execute()
        if self.rng.random() < 0.3:
            await self.fleet.withdraw(self.rng.choice(self.said).node)
        return await self.fleet.snapshot()

    def _occupy(self, pipe: Any, said: Announcement) -> None:
        """Whose the fillers are, those of patient callers among them, and when whose turn is."""
        for priority in Priority:
            queue = queue_name(said.kind, said.backend, priority)
            for tenant in (*worlds.TENANTS, ":patient"):
                if self.rng.random() < 0.5:
                    pipe.sadd(keys.queued(queue, tenant), *range(self.rng.randint(1, 3)))
                    pipe.hset(keys.turns(queue), f"of {tenant}", self.rng.randint(0, 4))

    def decide(self, request: InferenceRequest, snapshot: Snapshot) -> Decision:
        decision = replace(self.router.decide(request, snapshot), shared=self.rng.random() < 0.3)
        near = {view.name: self.rng.uniform(0.8, 1.5) for view in snapshot.backends}  # a mark near its wait
        candidates = [
            one._replace(overflow_wait=one.wait * near[one.backend]) if one.wait else one
            for one in decision.candidates
        ]
        decision = replace(decision, candidates=tuple(candidates))
        return worse(self.rng, decision) if self.rng.random() < 0.3 else decision

    async def compare(self, request: InferenceRequest, decision: Decision) -> str:
        """What a dry run says, then the deed, then undone. Gives how it ended, or why so."""
        spent = await self.ledger.spent(request.tenant)
        queues = [word for one in decision.candidates for word in (one.queue, self.rng.randint(0, 1))]
        await self.commands.command("HSET", keys.SATURATED, *queues)  # whose marks were passed before
        dry = self.rule(decision, request, await self.ledger.gauges(request.tenant, decision), spent)
        job_id = new_job_id()
        # Sent together, so that nothing comes between them.
        real, undone = await gather(
            self.ledger.admit(job_id, request, decision),
            self.commands.script("stop", [keys.job(job_id)], [job_id, "cancelled", 60, "", 0]),
            return_exceptions=True,
        )
        if isinstance(real, REFUSALS):
            assert same_refusal(real, dry), (self.name, request, real, dry)
            return real.code
        assert isinstance(real, Job), (self.name, real)
        assert undone == [b"queued"]
        assert same(real, dry, decision), (self.name, request, real, dry)
        again = await self.ledger.get(job_id)
        assert again == replace(
            real, state=JobState.CANCELLED, ended_at=again.ended_at, cost=None if real.cost is None else 0
        )
        ours = real.reason.split(":")[0]
        return ours if ours in worlds.STRATEGIES else real.reason


def same(real: Job, dry: Admission, decision: Decision) -> bool:
    said = dry.candidate
    skipped = [(one.backend, reason) for one, reason in dry.passed]
    skipped += [(one.backend, one.reason) for one in decision.removals]
    return said is not None and (
        (said.backend, said.model, said.kind, said.cost) == (real.backend, real.model, real.kind, real.cost)
        and real.reason == dry.reason
        and list(real.skipped) == [f"{backend}: {reason}" for backend, reason in skipped]
    )


def same_refusal(real: K9Error, dry: Admission) -> bool:
    """What a dry run says, word for word, but for the time that has passed since."""
    said = turned_away(dry)
    near = said.retry_after == real.retry_after or abs((said.retry_after or 0) - (real.retry_after or 0)) <= 1
    return dry.candidate is None and (type(said), said.message) == (type(real), real.message) and near


def worse(rng: Random, decision: Decision) -> Decision:
    """A decision no engine makes: what is private at cloud places, any order, kinds that lie."""

    def changed(one: Candidate) -> Candidate:
        return candidate(
            one.backend,
            rng.choice((one.kind, *Kind)),
            mark=rng.choice((one.max_waiting, 0, 2, 5)),
            model=one.model,
            queue=one.queue,
            cost=rng.choice((one.cost, None, 0, 10**5)),
        )

    candidates = [changed(one) if rng.random() < 0.2 else one for one in decision.candidates]
    return replace(
        decision,
        candidates=tuple(rng.sample(candidates, len(candidates))),
        privacy=rng.choice(tuple(Privacy)),
        budget=rng.choice((decision.budget, None, 0, 10**6)),
    )


async def run(count: int, commands: Commands, redis: RedisProcess, rule: Rule = choose) -> Counter[str]:
    """So many requests that somebody may take, each compared; gives how they ended."""
    seen: Counter[str] = Counter()
    seed = SEED
    gc.freeze()  # what is there already need not be looked through again and again
    try:
        while seen.total() < count:
            world, seed = World(seed, commands, redis, rule), seed + 1
            snapshot = await world.freeze()
            before = state(redis)
            for _ in range(A_WORLD):
                asked = replace(
                    worlds.asked(world.rng, sensitive=0.1, local=0.1).request,
                    deadline=world.rng.choice((None, None, None, 1.0, 8.0)),
                    patient=world.rng.random() < 0.2,
                )
                decision = world.decide(asked, snapshot)
                if decision.candidates:
                    seen[await world.compare(asked, decision)] += 1
            assert state(redis) == before, world.name
    finally:
        gc.unfreeze()
    return seen


@pytest.mark.timeout(400)
async def test_a_dry_run_gives_what_the_real_run_does(commands: Commands, clean_redis: RedisProcess) -> None:
    seen = await run(REQUESTS, commands, clean_redis)
    refusals = {one.code for one in REFUSALS}
    rooms = {"overflow:depth", "overflow:wait", "overflow:deadline"}
    reasons = {*rooms, "budget:exhausted", "budget:unknown-price", "privacy:local-only"}
    strategies = set(worlds.STRATEGIES)
    assert all(seen[what] >= REQUESTS // 200 for what in refusals | reasons | strategies), seen


BLIND: dict[str, dict[str, int]] = {
    "depth": {"waiting": 0},
    "turns": {"ahead": 0},
    "slots": {"in_flight": 0},
    "hysteresis": {"saturated": False},
    "patience": {"patient": 0},
}


@pytest.mark.parametrize("blind", ["privacy", "budget", "deadline", "tenants", *BLIND])
async def test_a_dry_run_that_overlooks_something_is_found_out(
    commands: Commands, clean_redis: RedisProcess, blind: str
) -> None:
    def rule(
        decision: Decision, request: InferenceRequest, gauges: Mapping[str, Gauge], spent: int
    ) -> Admission:
        if blind == "privacy":
            decision = replace(decision, privacy=Privacy.ANY)
        if blind == "budget":
            decision = replace(decision, budget=None)
        if blind == "deadline":
            request = replace(request, deadline=None)
        if blind == "tenants":
            decision = replace(decision, shared=False)
        seen = {queue: found._replace(**BLIND.get(blind, {})) for queue, found in gauges.items()}
        return choose(decision, request, seen, spent)

    with pytest.raises(AssertionError, match="K9_TEST_SEED"):
        await run(500, commands, clean_redis, rule)


def state(redis: RedisProcess) -> dict[bytes, object]:
    """Everything a decision or an admission reads."""
    with redis.client.pipeline() as pipe:
        found = sorted(redis.client.keys("k9:waiting:*") + redis.client.keys("k9:leases:*"))
        for key in found:
            pipe.zrange(key, 0, -1)
        accounts = sorted(redis.client.keys("k9:spent:*"))
        for key in accounts:
            pipe.get(key)
        return dict(zip([*found, *accounts], pipe.execute(), strict=True))
