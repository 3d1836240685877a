"""Jobs that wait at a backend that is down move on, and come back when it has recovered.

Part of the reaper's sweep. Like the rest of it, it decides by a pure rule (`k9_broker.failover`) and
acts by a fenced script, so that a job which a worker takes meanwhile stays with that worker.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

from k9_broker.adapters import keys
from k9_broker.adapters.connect import Commands
from k9_broker.errors import JobNotFound
from k9_broker.failover import RETURNED, onward
from k9_broker.health import CircuitState
from k9_broker.jobs import JobState
from k9_broker.naming import queue_name
from k9_broker.ports import Ledger
from k9_broker.requests import Kind, Priority
from k9_broker.snapshot import BackendView, Snapshot
from k9_broker.strategy.filters import LONGEST_PACE

logger = logging.getLogger(__name__)

SWEEP_FOR = 2.0
"""Seconds one sweep may take; the next goes on."""
ASK_AGAIN_AFTER = 30.0
"""Seconds until a job that could go nowhere is looked at again, while the same backends are fit."""
ROOM_AGAIN_AFTER = 5.0
"""The same for a job whose places were all full."""
_PAGE = 200


class Mover:
    """Moves the waiting jobs of a fleet. Raises `LedgerUnavailable`."""

    def __init__(self, commands: Commands, ledger: Ledger) -> None:
        self._commands = commands
        self._ledger = ledger
        self._fit: set[tuple[str, Kind, frozenset[str]]] = set()
        self._stuck: dict[str, float] = {}
        """Jobs that must stay, by when they are looked at again: thousands may wait for an hour."""

    async def sweep(self, snapshot: Snapshot) -> dict[str, int]:
        """One look at every backend; gives how many jobs moved on, and how many came back."""
        now = time.monotonic()
        fit = {(view.name, view.kind, view.models) for view in snapshot.backends if view.fit}
        if fit != self._fit:
            self._fit, self._stuck = fit, {}
        self._stuck = {job_id: at for job_id, at in self._stuck.items() if at > now}
        counts = {"moved": 0, "returned": 0}
        away = [keys.moved(view.name) for view in snapshot.backends if view.fit]
        some_are_away = bool(away) and await self._commands.command("EXISTS", *away)
        for view in snapshot.backends:
            if view.fit:
                if some_are_away:  # of a hundred backends hardly one ever has jobs elsewhere
                    counts["returned"] += await self._bring_back(view, snapshot)
                continue
            for priority in Priority:
                counts["moved"] += await self._move_on(view, priority, snapshot, now + SWEEP_FOR)
        return counts

    async def _move_on(self, view: BackendView, priority: Priority, snapshot: Snapshot, until: float) -> int:
        room = {
            other.name: other.max_waiting[priority] - other.waiting.get(priority, 0)
            for other in snapshot.backends
            if other.fit
        }
        queue = queue_name(view.kind, view.name, priority)
        moved = start = 0
        while time.monotonic() < until and any(left > 0 for left in room.values()):
            ids = await self._commands.command("ZRANGE", keys.waiting(queue), start, start + _PAGE - 1)
            if not ids:
                break
            for job_id in map(bytes.decode, ids):
                if job_id not in self._stuck and (went := await self._moved(job_id, view, snapshot, room)):
                    room[went] -= 1
                    moved += 1
                else:
                    start += 1  # it stays where it is in the index
        if moved:
            logger.info("%s: %d jobs moved on (%s)", view.name, moved, view.unfit)
        return moved

    async def _moved(
        self, job_id: str, view: BackendView, snapshot: Snapshot, room: Mapping[str, int]
    ) -> str | None:
        """The backend it went to, if it went."""
        try:
            job, explained = await self._ledger.explanation(job_id)
        except JobNotFound:
            return None
        if job.backend != view.name:
            return None
        why = view.unfit
        places = onward(explained, job, snapshot, reason=f"failover:{why}")
        free = [one for one in places if room[one.backend] > 0]
        home = job.home or ("" if job.reason == RETURNED else view.name)  # it comes back once
        if free and (went := await self._ledger.reroute(job, free, leaves=why, calls=job.calls, home=home)):
            return went
        self._stuck[job_id] = time.monotonic() + (ROOM_AGAIN_AFTER if places else ASK_AGAIN_AFTER)
        return None

    async def _bring_back(self, view: BackendView, snapshot: Snapshot) -> int:
        """As many as the backend can begin with now: the others may be run where they are."""
        room, returned, away = _room(view), 0, keys.moved(view.name)
        while returned < room and (
            ids := await self._commands.command("ZRANGE", away, 0, room - returned - 1)
        ):
            for job_id in map(bytes.decode, ids):
                returned += await self._returned(job_id, view, snapshot)
                await self._commands.command("ZREM", away, job_id)
        if returned:
            logger.info("%s: %d jobs came back", view.name, returned)
        return returned

    async def _returned(self, job_id: str, view: BackendView, snapshot: Snapshot) -> bool:
        """Whether it came back; one that did not now, because its money is short, is run where it is."""
        try:
            job, explained = await self._ledger.explanation(job_id)
        except JobNotFound:
            return False
        if job.state is not JobState.QUEUED or job.home != view.name:
            return False
        places = onward(explained, job, snapshot, reason=RETURNED, only=view.name)
        return bool(places and await self._ledger.reroute(job, places, leaves=RETURNED, calls=job.calls))


def _room(view: BackendView) -> int:
    """How many more jobs a backend can begin with now: one alone while its circuit is being tried."""
    if view.paced_seconds > LONGEST_PACE:
        return 0
    well = not view.instances or any(one.state is CircuitState.CLOSED for _, one in view.instances)
    return (view.slots if well else 1) - view.in_flight - view.ahead(Priority.BATCH)
