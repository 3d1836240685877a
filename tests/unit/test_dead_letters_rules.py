"""Which jobs are dead letters, which of them are meant, and how they look, without any Redis."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from io import StringIO
from typing import Any

import pytest
from prometheus_client import generate_latest

from k9_api import metrics
from k9_api.cli import deadview
from k9_broker.dead_letters import DeadLetter, Page, Wanted, is_one, search
from k9_broker.errors import (
    BackendCredentials,
    BackendTimeout,
    BackendUnreachable,
    ContextTooLong,
    JobCancelled,
    JobExpired,
    K9Error,
    PrivacyRefused,
    StreamTruncated,
    WorkerLost,
)
from k9_broker.jobs import Job, JobState
from k9_broker.requests import Kind, Operation, Priority
from k9_broker.snapshot import Snapshot

JOB = Job(
    id="job-1", state=JobState.FAILED, generation=1, operation=Operation.CHAT, model="m", tenant="t",
    priority=Priority.INTERACTIVE, backend="a", kind=Kind.LOCAL, reason="first", stream=False,
    created_at=1.0, deadline_at=601.0,
)  # fmt: skip


@pytest.mark.parametrize(
    ("state", "error", "is_a_letter"),
    [
        (JobState.DEAD, WorkerLost(), True),
        (JobState.DEAD, None, True),
        *((JobState.FAILED, kind(), True) for kind in (BackendTimeout, BackendCredentials, StreamTruncated)),
        (JobState.FAILED, K9Error(), True),
        *((JobState.FAILED, kind(), False) for kind in (ContextTooLong, PrivacyRefused)),
        (JobState.FAILED, None, False),
        (JobState.CANCELLED, JobCancelled(), False),
        (JobState.EXPIRED, JobExpired(), False),
        (JobState.SUCCEEDED, None, False),
        *((state, BackendUnreachable(), False) for state in (JobState.QUEUED, JobState.RUNNING)),
    ],
)
def test_a_dead_letter_is_what_its_caller_is_not_to_blame_for(
    state: JobState, error: K9Error | None, is_a_letter: bool
) -> None:
    assert is_one(replace(JOB, state=state, error=error)) is is_a_letter


def letter(number: int = 0, **changes: Any) -> DeadLetter:
    said: dict[str, Any] = {
        "id": f"job-{number}", "generation": 1, "ended_at": 1000.0 - number, "model": "m", "backend": "a",
        "tenant": "t", "attempts": 3, "error": BackendUnreachable(),
    }  # fmt: skip
    return DeadLetter(**{**said, **changes})


@pytest.mark.parametrize(
    ("wanted", "fits"),
    [
        ({}, True),
        ({"backend": "a", "tenant": "t", "code": "backend_unreachable", "since": 1000.0}, True),
        ({"backend": "b"}, False),
        ({"tenant": "u"}, False),
        ({"code": "worker_lost"}, False),
        ({"since": 1000.5}, False),
    ],
)
def test_all_that_is_named_must_fit(wanted: dict[str, Any], fits: bool) -> None:
    assert Wanted(**wanted).fits(letter()) is fits


class Pages:
    """Dead letters in pages of two, some of them empty."""

    def __init__(self, *pages: Sequence[DeadLetter]) -> None:
        self.pages = pages
        self.read = 0

    async def page(self, further: str = "", *, since: float | None = None) -> Page:
        at = int(further or 0)
        self.read += 1
        return Page(self.pages[at], str(at + 1) if at + 1 < len(self.pages) else "")


@pytest.mark.parametrize(("most", "found", "read"), [(None, 5, 4), (1, 1, 1), (3, 3, 3), (9, 5, 4)])
async def test_as_many_pages_are_read_as_are_needed(most: int | None, found: int, read: int) -> None:
    pages = Pages([letter(0), letter(1)], [], [letter(2), letter(3)], [letter(4)])
    got = await search(pages, Wanted(), most)  # type: ignore[arg-type]
    assert [one.id for one in got] == [f"job-{number}" for number in range(found)]
    assert pages.read == read


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(-3, "0 s"), (59.4, "59 s"), (60, "1 min"), (3599, "59 min"), (7200, "2 h"), (86400 * 9.9, "9 d")],
)
def test_an_age_is_one_number_and_never_too_old(seconds: float, said: str) -> None:
    assert deadview.age(seconds) == said


@pytest.mark.parametrize("told", [None, 0, 3])
def test_how_many_there_are_is_a_metric_unless_nobody_knows(told: int | None) -> None:
    metrics.observe(Snapshot(), {}, {}, told)
    shown = [line for line in generate_latest().decode().splitlines() if line.startswith("k9_dead_letters")]
    assert shown == ([] if told is None else [f"k9_dead_letters {told}.0"])
    metrics.forget()
    assert b"k9_dead_letters" not in generate_latest()


def test_nothing_of_a_letter_is_read_as_markup() -> None:
    from rich.console import Console

    console = Console(width=160, record=True, file=StringIO())
    deadview.print_table(console, [letter(model="[red]m[/red]", ended_at=time.time())])
    assert "[red]m[/red]" in console.export_text()
