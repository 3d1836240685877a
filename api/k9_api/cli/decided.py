"""A decision as a person reads it: what the request was taken for, who may have it, and who may not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

Said = Mapping[str, Any]
"""A route object, as `/v1/route` or `/v1/jobs/{id}/route` answers it."""


def usd(amount: float | None) -> str:
    """Dollars with as many digits as are worth reading."""
    if amount is None:
        return "unknown"
    if amount == 0:
        return "$0"
    sign, size = "-" if amount < 0 else "", abs(amount)
    if size < 0.000001:
        return f"{sign}<$0.000001"
    digits = 6 if size < 0.01 else 4 if size < 100 else 2
    return f"{sign}${size:,.{digits}f}"


def show(said: Said, ending: Callable[[Said], Iterable[tuple[str, str]]], *, as_json: bool) -> None:
    """A route object as JSON, or in tables with what `ending` says of it below them."""
    from rich.console import Console

    console = Console()
    if as_json:
        console.print_json(data=said)
        return
    _print_decision(console, said)
    _print_pairs(console, ending(said))


def _print_decision(console: Console, said: Said) -> None:
    """What the request was taken for; the candidates in order, the choice marked; the removals."""
    _print_pairs(console, _taken_for(said))
    if said.get("candidates"):
        console.print()
        console.print(_candidates(said, ", " if console.width >= 100 else "\n"))
    if said.get("removals"):
        console.print()
        console.print(_removals(said["removals"]))
    console.print()


def _print_pairs(console: Console, pairs: Iterable[tuple[str, str]]) -> None:
    """Names and values, one a line, whatever is in them."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for name, value in pairs:
        table.add_row(name, Text(value))
    console.print(table)


def comparison(said: Said) -> str | None:
    """What the same would cost in the cloud, and what is saved by that."""
    model, there, choice = said.get("compared_with"), said.get("compared_cost_usd"), said.get("choice")
    if model is None or there is None:
        return None
    at = f"{usd(there)} at {model}"
    if not choice or choice.get("cost_usd") is None:
        return at
    return f"{at}; {_saving(there - choice['cost_usd'])}"


def _saving(amount: float) -> str:
    return f"{usd(-amount)} more is spent" if amount < 0 else f"{usd(amount)} is saved"


def _taken_for(said: Said) -> Iterator[tuple[str, str]]:
    yield "asked for", f"{said['asked_model']} at {said['endpoint']}, {said['priority']}"
    if "task_type" not in said:
        return
    sure = f"{said['confidence']:.0%} sure, " if said["task_type_by"] == "text" else ""
    yield "task type", f"{said['task_type']} ({sure}{_by(said['task_type_by'])})"
    yield "needs strong", f"{said['needs_strong']:.2f} of 1"
    yield "tokens", f"about {said['prompt_tokens']:,} in, {said['output_tokens']:,} out"
    yield "strategy", f"{said['strategy']} ({_by(said['strategy_by'])})"
    why = "; ".join(map(_by, said["privacy_by"]))
    yield "privacy", f"{said['privacy']} ({why})" if why else str(said["privacy"])


def _by(whom: str) -> str:
    """`rule:NAME` and its like in words."""
    who, _, name = whom.partition(":")
    match who:
        case "rule":
            return f"by the rule {name!r}"
        case "found":
            return f"{name.replace('_', ' ')} was found in it"
        case "default":
            return "by default"
        case _:
            return f"by the {who}"


def _candidates(said: Said, between: str) -> Table:
    """`between` stands between two scores."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    table.add_column("candidate", overflow="fold")
    for name in ("score", "cost", "wait", "latency"):
        table.add_column(name, no_wrap=True, justify="right")
    table.add_column("why", overflow="fold")
    passed = said.get("passed") or ()
    chosen = len(passed) if said.get("choice") else None
    for rank, one in enumerate(said["candidates"]):
        why = [one["reason"], between.join(f"{name} {score:.2f}" for name, score in one["scores"].items())]
        if rank < len(passed):
            why.append(f"passed over: {passed[rank]['reason']}")
        table.add_row(
            "*" if rank == chosen else "-" if rank < len(passed) else "",
            Text(f"{one['backend']} ({one['kind']})\n{one['model']}"),
            f"{one['score']:.2f}",
            usd(one["cost_usd"]),
            f"{one['wait_seconds']:.1f} s",
            f"{one['seconds']:.1f} s",
            Text("\n".join(filter(None, why))),
            style="bold" if rank == chosen else "",
        )
    return table


def _removals(removals: Sequence[Said]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("not possible", "model", "why"):
        table.add_column(name, overflow="fold")
    for one in removals:
        table.add_row(Text(one["backend"]), Text(one.get("model") or "all"), Text(one["reason"]))
    return table
