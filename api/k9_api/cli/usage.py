"""`k9 usage`: what the work of one's API key cost, and what it saved."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from k9_api.cli.decided import usd
from k9_api.cli.where import AsJson, Url, http_get

COLUMNS = ("day", "model", "kind", "jobs", "in", "out", "cost", "saved")

Days = Annotated[int, typer.Option(min=1, max=366, help="How many days, today included (UTC).")]


def usage(days: Days = 30, url: Url = None, as_json: AsJson = False) -> None:
    """Show jobs, tokens, cost and saving by day and model, and what is left of today's budget."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    said = http_get(url, f"/v1/usage?days={days}")
    console = Console()
    if as_json:
        console.print_json(data=said)
        return
    if not said["data"]:
        console.print(f"No job of the tenant {said['tenant']!r} has run in {days} days.", markup=False)
    else:
        table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
        for name in COLUMNS:
            words = name in ("day", "model", "kind")
            fold: Any = {"overflow": "fold"} if name == "model" else {"no_wrap": True}
            table.add_column(name, justify="left" if words else "right", **fold)
        for row in said["data"]:
            table.add_row(row["day"], Text(row["model"]), row["kind"], *_numbers(row))
        table.add_section()
        table.add_row("total", "", "", *_numbers(said["total"]), style="bold")
        console.print(table)
        total = said["total"]
        if total["cloud_cost_usd"]:
            console.print(
                f"\nThe jobs with a known price in the cloud cost {usd(total['compared_cost_usd'])}, "
                f"and would have cost {usd(total['cloud_cost_usd'])} there.",
                highlight=False,
            )
    if budget := said["budget"]:
        console.print(
            f"Of today's {usd(budget['usd_per_day'])}, {usd(budget['spent_usd'])} is spent or reserved, "
            f"{usd(budget['remaining_usd'])} is left.",
            highlight=False,
        )


def _numbers(row: dict[str, Any]) -> list[str]:
    counts = (row["jobs"], row["prompt_tokens"], row["completion_tokens"])
    return [*map(_count, counts), usd(row["cost_usd"]), usd(row["saving_usd"])]


def _count(number: int) -> str:
    return f"{number:,}" if number < 10_000_000 else f"{number / 1e6:,.0f}M"
