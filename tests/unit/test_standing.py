"""Where waiting jobs stand: what callers are told, when, and at what cost."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from k9_api import standing
from k9_api.standing import Standing, Standings
from k9_broker.errors import LedgerUnavailable
from k9_broker.jobs import Job, JobState
from k9_broker.requests import Kind, Operation, Priority
from k9_broker.saturation import Wait
from k9_broker.snapshot import BackendView, Snapshot
from scripted import VIEW

BUSY = replace(VIEW, in_flight=4, service_seconds=2.0, service_spread=1.0)
"""Four slots, all taken; one of them is free every half second."""


@pytest.mark.parametrize(
    ("view", "ahead", "wait"),
    [
        (VIEW, 0, Wait(0.0, 0.0)),
        (VIEW, 3, Wait(0.0, 0.0)),
        (BUSY, 0, Wait(0.5, 0.8)),
        (BUSY, 11, Wait(6.0, 7.1)),
        (replace(VIEW, paced_seconds=9.0), 0, Wait(9.0, 9.0)),
        (replace(VIEW, name="another"), 0, None),
    ],
)
def test_the_estimate_is_that_of_the_backend_it_waits_at(
    view: BackendView, ahead: int, wait: Wait | None
) -> None:
    assert standing.standing("fake", ahead, Snapshot((view,))) == Standing("fake", ahead + 1, wait)


@pytest.mark.parametrize(
    ("wait", "told", "comment"),
    [
        (Wait(3.1, 6.0), {"p50": 3.1, "p90": 6.0}, b": k9 queued position=12 wait_p50=3.1 wait_p90=6.0\n\n"),
        (None, None, b": k9 queued position=12\n\n"),
    ],
)
def test_what_is_told(wait: Wait | None, told: object, comment: bytes) -> None:
    one = Standing("fake", 12, wait)
    assert one.told() == {"position": 12, "estimated_wait_seconds": told}
    assert json.loads(one.event("job-1")) == {"job": "job-1", "backend": "fake", **one.told()}
    assert one.comment() == comment


# -- the looks ---------------------------------------------------------------------------------------


@dataclass
class Line:
    """Jobs that wait, as ledger and fleet; it counts the looks."""

    ahead_of: dict[str, int | None] = field(default_factory=dict)
    backend: str = "fake"
    away: bool = False
    looks: Counter[str] = field(default_factory=Counter)

    async def ahead(self, job_ids: Sequence[str]) -> Sequence[tuple[str, int] | None]:
        self.looks.update(job_ids)
        if self.away:
            raise LedgerUnavailable
        found = map(self.ahead_of.get, job_ids)
        return [None if ahead is None else (self.backend, ahead) for ahead in found]

    async def snapshot(self) -> Snapshot:
        return Snapshot((BUSY, replace(VIEW, name="other")))


def waiting_job(job_id: str, backend: str = "fake") -> Job:
    return Job(
        id=job_id, state=JobState.QUEUED, generation=1, operation=Operation.CHAT, model="m", tenant="t",
        priority=Priority.INTERACTIVE, backend=backend, kind=Kind.LOCAL, reason="", stream=True,
        created_at=0, deadline_at=60,
    )  # fmt: skip


def looking(line: Line) -> Standings:
    stand_in: Any = line
    return Standings(stand_in, stand_in)


@pytest.fixture
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standing, "LOOK_EVERY", 0.02)


async def after(news: AsyncGenerator[Standing, None]) -> tuple[str, int]:
    async with asyncio.timeout(5):
        found = await anext(news)
    return found.backend, found.position


@pytest.mark.usefixtures("quick_looks")
async def test_news_come_at_once_and_only_of_changes() -> None:
    line = Line({"a": 7})
    async with aclosing(looking(line).news("a")) as news:
        assert await after(news) == ("fake", 8)
        seen = line.looks["a"]
        later = asyncio.ensure_future(after(news))
        while line.looks["a"] < seen + 3:
            await asyncio.sleep(0.005)
        assert not later.done()
        line.ahead_of["a"] = 2
        assert await later == ("fake", 3)
        line.backend = "other"
        assert await after(news) == ("other", 3)


@pytest.mark.usefixtures("quick_looks")
async def test_no_news_of_a_job_that_runs_is_gone_or_cannot_be_asked_about() -> None:
    line = Line({"runs": None, "cut off": 5})
    standings = looking(line)
    async with (
        aclosing(standings.news("runs")) as runs,
        aclosing(standings.news("gone")) as gone,
        aclosing(standings.news("cut off")) as cut_off,
    ):
        line.away = True
        several = [asyncio.ensure_future(after(news)) for news in (runs, gone, cut_off)]
        while line.looks["cut off"] < 3:
            await asyncio.sleep(0.005)
        assert not any(one.done() for one in several)
        line.away = False
        assert await several[2] == ("fake", 6)
        line.ahead_of["runs"] = 0  # its worker handed it back
        assert await several[0] == ("fake", 1)
        several[1].cancel()
        await asyncio.wait(several)


async def test_each_of_many_is_looked_at_once_a_round_and_nobody_when_all_have_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(standing, "LOOK_EVERY", 0.2)
    line = Line({str(number): number for number in range(300)})
    standings = looking(line)
    streams = [standings.news(job_id) for job_id in line.ahead_of]
    assert [await after(one) for one in streams] == [("fake", number + 1) for number in range(300)]
    line.looks.clear()
    while not min(line.looks[job_id] for job_id in line.ahead_of) >= 3:
        await asyncio.sleep(0.01)
    assert max(line.looks.values()) - min(line.looks.values()) <= 1
    for one in streams:
        await one.aclose()
    await asyncio.sleep(0)
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "standings"]


async def test_a_job_that_has_begun_meanwhile_stood_at_the_front() -> None:
    line = Line({"a": None, "b": 3})
    standings = looking(line)
    assert await standings.of(waiting_job("a")) == Standing("fake", 1, Wait(0.5, 0.8))
    assert await standings.of(waiting_job("b")) == Standing("fake", 4, Wait(2.0, 2.6))
    line.away = True
    assert await standings.of(waiting_job("b")) is None
