"""What lives on a worker's event loop beside the jobs: its claims, its heartbeat, its ears.

One runtime per worker process, for one backend. It renews the leases of the jobs it holds, cancels
those that were taken from it, measures calls, has the backend announced, and runs a reaper.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from k9_broker.adapters import keys
from k9_broker.adapters.connect import UNAVAILABLE, Commands, connect
from k9_broker.adapters.reaper import Reaper
from k9_broker.adapters.redis_fleet import RedisFleet
from k9_broker.adapters.redis_ledger import RedisLedger
from k9_broker.adapters.redis_pacer import RedisPacer
from k9_broker.adapters.redis_relay import RedisRelayWriter
from k9_broker.backends import Backend
from k9_broker.dialects.registry import dialect_named
from k9_broker.errors import LedgerUnavailable
from k9_broker.health import CircuitState
from k9_broker.jobs import Claim
from k9_broker.models import ModelCard
from k9_broker.money import machine_cost, token_cost
from k9_broker.ports import Caller
from k9_broker.requests import Kind, Priority
from k9_broker.results import Outcome
from k9_broker.settings import JobSettings
from k9_broker.snapshot import Snapshot
from k9_workers.announcing import LOOK_EVERY, Announcer
from k9_workers.measuring import Measuring
from k9_workers.pacing import Pacing

logger = logging.getLogger(__name__)

REPORT_EVERY = 1.0
"""Seconds between progress events of one job."""


@dataclass(slots=True)
class Held:
    """A claimed job and the call that works on it."""

    claim: Claim
    call: asyncio.Task[Any]
    renewed: float
    """When its lease was last asked for, on the monotonic clock."""
    taken: bool = False
    """The ledger says it is no longer ours: stop, and record nothing."""
    reported_at: float = field(default_factory=time.monotonic)


class Runtime:
    def __init__(
        self,
        *,
        backend: Backend,
        order: int,
        node: str,
        caller: Caller,
        redis_url: str,
        jobs: JobSettings,
        models: Mapping[str, ModelCard] | None = None,
    ) -> None:
        """`models` are the cards that configuration has for any backend."""
        self.backend = backend
        self.node = node
        self.caller = caller
        self.leaving = False
        """The worker was told to stop, and its time is up."""
        self.measuring = Measuring()
        self._jobs = jobs
        # Many retries: a worker that has an answer waits for Redis to come back rather than lose it.
        self._commands = Commands(connect(redis_url, retries=30, connections=8))
        self._ears = connect(redis_url, retries=0, connections=2)
        self.ledger = RedisLedger(self._commands, jobs)
        self.fleet = RedisFleet(self._commands)
        self.relay = RedisRelayWriter(self._commands, self._superseded)
        self.pacing = Pacing(RedisPacer(self._commands, backend), backend)
        self.counts_most = backend.dialect != "embedded" and dialect_named(backend.dialect).counts_most
        self.on_report: Callable[[Claim, str], None] | None = None
        self.on_aside: Callable[[bool], None] | None = None
        """Told whether this worker is to take messages no more, or again."""
        self._is_aside = False
        self._announcer = Announcer(
            backend=backend,
            order=order,
            node=node,
            caller=caller,
            fleet=self.fleet,
            measuring=self.measuring,
            configured=models or {},
            paced=lambda: self.pacing.paced_seconds,
        )
        self._held: dict[str, Held] = {}
        self._background: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin to renew, listen and reap; jobs may come from now on."""
        reaper = Reaper(self._commands, self.ledger, self.fleet, lease_seconds=self._jobs.lease_seconds)
        for name, duty in (("renew", self._renew), ("listen", self._listen), ("reap", reaper.run)):
            self._keep(name, duty)

    async def announce(self) -> None:
        """Begin to tell the fleet what this worker serves."""
        await self._announcer.learn()
        self._keep("models", self._announcer.keep_asking)
        self._keep("watch", self.caller.watch)
        self._keep("announce", self._announcer.keep_announcing)
        self._keep("aside", self._keep_aside)

    def _keep(self, name: str, duty: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._background.append(asyncio.create_task(_for_ever(name, duty), name=name))

    @contextmanager
    def holding(self, claim: Claim, call: asyncio.Task[Any], *, since: float) -> Iterator[Held]:
        """`since`: when the claim was asked for, on the monotonic clock."""
        if older := self._held.get(claim.job.id):
            self._take(older)  # this worker lost the job, and was given it again before it heard
        held = self._held[claim.job.id] = Held(claim, call, since)
        try:
            yield held
        finally:
            if self._held.get(claim.job.id) is held:
                del self._held[claim.job.id]
            call.cancel()

    def most_calls(self, priority: Priority) -> int:
        """Upstream calls a job of this priority may cause."""
        return self._jobs.most_calls(priority)

    def leaves_it_to_others(self, snapshot: Snapshot) -> bool:
        """Whether this worker can call no instance and another worker of the backend can. Then it takes no
        more messages: as it fails fast, it would have most of them."""
        own = [one.state for one in self.caller.health()]
        others = (
            one.state
            for view in snapshot.backends
            if view.name == self.backend.name
            for node, one in view.instances
            if node != self.node
        )
        ill = bool(own) and CircuitState.CLOSED not in own and CircuitState.CLOSED in others
        self._step_aside(ill and not any(state.usable for state in own))
        return ill

    def _step_aside(self, aside: bool) -> None:
        if aside is self._is_aside:
            return
        self._is_aside = aside
        logger.warning("%s %s", self.node, "leaves all jobs to others" if aside else "takes jobs again")
        if self.on_aside is not None:
            self.on_aside(aside)

    async def _keep_aside(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY)
            if self._is_aside or not all(one.state.usable for one in self.caller.health()):
                with suppress(LedgerUnavailable):
                    self.leaves_it_to_others(await self.fleet.snapshot())

    def hand_back_all(self) -> None:
        """End every call, so that its job goes back to the queue: the worker must leave."""
        self.leaving = True
        for held in list(self._held.values()):
            held.call.cancel()

    def _take(self, held: Held) -> None:
        held.taken = True
        held.call.cancel()

    def _superseded(self, claim: Claim) -> None:
        held = self._held.get(claim.job.id)
        if held is not None and held.claim.token == claim.token:
            self._take(held)

    def cost(self, model: str, outcome: Outcome, seconds: float) -> int | None:
        """Nano-dollars a job cost that held a slot for so long; `None` when nobody can tell."""
        usage, card = outcome.usage, self._announcer.card(model)
        tokens = token_cost(card, usage.prompt, usage.completion, usage.cached)
        if tokens is None:
            tokens = 0 if self.backend.kind is Kind.LOCAL else None
        elif outcome.answered and not usage.total and (card.input_usd or card.output_usd):
            tokens = None
        if tokens is None:
            return None
        machines = (self.backend.gpu_usd_per_hour or 0.0) * max(1, len(self.backend.servers))
        return tokens + machine_cost(machines / self.backend.capacity, seconds)

    def report(self, claim: Claim, progress: str) -> None:
        """Show progress to operators, at most once a second and job."""
        held = self._held.get(claim.job.id)
        now = time.monotonic()
        if self.on_report is None or held is None or now - held.reported_at < REPORT_EVERY:
            return
        held.reported_at = now
        self.on_report(claim, progress)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._jobs.lease_seconds / 4)
            try:
                await self._renew_all(list(self._held.values()))
            except LedgerUnavailable:
                logger.warning("leases could not be renewed: Redis is away")

    async def _renew_all(self, all_held: list[Held]) -> None:
        if not all_held:
            return
        asked = time.monotonic()
        lost = set(await self.ledger.renew([held.claim for held in all_held]))
        for held in all_held:
            if held.claim.job.id in lost:
                self._superseded(held.claim)
            else:
                held.renewed = asked

    async def make_sure(self, claim: Claim) -> None:
        """Before a call is paid for: whoever was frozen for longer than a lease asks whether the job is
        still its own. If not, the call is cancelled. While Redis is away, nobody else can have it."""
        held = self._held.get(claim.job.id)
        if held is None or time.monotonic() - held.renewed < self._jobs.lease_seconds:
            return
        with suppress(LedgerUnavailable):
            await self._renew_all([held])
        await asyncio.sleep(0)  # here it ends, if it was cancelled

    async def _listen(self) -> None:
        while True:
            try:
                async with self._ears.pubsub() as channel:
                    control = keys.control(self.backend.name)
                    await channel.subscribe(keys.CANCELS, control)
                    while True:
                        message = await channel.get_message(ignore_subscribe_messages=True, timeout=5)
                        if message is None:
                            continue
                        if message["channel"].decode() == control:
                            self.caller.reset()
                        elif held := self._held.get(message["data"].decode()):
                            self._take(held)
            except UNAVAILABLE:
                await asyncio.sleep(0.2)

    async def withdraw(self) -> None:
        """Leave the fleet, so that nobody waits for a worker that takes no more; what it runs goes on."""
        announcing = [task for task in self._background if task.get_name() == "announce"]
        for task in announcing:
            task.cancel()
        if announcing:
            await asyncio.wait(announcing, timeout=2)
        try:
            await asyncio.wait_for(self.fleet.withdraw(self.node), 2)
        except (LedgerUnavailable, TimeoutError):
            logger.warning("could not say goodbye: Redis is away")

    async def close(self, *, withdraw: bool = True) -> None:
        """Let go of everything, and leave the fleet unless this worker comes back at once."""
        for task in self._background:
            task.cancel()
        if self._background:
            await asyncio.wait(self._background, timeout=2)
        if withdraw:
            await self.withdraw()
        await self.relay.close()
        await self.pacing.close()
        await self.caller.close()
        await self._ears.aclose()
        await self._commands.close()


async def _for_ever(name: str, duty: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Begin a duty again when it breaks: a worker that no longer renews would lose its jobs in silence."""
    while True:
        try:
            await duty()
        except Exception:
            logger.exception("%s broke; it begins again", name)
        await asyncio.sleep(1)
