"""`k9 backends`: every backend and its instances; `k9 backends reset NAME` calls one again."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer

from k9_api.cli.fleetview import state_of
from k9_api.cli.where import AsJson, Url, http_get, redis_url
from k9_broker.errors import ConfigurationError

app = typer.Typer(help="Look at backends and their instances, or have one called again.")

COLUMNS = ("backend", "kind", "dialect", "instance", "state", "reason", "in flight", "load", "worker")
NOBODY = 1
"""The exit code of a reset that no worker heard."""


@app.callback(invoke_without_command=True)
def backends(context: typer.Context, url: Url = None, as_json: AsJson = False) -> None:
    """Show every backend with its instances, as each of its workers sees them."""
    if context.invoked_subcommand:
        return
    from rich.console import Console

    said = http_get(url, "/v1/queues")
    if as_json:
        Console().print_json(data=said)
        return
    if not said["data"]:
        Console().print(
            "No backend has joined yet. Start a worker: `k9 worker --backend NAME`.", markup=False
        )
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", padding=(0, 1, 0, 0))
    for name in COLUMNS:
        table.add_column(name, justify="right" if name == "in flight" else "left", overflow="fold")
    for backend in said["data"]:
        for row in _rows(backend):
            table.add_row(*map(Text, row))
    Console().print(table)


@app.command()
def reset(
    name: Annotated[str, typer.Argument(help="The backend that is mended.")],
    redis: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Default: K9_REDIS_URL, else the private one of `k9 up`."),
    ] = None,
    state_dir: Annotated[Path | None, typer.Option(help="Default: ~/.local/state/k9.")] = None,
) -> None:
    """Close every circuit of a backend at its workers: what was wrong is mended.

    It is for those who run K-9, so it speaks to Redis; the API's keys are its callers', who may not.
    Exit codes: 0 done, 1 no worker of the backend heard it.
    """
    from k9_broker.settings import load_settings

    given = {"redis_url": redis, "state_dir": state_dir}
    settings = load_settings(**{key: value for key, value in given.items() if value is not None})
    heard, known = asyncio.run(_reset(redis_url(settings), name))
    if heard:
        typer.echo(f"{name}: {heard} {'worker calls' if heard == 1 else 'workers call'} it again.")
        return
    if name not in known:
        here = ", ".join(sorted(known)) or "none"
        raise ConfigurationError(f"There is no backend {name!r}. Announced by workers: {here}.")
    typer.echo(f"No worker of {name} is there. Start one: `k9 worker --backend {name}`.", err=True)
    raise typer.Exit(NOBODY)


async def _reset(url: str, name: str) -> tuple[int, set[str]]:
    """How many workers heard it, and the names of all backends that are known."""
    from k9_broker.adapters.connect import Commands, connect
    from k9_broker.adapters.redis_fleet import RedisFleet

    commands = Commands(connect(url, retries=0, connections=2))
    try:
        fleet = RedisFleet(commands)
        return await fleet.reset(name), {view.name for view in (await fleet.snapshot()).backends}
    finally:
        await commands.close()


def _rows(backend: dict[str, Any]) -> list[tuple[str, ...]]:
    """One row for the backend, and below it one for each instance and worker."""
    slots = f"{backend['in_flight']} of {backend['slots']}"
    whole = (
        backend["backend"],
        backend["kind"],
        backend["dialect"],
        "",
        state_of(backend),
        "",
        slots,
        "",
        "",
    )
    return [whole, *(_instance(one) for one in backend["instances"])]


def _instance(one: dict[str, Any]) -> tuple[str, ...]:
    reason = one.get("reason", "")
    if retry := one.get("retry_seconds"):
        reason += f", again in {retry:.0f} s"
    in_flight = str(one.get("in_flight", 0))
    return ("", "", "", one["name"], one["state"], reason, in_flight, _load(one.get("load")), one["worker"])


def _load(load: dict[str, Any] | None) -> str:
    """What the server says of its load, in as few words as it has."""
    if not load:
        return ""
    said = [f"{load[what]} {what}" for what in ("running", "waiting", "slots") if load.get(what) is not None]
    if (full := load.get("saturation")) is not None:
        said.append(f"{full:.0%} full")
    if (loaded := load.get("loaded")) is not None:
        names = [name for name in loaded if not name.endswith(":latest") or name[:-7] not in loaded]
        said.append("loaded: " + (", ".join(names) or "none"))
    return ", ".join(said)
