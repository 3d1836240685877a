"""What lives on a worker's event loop beside the jobs: its claims, its heartbeat, its ears.

One runtime per worker process, for one backend. It renews the leases of the jobs it holds, cancels
those that were taken from it, announces what the backend serves, and runs a reaper.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from k9_broker.adapters import keys
from k9_broker.adapters.connect import UNAVAILABLE, Commands, connect
from k9_broker.adapters.reaper import Reaper
from k9_broker.adapters.redis_fleet import ANNOUNCE_EVERY, RedisFleet
from k9_broker.adapters.redis_ledger import RedisLedger
from k9_broker.adapters.redis_relay import RedisRelayWriter
from k9_broker.backends import Announcement, Backend
from k9_broker.errors import K9Error, LedgerUnavailable
from k9_broker.jobs import Claim
from k9_broker.ports import Caller
from k9_broker.settings import JobSettings
from k9_workers.callers import operations_of

logger = logging.getLogger(__name__)

ASK_MODELS_EVERY = 30.0
"""Seconds between questions for the backend's models; ten times as often while it has none."""
REPORT_EVERY = 1.0
"""Seconds between progress events of one job."""
_DECAY = 0.2
"""Weight of the newest job in the mean service time."""


@dataclass(slots=True)
class Held:
    """A claimed job and the call that works on it."""

    claim: Claim
    call: asyncio.Task[Any]
    taken: bool = False
    """The ledger says it is no longer ours: stop, and record nothing."""
    reported_at: float = field(default_factory=time.monotonic)


class Runtime:
    def __init__(
        self, *, backend: Backend, order: int, node: str, caller: Caller, redis_url: str, jobs: JobSettings
    ) -> None:
        self.backend = backend
        self.node = node
        self.caller = caller
        self.leaving = False
        """The worker was told to stop, and its time is up."""
        self._order = order
        self._jobs = jobs
        # Many retries: a worker that has an answer waits for Redis to come back rather than lose it.
        self._commands = Commands(connect(redis_url, retries=30, connections=8))
        self._ears = connect(redis_url, retries=0, connections=2)
        self.ledger = RedisLedger(self._commands, jobs)
        self.fleet = RedisFleet(self._commands)
        self.relay = RedisRelayWriter(self._commands, self._superseded)
        self.on_report: Callable[[Claim, str], None] | None = None
        self._held: dict[str, Held] = {}
        self._models: tuple[str, ...] = backend.models
        self._service_seconds = 1.0
        self._loop_lag = 0.0
        self._background: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin to renew, listen and reap; jobs may come from now on."""
        reaper = Reaper(self._commands, self.ledger, self.fleet, lease_seconds=self._jobs.lease_seconds)
        for name, duty in (("renew", self._renew), ("listen", self._listen), ("reap", reaper.run)):
            self._keep(name, duty)

    async def announce(self) -> None:
        """Begin to tell the fleet what this worker serves.

        Until the backend has answered, it serves what this node served last: a backend that is
        down for a moment is unavailable, not unknown.
        """
        if not self.backend.models:
            with suppress(LedgerUnavailable):
                self._models = await self.fleet.last_models(self.node)
            await self._ask_models()
            self._keep("models", self._keep_asking)
        self._keep("announce", self._keep_announcing)

    def _keep(self, name: str, duty: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._background.append(asyncio.create_task(_for_ever(name, duty), name=name))

    @contextmanager
    def holding(self, claim: Claim, call: asyncio.Task[Any]) -> Iterator[Held]:
        if older := self._held.get(claim.job.id):
            self._take(older)  # this worker lost the job, and was given it again before it heard
        held = self._held[claim.job.id] = Held(claim, call)
        try:
            yield held
        finally:
            if self._held.get(claim.job.id) is held:
                del self._held[claim.job.id]
            call.cancel()

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

    def observe(self, seconds: float) -> None:
        self._service_seconds += _DECAY * (seconds - self._service_seconds)

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
            claims = {job_id: held.claim for job_id, held in self._held.items()}
            if not claims:
                continue
            try:
                for job_id in await self.ledger.renew(claims.values()):
                    self._superseded(claims[job_id])
            except LedgerUnavailable:
                logger.warning("leases could not be renewed: Redis is away")

    async def _listen(self) -> None:
        while True:
            try:
                async with self._ears.pubsub() as channel:
                    await channel.subscribe(keys.CANCELS)
                    while True:
                        message = await channel.get_message(ignore_subscribe_messages=True, timeout=5)
                        if message is not None and (held := self._held.get(message["data"].decode())):
                            self._take(held)
            except UNAVAILABLE:
                await asyncio.sleep(0.2)

    async def _ask_models(self) -> None:
        try:
            self._models = tuple(await self.caller.models())
        except K9Error as error:
            logger.warning("%s does not tell its models: %s", self.backend.name, error.code)
        except Exception:
            logger.exception("%s does not tell its models", self.backend.name)

    async def _keep_asking(self) -> None:
        while True:
            await asyncio.sleep(ASK_MODELS_EVERY if self._models else ASK_MODELS_EVERY / 10)
            await self._ask_models()

    async def _keep_announcing(self) -> None:
        while True:
            try:
                await self.fleet.announce(self._announcement())
            except LedgerUnavailable:
                logger.warning("could not announce: Redis is away")
            due = time.monotonic() + ANNOUNCE_EVERY
            await asyncio.sleep(ANNOUNCE_EVERY)
            self._loop_lag = max(0.0, time.monotonic() - due)

    def _announcement(self) -> Announcement:
        backend = self.backend
        return Announcement(
            node=self.node,
            backend=backend.name,
            kind=backend.kind,
            dialect=backend.dialect,
            models=self._models,
            operations=operations_of(backend),
            order=self._order,
            slots=backend.slots,
            max_waiting=backend.max_waiting,
            max_waiting_batch=backend.max_waiting_batch,
            service_seconds=self._service_seconds,
            loop_lag_seconds=self._loop_lag,
        )

    async def close(self) -> None:
        """Leave the fleet and let go of everything."""
        for task in self._background:
            task.cancel()
        if self._background:
            await asyncio.wait(self._background, timeout=2)
        try:
            await asyncio.wait_for(self.fleet.withdraw(self.node), 2)
        except (LedgerUnavailable, TimeoutError):
            logger.warning("could not say goodbye: Redis is away")
        await self.relay.close()
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
