"""The fleet on Redis: announcements with a time to live, and the depths that admission itself uses."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import groupby, islice
from typing import TypeVar

from pydantic import ValidationError

from k9_broker.adapters import keys
from k9_broker.adapters.connect import Commands
from k9_broker.backends import Announcement
from k9_broker.health import CircuitState
from k9_broker.jobs import JobState
from k9_broker.models import Latency
from k9_broker.requests import Operation, Priority
from k9_broker.snapshot import BackendView, Snapshot
from k9_broker.strategy.filters import OPEN

N = TypeVar("N", int, float)

_Said = tuple[Announcement, bool]
"""An announcement, and whether its worker is alive."""

ANNOUNCE_EVERY = 2.0
"""Seconds between a worker's announcements."""
ANNOUNCEMENT_LIVES = 8.0
"""Seconds after which a silent worker counts as gone."""
_REMEMBERED = 600
"""Seconds a backend without workers is still known: unavailable, rather than unheard of."""
_FRESH = 0.05
"""Seconds a snapshot is reused; admission checks the depth itself, so its age does no harm."""
_FRESH_EACH = 0.001
"""Seconds more for each backend: a larger fleet takes longer to look at."""


class RedisFleet:
    """Implements `k9_broker.ports.Fleet`."""

    def __init__(self, commands: Commands) -> None:
        self._commands = commands
        self._reading = _Reading()
        self._snapshot = Snapshot()
        self._taken = float("-inf")
        self._taking: asyncio.Task[None] | None = None

    async def announce(self, announcement: Announcement) -> None:
        await self._commands.script(
            "announce",
            [keys.WORKERS, keys.worker(announcement.node)],
            [
                announcement.node,
                announcement.model_dump_json(exclude_defaults=True),
                *(ANNOUNCEMENT_LIVES, _REMEMBERED),
            ],
        )

    async def last_models(self, node: str) -> tuple[str, ...]:
        """The models of the node's last announcement; none when it has been away for long."""
        text = await self._commands.command("GET", keys.worker(node))
        with suppress(ValidationError):
            return Announcement.model_validate_json(text).models if text else ()
        return ()

    async def withdraw(self, node: str) -> None:
        await self._commands.command("ZADD", keys.WORKERS, "XX", 0, node)

    async def reset(self, backend: str) -> int:
        """Tell a backend's workers to close every circuit; gives how many heard it."""
        return int(await self._commands.command("PUBLISH", keys.control(backend), "reset"))

    async def announcements(self) -> Sequence[Announcement]:
        """What each live worker says of itself, as the store has it now."""
        now, workers, *_ = await self._commands.script("fleet", [keys.WORKERS, keys.EMBEDDING_MODEL], [])
        return [one for one, is_alive in self._reading.said(now, workers) if is_alive]

    async def ended(self) -> Mapping[tuple[str, Operation, JobState], int]:
        counts: dict[bytes, bytes] = await self._commands.command("HGETALL", keys.ENDED)
        named = {tuple(name.decode().split()): int(count) for name, count in counts.items()}
        return {(where, Operation(what), JobState(how)): n for (where, what, how), n in named.items()}

    async def rerouted(self) -> Mapping[tuple[str, str, str], int]:
        counts: dict[bytes, bytes] = await self._commands.command("HGETALL", keys.REROUTED)
        named = {tuple(name.decode().split(" ", 2)): int(count) for name, count in counts.items()}
        return {(left, went, why): n for (left, went, why), n in named.items()}

    async def dead_letters(self) -> int:
        return int(await self._commands.command("ZCARD", keys.DEAD))

    async def snapshot(self, *, fresh: bool = False) -> Snapshot:
        reused = _FRESH + _FRESH_EACH * len(self._snapshot.backends)
        if fresh or time.monotonic() - self._taken > reused:
            # All who ask meanwhile share one outcome, so that a silent Redis costs each one wait, not many.
            if self._taking is None:
                self._taking = asyncio.create_task(self._take())
            await asyncio.shield(self._taking)
        return self._snapshot

    def admitted(self, backend: str, priority: Priority) -> None:
        self._snapshot = self._snapshot.admitted(backend, priority)

    async def _take(self) -> None:
        try:
            reply = await self._commands.script("fleet", [keys.WORKERS, keys.EMBEDDING_MODEL], [])
            self._snapshot = self._reading.snapshot(*reply)
            self._taken = time.monotonic()
        finally:
            self._taking = None


