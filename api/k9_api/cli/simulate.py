"""`k9 simulate`: what a fleet, a policy or a price would come to, in virtual time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from k9_broker.simulation.policies import PolicyName

if TYPE_CHECKING:
    from k9_broker.simulation.report import Report, Row

File = Annotated[
    Path | None,
    typer.Argument(metavar="[SCENARIO.toml]", help="What to simulate; without it a built-in example."),
]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change the scenario, as in backends.gpu.slots=16."),
]
Policies = Annotated[
    list[PolicyName] | None,
    typer.Option("--policy", help="Which policy; given several times, they are compared."),
]
Requests = Annotated[int | None, typer.Option(min=1, help="How many requests come at most.")]
Show = Annotated[bool, typer.Option("--example", help="Print the built-in scenario and stop.")]
Json = Annotated[bool, typer.Option("--json", help="Print every figure as JSON.")]


def simulate(
    scenario: File = None,
    changes: Changes = None,
    policies: Policies = None,
    requests: Requests = None,
    example: Show = False,
    as_json: Json = False,
) -> None:
    """Simulate requests through K-9's own rules, millions if need be. No server is asked."""
    from k9_broker.simulation.run import simulate as run
    from k9_broker.simulation.scenario import EXAMPLE, load

    if example:
        typer.echo(EXAMPLE.strip())
        return
    fields: dict[str, Any] = {} if requests is None else {"requests": requests}
    chosen = load(scenario, changes or (), **fields)
    if requests is not None:  # as long as that takes
        chosen = chosen.endless()
    runs = [chosen.model_copy(update={"policy": one}) for one in policies or [chosen.policy]]
    reports = [run(one) for one in runs]
    _show(reports, as_json=as_json)


def _show(reports: list[Report], *, as_json: bool) -> None:
    from rich.console import Console

    console = Console()
    if as_json:
        console.print_json(data={"runs": [one.told() for one in reports]})
        return
    longest = max(reports, key=lambda one: one.seconds)
    asked = f"{longest.total.requests:,} requests, {_span(longest.seconds)}"
    console.print(f"{asked} simulated. Seconds, US dollars.\n", highlight=False)
    console.print(_table("policy", [(one.policy, one.total, one.usd) for one in reports]))
    for report in reports:
        if len(report.traffic) > 1:
            streams = [(f"{row.traffic} ({row.tenant})", row, row.cloud_usd) for row in report.traffic]
            console.print()
            console.print(_table(report.policy, streams))
    for report in reports:
        console.print(f"\n{report.policy}", style="bold", markup=False, highlight=False)
        console.print(f"  served by {_counts(report.backends)}", markup=False, highlight=False)
        console.print(f"  because {_counts(report.total.reasons)}", markup=False, highlight=False)
        if lost := report.total.refused + report.total.expired:
            said = f"  lost {lost:,}: refused {report.total.refused:,}, expired {report.total.expired:,}"
            console.print(said, highlight=False)


def _table(title: str, rows: list[tuple[str, Row, float]]) -> Any:
    """One row for each policy or stream, narrow enough for 80 columns."""
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(title, overflow="fold")
    for name in ("SLO met", "TTFT p50", "p95", "p99", "wait p95", "cloud", "cost", "lost"):
        table.add_column(name, justify="right")
    for name, row, dollars in rows:
        seconds = (row.ttft["p50"], row.ttft["p95"], row.ttft["p99"], row.wait["p95"])
        slo = "" if row.slo is None else f"{row.slo:.1%}"
        told = (slo, *(f"{one:.1f}" for one in seconds), f"{row.cloud:.1%}")
        table.add_row(name, *told, f"{dollars:,.2f}", f"{row.refused + row.expired:,}")
    return table


def _counts(counted: dict[str, int]) -> str:
    most = list(counted.items())[:6]
    return ", ".join(f"{name} {times:,}" for name, times in most) or "nobody"


def _span(seconds: float) -> str:
    for unit, size in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} seconds"
