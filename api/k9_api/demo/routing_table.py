"""The routing demo's tables, made for 120 columns; 80 will do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from k9_api.demo.prompts import Prompt

_COLOURS = {"local": "green", "cloud": "yellow"}
_MICRO = 1_000_000
_PROMPT = 25
"""Columns of the shortened prompt."""
_LEGEND = """Each cell: the backend, the cost in millionths of a dollar, and below them the reason.
strong: 0 to 1, how much a strong model would gain. privacy: what keeps the prompt on these machines.
"""
_ABOUT_TOTALS = """US dollars, as GET /v1/usage tells them.
all-cloud: what the same jobs would have cost without local backends, where their strategy goes then;
compare_with under [routing] measures all of them by one model."""


@dataclass(frozen=True, slots=True)
class Routed:
    """What K-9 told of one prompt under one strategy."""

    prompt: Prompt
    headers: Mapping[str, str]
    """Of the answer, in lower case."""
    route: Mapping[str, Any]
    """Of the job: `GET /v1/jobs/{id}/route`."""


@dataclass(frozen=True, slots=True)
class Run:
    """All prompts under one strategy."""

    strategy: str
    routed: Sequence[Routed]
    usage: Mapping[str, Any]
    """`GET /v1/usage` of the strategy's own tenant."""


def show(runs: Sequence[Run], console: Console) -> None:
    """Every prompt under every strategy, then the totals."""
    if not console.is_terminal:
        console = Console(file=console.file, width=120)
    console.print(_prompts(runs))
    console.print("\n" + _LEGEND, highlight=False, markup=False)
    console.print(_totals(runs))
    console.print("\n" + _ABOUT_TOTALS, highlight=False, markup=False)


def _prompts(runs: Sequence[Run]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)
    table.add_column("prompt", max_width=_PROMPT)
    table.add_column("task type", max_width=14)
    table.add_column("strong", justify="right", no_wrap=True)  # the others give way
    for run in runs:
        table.add_column(run.strategy, max_width=17)
    for row in zip(*(run.routed for run in runs), strict=True):
        first = row[0]
        table.add_row(
            _shortened(first),
            first.headers["x-k9-task-type"].replace("_", " "),
            f"{first.route['needs_strong']:.2f}",
            *(_where(one) for one in row),
        )
    return table


def _shortened(one: Routed) -> Text:
    """The first words on a line, and below them what keeps the prompt here, if anything does."""
    text = Text(" ".join(one.prompt.text.split()), no_wrap=True, overflow="ellipsis")
    text.truncate(_PROMPT, overflow="ellipsis")
    if by := one.route["privacy_by"]:
        text.append("\nprivacy: " + ", ".join(who.removeprefix("found:") for who in by), "italic")
    return text


def _where(one: Routed) -> Text:
    usd = one.route["cost_usd"]
    cost = "?" if usd is None else f"{usd * _MICRO:.0f}" if usd else ""
    head = one.headers["x-k9-backend"]
    reason = one.headers["x-k9-reason"].removeprefix(f"{one.headers['x-k9-strategy']}:")
    text = Text(f"{head:<11}{cost:>6}" if cost else head, _COLOURS[one.headers["x-k9-kind"]])
    return text.append(f"\n{reason}", "dim")


def _totals(runs: Sequence[Run]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)
    table.add_column("strategy", no_wrap=True)
    for name in ("local", "cloud", "tokens in", "out", "cost", "all-cloud", "saving", "saved"):
        table.add_column(name, justify="right", no_wrap=True)
    for run in runs:
        total = run.usage["total"]
        there = total["cloud_cost_usd"]
        table.add_row(
            run.strategy,
            *(str(_jobs(run.usage, kind)) for kind in _COLOURS),
            str(total["prompt_tokens"]),
            str(total["completion_tokens"]),
            f"{total['cost_usd']:.6f}",
            f"{there:.6f}",
            f"{total['saving_usd']:.6f}",
            f"{total['saving_usd'] / there:.0%}" if there else "",
        )
    return table


def _jobs(usage: Mapping[str, Any], kind: str) -> int:
    return sum(one["jobs"] for one in usage["by_model"] if one["kind"] == kind)
