"""What anybody wants to stay here stays here: in ten thousand random worlds, whatever breaks in them.

Many worlds share a Redis and go through their events in step, so that they share round trips too. Who
wants a request local is worked out here again, from what was put into the world, not from the decision.
"""

from __future__ import annotations

import gc
import os
import re
from asyncio import gather
from collections import Counter
from collections.abc import AsyncIterator
from itertools import groupby
from random import Random

import pytest

import worlds
from k9_broker.adapters import reaper, redis_fleet
from k9_broker.adapters.connect import Commands
from k9_broker.adapters.redis_fleet import RedisFleet
from k9_broker.adapters.redis_ledger import RedisLedger
from k9_broker.errors import BackendUnreachable, K9Error, LedgerUnavailable
from k9_broker.failover import onward
from k9_broker.health import CircuitState, InstanceHealth
from k9_broker.jobs import Claim, Job, new_job_id
from k9_broker.policy import Policy
from k9_broker.requests import InferenceRequest, Kind, Priority, Privacy
from k9_broker.results import Outcome, Result, Usage
from k9_broker.sensitive import Category
from k9_broker.snapshot import BackendView, Snapshot
from k9_broker.strategy.decision import Decision
from k9_broker.strategy.engine import Router
from k9_broker.submit import submit
from locks import Careless, Forgetful, Gullible
from stand import JOBS

SEED = int(os.environ.get("K9_TEST_SEED", "20000"))
WORLDS, TOGETHER, ROUNDS = 10_080, 120, 6
TAG = re.compile(rb'"delivery_tag": ?"([^:"]+):(\d+):')
LOOK = """
local seen = {}
for _, key in ipairs(redis.call('KEYS', '*k9.cloud.*')) do
  local index, kind, members = string.sub(key, 1, 3) == 'k9:', redis.call('TYPE', key)['ok'], {}
  if kind == 'zset' then members = redis.call('ZRANGE', key, 0, -1) end
  if kind == 'set' then members = redis.call('SMEMBERS', key) end
  if kind == 'list' then members = redis.call('LRANGE', key, 0, -1) end
  for _, member in ipairs(members) do
    seen[index and member or string.match(member, '"delivery_tag": ?"([^:"]+):') or member] = true
  end
end
local ids = {}
for id in pairs(seen) do ids[#ids + 1] = id end
return ids
"""
"""The ids of all jobs in cloud queues, or in the indexes of cloud queues."""


def wanted_local(policy: Policy, asked: worlds.Asked) -> bool:
    request, tenant = asked.request, policy.tenants.get(asked.request.tenant)
    found = asked.holds.intersection(policy.privacy.detect)
    if "Project Falcon" not in policy.privacy.words:
        found -= {Category.WORD}
    rules = [
        rule.then.privacy
        for rule in policy.rules
        if (not rule.when.operation or request.operation in rule.when.operation)
        and (not rule.when.tenant or request.tenant in rule.when.tenant)
        and (not rule.when.model or request.model in rule.when.model)
        and rule.when.priority in (None, request.priority)
    ]
    wishes = [request.privacy, policy.privacy.default, tenant and tenant.privacy, *rules]
    return bool(found) or Privacy.LOCAL_ONLY in wishes


def _world(view: BackendView) -> str:
    return view.name.partition("-")[0]


