"""Showing a run while it goes: a bar on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TextColumn
from rich.progress import Progress as RichProgress


@dataclass(frozen=True, slots=True)
class View:
    """A run at one moment. Lines count what ended in either file; `begun` of them before this run."""

    lines: int
    begun: int
    errors: int
    seconds: float
    total: int | None = None
    """Lines of the whole input, an estimate until it is read to the end; `None`: nobody knows."""
    note: str = ""
    """Why it waits; empty when it does not."""

    @property
    def rate(self) -> float:
        """Lines per second in this run."""
        return (self.lines - self.begun) / self.seconds if self.seconds > 0 else 0.0

    @property
    def eta(self) -> str:
        if self.total is None or not self.rate:
            return "-"
        left = round(max(0, self.total - self.lines) / self.rate)
        return (
            f"{left // 3600}:{left // 60 % 60:02}:{left % 60:02}"
            if left >= 3600
            else f"{left // 60}:{left % 60:02}"
        )

    def __str__(self) -> str:
        total = "" if self.total is None else f"/~{self.total:,}"
        waits = f", {self.note}" if self.note else ""
        return (
            f"{self.lines:,}{total} lines, {self.rate:,.0f}/s, ETA {self.eta}, {self.errors:,} errors{waits}"
        )


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run did. `seconds` and `rate` are this run's; the counts are the whole file's."""

    items: int
    errors: int
    tokens: int
    seconds: float
    rate: float
    """Items per second."""
    backends: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        ran = ", ".join(f"{name} {count:,}" for name, count in sorted(self.backends.items())) or "none"
        return (
            f"{self.items:,} items, {self.errors:,} errors, {self.seconds:.1f} s, {self.rate:,.0f} items/s, "
            f"{self.tokens:,} tokens, peak RSS {peak_rss():.0f} MB, ran on: {ran}"
        )


class Display(Protocol):
    """Shows views as they come, every `interval` seconds."""

    interval: float

    def show(self, view: View) -> None: ...
    def close(self) -> None: ...


class Bar:
    """A progress bar on a terminal."""

    interval = 0.2

    def __init__(self, console: Console) -> None:
        self._bar = RichProgress(
            SpinnerColumn(),
            BarColumn(),
            TextColumn("{task.description}", markup=False),
            console=console,
            auto_refresh=False,
            transient=True,
        )
        self._task = self._bar.add_task("starting", total=None)

    def show(self, view: View) -> None:
        self._bar.start()
        self._bar.update(
            self._task, description=str(view), completed=view.lines, total=view.total, refresh=True
        )

    def close(self) -> None:
        self._bar.stop()


class PlainLines:
    """A line every few seconds, for logs."""

    interval = 5.0

    def __init__(self, echo: Callable[[str], Any]) -> None:
        self._echo = echo

    def show(self, view: View) -> None:
        self._echo(str(view))

    def close(self) -> None:
        pass


class Silent:
    """Shows nothing."""

    interval = 60.0

    def show(self, view: View) -> None:
        pass

    def close(self) -> None:
        pass


def display(quiet: bool, echo: Callable[[str], Any]) -> Display:
    """The display that suits standard error."""
    if quiet:
        return Silent()
    console = Console(stderr=True)
    return Bar(console) if console.is_terminal else PlainLines(echo)


async def keep_showing(on: Display, view: Callable[[], View]) -> None:
    """Show `view()` at the display's interval until cancelled."""
    while True:
        await asyncio.sleep(on.interval)
        on.show(view())


def stopwatch() -> Callable[[], float]:
    """A function that tells the seconds since now."""
    begun = time.monotonic()
    return lambda: time.monotonic() - begun


def peak_rss() -> float:
    """The most memory this process ever held, in MB (10^6 bytes)."""
    try:
        # getrusage would also count what the parent held before exec.
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    except OSError:
        pass
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
