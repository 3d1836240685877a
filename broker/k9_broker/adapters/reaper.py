"""The reaper: brings back the jobs of dead workers, and ends those past their deadline.

Any number of reapers may run (every API and worker process has one); one at a time holds the lease
and sweeps. It decides nothing by itself: each step is a fenced script, so a reaper that acts on old
news, or twice, does no harm.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time

from k9_broker.adapters import keys
from k9_broker.adapters.connect import Commands
from k9_broker.adapters.moving import SWEEP_FOR, Mover
from k9_broker.adapters.moving_late import LateMover
from k9_broker.adapters.redis_ledger import RedisLedger
from k9_broker.errors import JobNotFound, LedgerUnavailable
from k9_broker.jobs import Job, JobState
from k9_broker.naming import queue_name
from k9_broker.ports import Fleet
from k9_broker.requests import Priority

logger = logging.getLogger(__name__)

LEASE = "k9:reaper"
"""String: who sweeps now. Lives three sweeps."""
SWEEP_EVERY = 1.0
LOST_AFTER = 2.5
"""Seconds a queued job's message must be missing before it counts as lost: a worker that has just
taken it needs milliseconds to claim the job."""
_LONG_AGO = float("-inf")
_MOST = 200
"""Jobs of each sort a sweep looks at."""


class Reaper:
    def __init__(
        self, commands: Commands, ledger: RedisLedger, fleet: Fleet, *, lease_seconds: float
    ) -> None:
        self._commands = commands
        self._ledger = ledger
        self._fleet = fleet
        self._lease_seconds = lease_seconds
        self._mover = Mover(commands, ledger)
        self._late = LateMover(commands, ledger)
        self._name = secrets.token_hex(6)
        self._missing: dict[tuple[str, int], float] = {}
        self._quiet_until = 0.0

    async def run(self) -> None:
        """Sweep for ever; a Redis that is away only delays it."""
        self._heard(_LONG_AGO)  # Redis may have been away until now
        while True:
            asked = time.monotonic()
            try:
                mine = await self._is_mine()
                self._heard(asked)
                if mine:
                    await self.sweep()
            except LedgerUnavailable:
                self._heard(_LONG_AGO)
            except Exception:
                logger.exception("a sweep failed")
            await asyncio.sleep(SWEEP_EVERY)

    def _heard(self, asked: float) -> None:
        """When a reply took long, Redis was away and no worker could renew: judge none for a lease."""
        now = time.monotonic()
        if now - asked > self._lease_seconds / 2:
            self._quiet_until = now + self._lease_seconds

    async def _is_mine(self) -> bool:
        milliseconds = int(3000 * SWEEP_EVERY)
        if await self._commands.command("SET", LEASE, self._name, "NX", "PX", milliseconds):
            self._missing.clear()
            return True
        if await self._commands.command("GET", LEASE) != self._name.encode():
            return False
        return bool(await self._commands.command("PEXPIRE", LEASE, milliseconds))

    async def sweep(self) -> dict[str, int]:
        """One look at every index; gives how many jobs expired, were brought back, moved, or ended dead."""
        asked = time.monotonic()
        overdue: list[str] = []
        snapshot = await self._fleet.snapshot()
        for view in snapshot.backends:
            overdue.append(keys.leases(view.name))
            for priority in Priority:
                queue = queue_name(view.kind, view.name, priority)
                overdue += [queue, keys.waiting(queue)]
        late, orphans, lost = await self._commands.script("overdue", overdue, [_MOST])
        self._heard(asked)
        counts = {"expired": 0, "requeued": 0, "dead": 0, "superseded": 0}
        for job_id in late:
            await self._ledger.expire(job_id.decode())
            counts["expired"] += 1
        if time.monotonic() < self._quiet_until:
            return counts
        for job in [await self._job(*pair) for pair in _pairs(orphans)]:
            if job is not None and job.state is JobState.RUNNING:
                counts[await self._ledger.requeue_orphan(job)] += 1
        for job in [await self._job(*pair) for pair in self._gone_long_enough(_pairs(lost))]:
            if job is not None and job.state is JobState.QUEUED:
                counts[await self._ledger.requeue_lost(job)] += 1
        counts |= await self._mover.sweep(snapshot)
        counts["late"] = await self._late.sweep(snapshot, time.monotonic() + SWEEP_FOR)
        if any(counts.values()):
            logger.info("swept: %s", counts)
        return counts

    def _gone_long_enough(self, seen: list[tuple[str, int]]) -> list[tuple[str, int]]:
        now = time.monotonic()
        self._missing = {pair: self._missing.get(pair, now) for pair in seen}
        return [pair for pair, since in self._missing.items() if now - since >= LOST_AFTER]

    async def _job(self, job_id: str, generation: int) -> Job | None:
        try:
            job = await self._ledger.get(job_id)
        except JobNotFound:
            return None
        return job if job.generation == generation else None


def _pairs(flat: list[bytes]) -> list[tuple[str, int]]:
    return [(flat[i].decode(), int(flat[i + 1])) for i in range(0, len(flat), 2)]
