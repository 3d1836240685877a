"""Jobs that would wait too long where they are go on to a place that has time for them.

Part of the reaper's sweep, like `moving`: a pure rule decides (`k9_broker.lateness`), a fenced script acts.
A job is moved for this reason once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from k9_broker.adapters import keys
from k9_broker.adapters.connect import Commands
from k9_broker.adapters.server_clock import ServerClock
from k9_broker.errors import JobNotFound
from k9_broker.failover import busy_at, onward
from k9_broker.jobs import Job, JobState
from k9_broker.lateness import LATE, is_late, is_worth_it
from k9_broker.naming import queue_name
from k9_broker.ports import Ledger
from k9_broker.requests import Priority
from k9_broker.snapshot import BackendView, Snapshot

logger = logging.getLogger(__name__)

_PAGE = 200
"""Jobs of one queue looked at in a sweep; the next sweep goes on behind them."""
_SOON = 60.0
"""Seconds a job is thought to need at most once it begins, when nobody knows better."""


class LateMover:
    """Moves late jobs of a fleet. Raises `LedgerUnavailable`."""

    def __init__(self, commands: Commands, ledger: Ledger) -> None:
        self._commands = commands
        self._ledger = ledger
        self._clock = ServerClock(commands)
        self._looked: dict[str, int] = {}

    async def sweep(self, snapshot: Snapshot, until: float) -> int:
        """One look at every queue, until `until` on the monotonic clock; gives how many jobs moved."""
        views = [view for view in snapshot.backends if view.fit]
        if len(views) < 2:
            return 0
        now = await self._clock.now()
        moved = 0
        for view in views:
            for priority in Priority:
                if view.waiting.get(priority, 0) and await self._may_be_late(view, priority, now):
                    moved += await self._queue(view, priority, snapshot, now, until)
        return moved

    async def _may_be_late(self, view: BackendView, priority: Priority, now: float) -> bool:
        """Whether looking at each of a queue's jobs is worth it: seldom, and there may be thousands."""
        wait = view.estimated_wait(priority)
        if (
            priority is Priority.INTERACTIVE
            and view.overflow_wait is not None
            and wait > view.overflow_wait / 2
        ):
            return True
        before = ("-inf", now + wait + _SOON, "LIMIT", 0, 1)
        return bool(await self._commands.command("ZRANGEBYSCORE", keys.DEADLINES, *before))

    async def _queue(
        self, view: BackendView, priority: Priority, snapshot: Snapshot, now: float, until: float
    ) -> int:
        queue = queue_name(view.kind, view.name, priority)
        start = self._looked.get(queue, 0)
        ids = await self._commands.command("ZRANGE", keys.waiting(queue), start, start + _PAGE - 1)
        before = view.ahead(Priority.INTERACTIVE) if priority is Priority.BATCH else 0
        moved = 0
        for place, found in enumerate(await asyncio.gather(*map(self._found, map(bytes.decode, ids)))):
            if time.monotonic() > until:
                break
            if found is not None:
                ahead = before + start + place - moved
                moved += await self._moved(*found, view, snapshot, ahead, now)
        self._looked[queue] = start + len(ids) - moved if len(ids) == _PAGE else 0
        if moved:
            logger.info("%s: %d jobs moved on (%s)", view.name, moved, LATE)
        return moved

    async def _found(self, job_id: str) -> tuple[Job, Mapping[str, Any]] | None:
        with suppress(JobNotFound):
            return await self._ledger.explanation(job_id)
        return None

    async def _moved(
        self,
        job: Job,
        explained: Mapping[str, Any],
        view: BackendView,
        snapshot: Snapshot,
        ahead: int,
        now: float,
    ) -> bool:
        if job.state is not JobState.QUEUED or job.backend != view.name or job.reason == LATE:
            return False
        waited, left, busy = now - job.created_at, job.deadline_at - now, busy_at(explained, job)
        if not is_late(view, job.priority, ahead=ahead, waited=waited, busy=busy, seconds_left=left):
            return False
        remaining = view.wait_behind(ahead).p50
        others = {one.name: one for one in snapshot.backends}
        places = [
            place
            for place in onward(explained, job, snapshot, reason=LATE, marks=True)
            if is_worth_it(others[place.backend], job.priority, remaining)
        ]
        return bool(
            places and await self._ledger.reroute(job, places, leaves=LATE, calls=job.calls, within=left)
        )
