"""Dead letters as a person reads them, and as a program does."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from k9_broker.dead_letters import DeadLetter

WIDE = 120
"""Columns of a terminal from which everything has a column of its own."""


def plain(letter: DeadLetter) -> dict[str, Any]:
    """A dead letter in plain values; times are Unix seconds."""
    return {
        "id": letter.id,
        "ended_at": letter.ended_at,
        "model": letter.model,
        "backend": letter.backend,
        "tenant": letter.tenant,
        "attempts": letter.attempts,
        "generation": letter.generation,
        "error": {"code": letter.error.code, "message": letter.error.message},
    }


def print_table(console: Console, letters: Sequence[DeadLetter]) -> None:
    """One row each; in a narrow terminal the instant and the error stand below the id. They are never cut."""
    from rich.table import Table
    from rich.text import Text

    wide = console.width >= WIDE
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("age", no_wrap=True, justify="right")
    for name in ("id", "when", "error") if wide else ("id, when and error",):
        table.add_column(name, no_wrap=True)
    for name in ("model", "backend"):
        table.add_column(name, overflow="fold")
    table.add_column("tries", no_wrap=True, justify="right")
    table.add_column("tenant", overflow="fold")
    now = time.time()
    for one in letters:
        what = [one.id, instant(one.ended_at), one.error.code]
        if not wide:
            what = [f"{one.id}\n{what[1][5:-3]} {one.error.code}"]
        row = [age(now - one.ended_at), *what, one.model, one.backend, str(one.attempts), one.tenant]
        table.add_row(*map(Text, row))
    console.print(table)


def became(job: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What the ledger tells of a dead letter beside its decision; `job` is the jobs API's object and more."""
    yield "was last at", f"{job['backend']} ({job['kind']}), {job['model']}"
    yield "because", job["reason"]
    yield "tenant", job["tenant"]
    yield "state", f"{job['state']}, {instant(job['ended_at'])}"
    if error := job["error"]:
        yield "error", f"{error['message']} ({error['code']})"
    attempts = "1 attempt" if job["attempts"] == 1 else f"{job['attempts']} attempts"
    yield "tries", f"{attempts}, generation {job['generation']}"
    if job["worker"]:
        yield "worker", job["worker"]
    if job["tried"]:
        yield "failed at", ", ".join(job["tried"])
    for line in job["skipped"]:
        yield "skipped", line
    yield "submitted", instant(job["created_at"])
    if job["started_at"]:
        yield "began", instant(job["started_at"])
    yield "deadline", instant(job["deadline_at"])
    usage = job["usage"]
    yield "tokens", f"{usage['prompt_tokens']:,} in, {usage['completion_tokens']:,} out"
    if "request" in job:
        yield "request", json.dumps(job["request"], ensure_ascii=False, indent=2)


def instant(seconds: float) -> str:
    """Local time, to the second."""
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def age(seconds: float) -> str:
    """In whole units that have passed; a clock that is a little behind makes nobody younger than new."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{int(seconds / size)} {unit}"
    return f"{int(max(0.0, seconds))} s"