class Hall:
    """Worlds that go in step, the Redis they share, and what was seen of their jobs."""

    def __init__(
        self, seed: int, commands: Commands, ledger: RedisLedger, router: type[Router] = Router
    ) -> None:
        self.commands, self.ledger, self.router = commands, ledger, router
        self.fleet = RedisFleet(commands)
        self.reaper = reaper.Reaper(commands, ledger, self.fleet, lease_seconds=60)
        self.views: dict[str, Snapshot] = {}
        self.local: dict[str, bool] = {}
        self.seen: Counter[str] = Counter()
        self.leaks: list[str] = []
        self.name = f"K9_TEST_SEED={seed}"
        self.worlds = [World(Random(f"{seed} {number}"), f"w{number}", self) for number in range(TOGETHER)]

    async def run(self) -> None:
        await self.commands.command("FLUSHDB")
        await gather(*(self.fleet.announce(said) for world in self.worlds for said in world.said))
        for count in range(ROUNDS):
            if count % 3 == 0:
                await self.refresh()
            await gather(*(world.event() if count else world.submit() for world in self.worlds))
            await self.look()
            if count % 2:
                self.seen.update(await self.reaper.sweep())
                await self.look()

    async def refresh(self) -> None:
        """In between, decisions are made on old news."""
        self.fleet = self.reaper._fleet = RedisFleet(self.commands)
        views = (await self.fleet.snapshot()).backends
        for name, mine in groupby(sorted(views, key=_world), key=_world):
            self.views[name] = Snapshot(tuple(mine))

    async def look(self) -> None:
        for found in await self.commands.command("EVAL", LOOK, 0):
            if self.local[found.decode()]:
                self.leaks.append(f"{self.name}: {found.decode()} stood in a cloud queue")


class World:
    """One fleet, one policy, and what happens there. As a fleet it is its own part of the hall's."""

    def __init__(self, rng: Random, name: str, hall: Hall) -> None:
        self.rng, self.name, self.hall = rng, name, hall
        self.policy = worlds.policy(rng)
        self.router = hall.router(self.policy)
        self.said = worlds.announcements(rng, f"{name}-")
        self.jobs: list[Job] = []
        self.claims: list[Claim] = []

    async def snapshot(self, *, fresh: bool = False) -> Snapshot:
        return self.hall.views[self.name]

    def admitted(self, backend: str, priority: Priority) -> None:
        self.hall.views[self.name] = self.hall.views[self.name].admitted(backend, priority)

    async def decide(self, request: InferenceRequest, snapshot: Snapshot) -> Decision:
        return self.router.decide(request, snapshot)

    async def event(self) -> None:
        choices = [self.submit] * 2 + [self.come, self.die, self.open]
        choices += [self.work] * 5 + [self.stray, self.cancel] if self.jobs else []
        choices += [self.hand_back, self.abandon, self.finish, self.fail_over] * 2 if self.claims else []
        await self.rng.choice(choices)()

    async def submit(self) -> None:
        asked = worlds.asked(self.rng)
        job_id = new_job_id()
        self.hall.local[job_id] = wanted_local(self.policy, asked)
        try:
            job = await submit(
                asked.request,
                ledger=self.hall.ledger,
                fleet=self,  # type: ignore[arg-type]
                decide=self.decide,
                job_id=job_id,
            )
        except K9Error as error:
            if type(error) is K9Error or isinstance(error, LedgerUnavailable):
                raise
            self.hall.seen[error.code] += 1
        else:
            self.jobs.append(job)
            self.hall.seen[f"{job.privacy} at {job.kind}"] += 1

    async def work(self) -> None:
        """A worker, one time in four of the wrong kind, takes a message, and sometimes dies of it."""
        job = self.rng.choice(self.jobs)
        message = await self.hall.commands.command("RPOP", f"k9.{job.kind}.{job.backend}.{job.priority}")
        if message is None or self.rng.random() < 0.15:
            return
        tag = TAG.search(message)
        assert tag is not None
        kind = job.kind if self.rng.random() < 0.75 else self.rng.choice(tuple(Kind))
        await self._claim(tag[1].decode(), int(tag[2]), kind)

    async def stray(self) -> None:
        """A message comes to a cloud worker it was never meant for."""
        await self._claim(self.rng.choice(self.jobs).id, self.rng.choice((1, 1, 2)), Kind.CLOUD)

    async def _claim(self, job_id: str, generation: int, kind: Kind) -> None:
        claim = await self.hall.ledger.claim(job_id, generation, "w", kind)
        if claim is not None:
            self.claims.append(claim)
            self.hall.seen[f"claimed by {kind}"] += 1
            if kind is Kind.CLOUD and self.hall.local[job_id]:
                self.hall.leaks.append(f"{self.hall.name}: {job_id} was claimed by a cloud worker")

    def _taken(self) -> Claim:
        return self.claims.pop(self.rng.randrange(len(self.claims)))

    async def finish(self) -> None:
        ended = Outcome.succeeded(Result("m", Usage(9, 9)))
        outcome = self.rng.choice((ended, Outcome.failed(BackendUnreachable())))
        await self.hall.ledger.finish(self._taken(), outcome, self.rng.choice((None, 0, 10**6)))

    async def hand_back(self) -> None:
        self.hall.seen["handed back"] += await self.hall.ledger.hand_back(self._taken())

    async def abandon(self) -> None:
        """The worker is dead, its lease runs out, and the next sweep finds the job."""
        job = self._taken().job
        await self.hall.commands.command("ZADD", f"k9:leases:{job.backend}", "XX", 0, job.id)

    async def fail_over(self) -> None:
        """The call has failed, and the job goes on to the next candidate, by present news."""
        claim = self._taken()
        _, explained = await self.hall.ledger.explanation(claim.job.id)
        now = Snapshot(tuple(view for views in self.hall.views.values() for view in views.backends))
        places = onward(explained, claim.job, now, reason="failover:x")
        went = await self.hall.ledger.reroute(
            claim.job, places, leaves="failed:x", calls=1, token=claim.token
        )
        self.hall.seen["failed over"] += bool(went)

    async def open(self) -> None:
        """The circuits of one worker's instances open; what waits there moves on at the next sweep."""
        ill = InstanceHealth(name="x", state=CircuitState.OPEN, reason="backend_unreachable")
        await self.hall.fleet.announce(self.rng.choice(self.said).model_copy(update={"instances": (ill,)}))

    async def cancel(self) -> None:
        await self.hall.ledger.cancel(self.rng.choice(self.jobs).id)

    async def die(self) -> None:
        await self.hall.fleet.withdraw(self.rng.choice(self.said).node)

    async def come(self) -> None:
        """A worker joins; perhaps under the name of a backend of the other kind."""
        backend = self.rng.choice([one.backend for one in self.said] + [f"{self.name}-new"])
        said = worlds.announcement(self.rng, backend, f"{self.name}-n{self.rng.randint(0, 9)}")
        self.said.append(said)
        await self.hall.fleet.announce(said)


