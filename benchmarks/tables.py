"""What a figure is: tables to read, and aims that it reached or missed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter


@dataclass(frozen=True)
class Table:
    """Rows of ready-made text; the first column names the row."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""

    def __str__(self) -> str:
        lines = [self.columns, *self.rows]
        widths = [max(len(line[at]) for line in lines) for at in range(len(self.columns))]
        shown = [
            "  ".join(
                cell.rjust(width) if at else cell.ljust(width)
                for at, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        ]
        head, *body = shown
        rule = "  ".join("-" * width for width in widths)
        return "\n".join([self.title, "", head, rule, *body, *([self.note] if self.note else [])])


@dataclass(frozen=True)
class Aim:
    """One number to reach."""

    what: str
    reached: float
    wanted: float
    unit: str
    at_most: bool = False
    """Smaller is better."""

    @property
    def met(self) -> bool:
        return self.reached <= self.wanted if self.at_most else self.reached >= self.wanted

    def row(self) -> list[str]:
        sign = "at most" if self.at_most else "at least"
        reached, wanted = f"{self.reached:.4g} {self.unit}", f"{sign} {self.wanted:g} {self.unit}"
        return [self.what, reached, wanted, "yes" if self.met else "NO"]


@dataclass(frozen=True)
class Figure:
    """What one module of this folder measured."""

    tables: Sequence[Table]
    aims: Sequence[Aim] = field(default_factory=tuple)


def aims_table(aims: Sequence[Aim]) -> Table:
    return Table("What to reach", ("aim", "measured", "wanted", "met"), [aim.row() for aim in aims])


def percentile(values: Sequence[float], part: float) -> float:
    """The smallest value that at least the share `part` of all does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def ms(seconds: float) -> str:
    return f"{1000 * seconds:.1f}"


def weather() -> str:
    """How busy the machine is, and how fast: load averages, and milliseconds of an unchanging loop.

    Figures of two runs may be compared only if both are alike.
    """
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    return f"load average {load}, a fixed loop {1000 * min(_loop() for _ in range(5)):.0f} ms"


def _loop() -> float:
    began = perf_counter()
    total = 0
    for number in range(500_000):
        total += number
    return perf_counter() - began