class _Reading:
    """Reads what the `fleet` script gives. Announcements change every few seconds and snapshots are taken
    many times a second, so what announcements come to is kept while they are the same: only depths are
    read anew. Nothing is kept that was not in the last reply."""

    def __init__(self) -> None:
        self._texts: dict[bytes, Announcement] = {}
        self._views: dict[tuple[tuple[int, bool], ...], tuple[list[_Said], BackendView]] = {}

    def said(self, now: bytes, workers: Sequence[bytes]) -> list[_Said]:
        """Each worker's announcement, and whether the worker is alive."""
        alive: list[_Said] = []
        texts: dict[bytes, Announcement] = {}
        for expiry, text in zip(workers[::2], workers[1::2], strict=True):
            with suppress(ValidationError):  # of a version that says other things: not ours to route to
                one = texts[text] = self._texts.get(text) or Announcement.model_validate_json(text)
                alive.append((one, float(expiry) > float(now)))
        self._texts = texts
        return alive

    def snapshot(
        self, now: bytes, workers: Sequence[bytes], depths: Sequence[bytes | int], embedding_model: bytes
    ) -> Snapshot:
        alive = sorted(self.said(now, workers), key=_backend)
        depth_of = {}
        rest = iter(depths)
        while row := list(islice(rest, 9)):
            name = row[0].decode() if isinstance(row[0], bytes) else str(row[0])
            depth_of[name] = [float(value) for value in row[1:]]
        kept, views = self._views, []
        self._views = {}
        for _, group in groupby(alive, key=_backend):
            said = list(group)
            same = tuple((id(one), is_alive) for one, is_alive in said)
            known = self._views[same] = kept.get(same) or (said, _view(said))
            view = known[1]
            views.append(_with_depths(view, depth_of[f"{view.kind}.{view.name}"]))
        ordered = tuple(sorted(views, key=lambda view: (view.order, view.name)))
        return Snapshot(ordered, embedding_model.decode() or None)


def _backend(said: _Said) -> str:
    return said[0].backend


def _with_depths(view: BackendView, depths: Sequence[float]) -> BackendView:
    in_flight, interactive, parked, interactive_age, batch, batch_parked, batch_age, saturated = depths
    return replace(
        view,
        waiting={Priority.INTERACTIVE: int(interactive), Priority.BATCH: int(batch)},
        parked={Priority.INTERACTIVE: int(parked), Priority.BATCH: int(batch_parked)},
        in_flight=int(in_flight),
        saturated=bool(saturated),
        oldest_age=max(interactive_age, batch_age),
    )


def _view(said: list[_Said]) -> BackendView:
    """What the workers of one backend say together; its depths are not theirs to say."""
    live = [announcement for announcement, is_alive in said if is_alive]
    of = live or [announcement for announcement, _ in said]
    down = _down(live)
    return BackendView(
        name=of[0].backend,
        kind=of[0].kind,
        dialect=of[0].dialect,
        models=frozenset(model for one in of for model in one.models),
        operations=frozenset(operation for one in of for operation in one.operations),
        order=min(one.order for one in of),
        slots=sum(_fit_slots(one) for one in live),
        max_waiting={
            Priority.INTERACTIVE: max(one.max_waiting for one in of),
            Priority.BATCH: max(one.max_waiting_batch for one in of),
        },
        workers=len(live),
        service_seconds=sum(one.service_seconds for one in of) / len(of),
        service_spread=sum(one.service_spread for one in of) / len(of),
        overflow_at=_mark(one.overflow_at for one in of),
        overflow_wait=_mark(one.overflow_wait for one in of),
        cards={model: card for one in of for model, card in one.cards.items()},
        latencies=_mean_latencies(of),
        slot_usd_per_hour=sum((one.gpu_usd_per_hour or 0.0) / one.slots for one in of) / len(of),
        down=down,
        down_seconds=_down_seconds(live) if down == OPEN else 0.0,
        paced_seconds=min((one.paced_seconds for one in live), default=0.0),
        instances=tuple((one.node, instance) for one in live for instance in one.instances),
    )


def _mark(said: Iterable[N | None]) -> N | None:
    """The mark its workers announce; while it is being changed, the higher one."""
    return max((one for one in said if one is not None), default=None)


def _fit_slots(one: Announcement) -> int:
    """The worker's slots at instances that are fit, one at each that is tried; all, if it tells of none."""
    states = Counter(instance.state for instance in one.instances)
    closed = states[CircuitState.CLOSED]
    if closed == len(one.instances):
        return one.slots
    return math.ceil(one.slots * closed / len(one.instances)) + states[CircuitState.HALF_OPEN]


def _down(live: Sequence[Announcement]) -> str:
    """Why no instance at any worker is to be called; empty when one is, or nobody is there to say."""
    if not live or any(_fit_slots(one) for one in live):
        return ""
    states = [instance for one in live for instance in one.instances]
    if all(instance.state is CircuitState.OUT for instance in states):
        return f"out:{states[0].reason}"
    return OPEN


def _down_seconds(live: Sequence[Announcement]) -> float:
    """Seconds until the first of the instances is tried again."""
    waits = [one.retry_seconds for said in live for one in said.instances if one.retry_seconds is not None]
    return min(waits, default=0.0)


def _mean_latencies(of: Sequence[Announcement]) -> dict[str, Latency]:
    """Per model the mean over the workers that have called it: a job may be taken by any of them."""
    said: dict[str, list[Latency]] = {}
    for one in of:
        for model, latency in one.latencies.items():
            said.setdefault(model, []).append(latency)
    return {
        model: Latency(
            ttft=sum(one.ttft for one in several) / len(several),
            tpot=sum(one.tpot for one in several) / len(several),
        )
        for model, several in said.items()
    }
