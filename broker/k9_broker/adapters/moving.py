"""Jobs that wait at a backend that is down move on, and come back when it has recovered.

Part of the reaper's sweep. Like the rest of it, it decides by a pure rule (`k9_broker.failover`) and
acts by a fenced script, so that a job which a worker takes meanwhile stays with that worker.
"""

from __future__ import annotations

import logging
import time

from k9_broker.adapters import keys
from k9_broker.adapters.connect import Commands
from k9_broker.errors import JobNotFound
from k9_broker.failover import RETURNED, onward
from k9_broker.jobs import JobState
from k9_broker.naming import queue_name
from k9_broker.ports import Ledger
from k9_broker.requests import Priority
from k9_broker.snapshot import BackendView, Snapshot
from k9_broker.strategy.filters import NO_WORKER

logger = logging.getLogger(__name__)

SWEEP_FOR = 2.0
"""Seconds one sweep may take; the next goes on."""
ASK_AGAIN_AFTER = 5.0
"""Seconds until a job that could go nowhere is looked at again."""
_PAGE = 200


class Mover:
    """Moves the waiting jobs of a fleet. Raises `LedgerUnavailable`."""

    def __init__(self, commands: Commands, ledger: Ledger) -> None:
        self._commands = commands
        self._ledger = ledger
        self._stuck: dict[str, float] = {}

    async def sweep(self, snapshot: Snapshot) -> dict[str, int]:
        """One look at every backend; gives how many jobs moved on, and how many came back."""
        until = time.monotonic() + SWEEP_FOR
        self._stuck = {job_id: at for job_id, at in self._stuck.items() if at > time.monotonic()}
        counts = {"moved": 0, "returned": 0}
        anywhere = any(view.fit for view in snapshot.backends)
        for view in snapshot.backends:
            if view.fit:
                counts["returned"] += await self._bring_back(view, snapshot)
            elif anywhere:
                for priority in Priority:
                    queue = queue_name(view.kind, view.name, priority)
                    counts["moved"] += await self._move_on(view, queue, snapshot, until)
        return counts

    async def _move_on(self, view: BackendView, queue: str, snapshot: Snapshot, until: float) -> int:
        why = view.down or NO_WORKER
        moved = start = 0
        while time.monotonic() < until:
            ids = await self._commands.command("ZRANGE", keys.waiting(queue), start, start + _PAGE - 1)
            if not ids:
                break
            for job_id in map(bytes.decode, ids):
                if job_id not in self._stuck and await self._moved(job_id, view, snapshot, why):
                    moved += 1
                else:
                    start += 1  # it stays where it is in the index
        if moved:
            logger.info("%s: %d jobs moved on (%s)", view.name, moved, why)
        return moved

    async def _moved(self, job_id: str, view: BackendView, snapshot: Snapshot, why: str) -> bool:
        try:
            job, explained = await self._ledger.explanation(job_id)
        except JobNotFound:
            return False
        places = onward(explained, job, snapshot, reason=f"failover:{why}")
        home = job.home or view.name
        if job.backend != view.name:
            return False
        if places and await self._ledger.reroute(job, places, leaves=why, calls=job.calls, home=home):
            return True
        self._stuck[job_id] = time.monotonic() + ASK_AGAIN_AFTER
        return False

    async def _bring_back(self, view: BackendView, snapshot: Snapshot) -> int:
        """As many as the backend has room to begin with now: the others may be run where they are."""
        room = view.slots - view.in_flight - sum(view.waiting.values())
        if room <= 0:
            return 0
        returned, away = 0, keys.moved(view.name)
        while returned < room and (
            ids := await self._commands.command("ZRANGE", away, 0, room - returned - 1)
        ):
            for job_id in map(bytes.decode, ids):
                went = await self._returned(job_id, view, snapshot)
                if went == "":
                    return returned  # at its mark after all
                returned += went is not None
                await self._commands.command("ZREM", away, job_id)
        if returned:
            logger.info("%s: %d jobs came back", view.name, returned)
        return returned

    async def _returned(self, job_id: str, view: BackendView, snapshot: Snapshot) -> str | None:
        """The backend, empty when it has no room, or `None` for a job that is not to come back."""
        try:
            job, explained = await self._ledger.explanation(job_id)
        except JobNotFound:
            return None
        if job.state is not JobState.QUEUED or job.home != view.name:
            return None
        places = onward(explained, job, snapshot, reason=RETURNED, only=view.name)
        return await self._ledger.reroute(job, places, leaves=RETURNED, calls=job.calls) if places else None
