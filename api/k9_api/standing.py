"""Where a waiting job stands: how many begin before it, and about how long that takes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import to_json

from k9_api.presence import CallerGone
from k9_broker.errors import LedgerUnavailable
from k9_broker.jobs import Job
from k9_broker.ports import Fleet, Ledger
from k9_broker.saturation import Wait
from k9_broker.snapshot import Snapshot

LOOK_EVERY = 1.0
"""Seconds between two looks at one waiting job."""
_TOGETHER = 100
"""Jobs looked at in one go: many share a round trip, and nobody waits long for it."""


@dataclass(frozen=True, slots=True)
class Standing:
    """The place of one job in its backend's queue. The estimate is in seconds, to a tenth."""

    backend: str
    position: int
    """1 for the job that begins next."""
    wait: Wait | None
    """`None` when nothing is known of the backend any more."""

    def told(self) -> dict[str, Any]:
        """As the fields of a job object."""
        wait = self.wait
        estimate = None if wait is None else {"p50": wait.p50, "p90": wait.p90}
        return {"position": self.position, "estimated_wait_seconds": estimate}

    def event(self, job_id: str) -> bytes:
        """As the data of an event."""
        return to_json({"job": job_id, **self.told(), "backend": self.backend})

    def comment(self) -> bytes:
        """As a comment in a stream, which every reader of server-sent events skips."""
        wait = "" if self.wait is None else f" wait_p50={self.wait.p50:.1f} wait_p90={self.wait.p90:.1f}"
        return f": k9 queued position={self.position}{wait}\n\n".encode()


def standing(backend: str, ahead: int, snapshot: Snapshot) -> Standing:
    """The place behind `ahead` other jobs at `backend`."""
    found = next((view.wait_behind(ahead) for view in snapshot.backends if view.name == backend), None)
    return Standing(backend, ahead + 1, found and Wait(round(found.p50, 1), round(found.p90, 1)))


@dataclass(slots=True, eq=False)
class _Watched:
    job_id: str
    last: Standing | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class Standings:
    """Looks after the waiting jobs of all callers of this process, together, about once a second."""

    def __init__(self, ledger: Ledger, fleet: Fleet) -> None:
        self._ledger = ledger
        self._fleet = fleet
        self._watched: dict[_Watched, None] = {}  # in the order they came
        self._looker: asyncio.Task[None] | None = None

    async def of(self, job: Job) -> Standing | None:
        """Where a job stands that was waiting just now; at the front if it has begun since.

        `None` when Redis does not say: that takes nothing from a job that was accepted.
        """
        with suppress(LedgerUnavailable):
            (place,) = await self._ledger.ahead([job.id])
            return standing(*(place or (job.backend, 0)), await self._fleet.snapshot())
        return None

    async def news(self, job_id: str) -> AsyncGenerator[Standing, None]:
        """Where a job stands while it waits: at once, and whenever that has changed. It never ends."""
        watched = _Watched(job_id)
        await self._look([watched])
        self._watched[watched] = None
        if self._looker is None:
            self._looker = asyncio.create_task(self._look_around(), name="standings")
        try:
            while await watched.changed.wait():
                watched.changed.clear()
                if watched.last:
                    yield watched.last
        finally:
            del self._watched[watched]
            if not self._watched and self._looker:
                self._looker.cancel()
                self._looker = None

    async def _look_around(self) -> None:
        while True:
            everybody = list(self._watched)
            pause = LOOK_EVERY * _TOGETHER / max(len(everybody), _TOGETHER)
            for start in range(0, len(everybody), _TOGETHER):
                await asyncio.sleep(pause)
                await self._look(everybody[start : start + _TOGETHER])

    async def _look(self, several: Sequence[_Watched]) -> None:
        try:
            snapshot = await self._fleet.snapshot()
            places = await self._ledger.ahead([watched.job_id for watched in several])
        except LedgerUnavailable:
            return  # the next look may find it back
        for watched, place in zip(several, places, strict=True):
            if place and (now := standing(*place, snapshot)) != watched.last:
                watched.last = now
                watched.changed.set()


class Teller:
    """Tells one caller where its job stands, between `start` and `stop`; both may be repeated."""

    def __init__(
        self, standings: Standings, job_id: str, tell: Callable[[Standing], Awaitable[None]]
    ) -> None:
        """`tell` may raise `CallerGone`."""
        self._standings = standings
        self._job_id = job_id
        self._tell = tell
        self._telling: asyncio.Task[None] | None = None

    def start(self) -> None:
        if self._telling is None:
            self._telling = asyncio.create_task(self._run())

    def stop(self) -> None:
        """What is told after this was told before it."""
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None

    async def _run(self) -> None:
        try:
            async with aclosing(self._standings.news(self._job_id)) as news:
                async for where in news:
                    await self._tell(where)
        except CallerGone:
            return  # whoever attends to the caller finds out too

    def __enter__(self) -> Teller:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