@pytest.fixture
async def quick(commands: Commands, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Commands]:
    """The commands, with a message missed at once and a snapshot kept until the next is asked for."""
    monkeypatch.setattr(reaper, "LOST_AFTER", 0)
    monkeypatch.setattr(redis_fleet, "_FRESH", 3600)
    gc.freeze()  # what is there already need not be looked through again and again
    yield commands
    gc.unfreeze()


@pytest.mark.timeout(400)
async def test_nothing_that_is_wanted_local_ever_stands_in_a_cloud_queue(quick: Commands) -> None:
    seen: Counter[str] = Counter()
    for number in range(WORLDS // TOGETHER):
        hall = Hall(SEED + number, quick, RedisLedger(quick, JOBS))
        await hall.run()
        assert not hall.leaks
        seen += hall.seen
    # It did happen: private and other jobs, both kinds of workers, refusals, recoveries.
    often = ("local-only at local", "any at cloud", "any at local", "privacy_refused", "claimed by local")
    assert all(seen[what] > WORLDS // 20 for what in (*often, "claimed by cloud", "requeued")), seen
    assert all(seen[what] > WORLDS // 100 for what in ("handed back", "failed over")), seen
    assert seen["moved"] > WORLDS // 400, seen
    assert seen["local-only at cloud"] == 0


@pytest.mark.parametrize(
    ("router", "ledger", "leaks"),
    [
        (Careless, RedisLedger, set()),
        (Router, Forgetful, {"worker"}),
        (Careless, Forgetful, {"queue", "worker"}),
        (Router, Gullible, {"worker"}),
    ],
)
async def test_one_lock_holds_and_without_both_the_leak_is_seen(
    quick: Commands, router: type[Router], ledger: type[RedisLedger], leaks: set[str]
) -> None:
    halls = [Hall(SEED + number, quick, ledger(quick, JOBS), router) for number in range(3)]
    for hall in halls:
        await hall.run()
    assert {said.rpartition(" ")[2] for hall in halls for said in hall.leaks} == leaks
