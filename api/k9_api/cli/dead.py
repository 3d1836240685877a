"""`k9 dead`: the jobs that K-9 gave up on though their callers did nothing wrong."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from k9_api.cli import deadview
from k9_api.cli.where import redis_url
from k9_broker.errors import BadRequest, K9Error, LedgerUnavailable

if TYPE_CHECKING:
    from k9_broker.adapters.redis_dead import RedisDeadLetters
    from k9_broker.adapters.redis_fleet import RedisFleet
    from k9_broker.dead_letters import Wanted
    from k9_broker.jobs import Job
    from k9_broker.requests import InferenceRequest
    from k9_broker.settings import Settings
    from k9_broker.snapshot import Snapshot
    from k9_broker.strategy.decision import Decision

app = typer.Typer(
    help="Look at the jobs that K-9 gave up on though their callers did nothing wrong, and run them again.",
    no_args_is_help=True,
)

NOT_ALL = 1
"""The exit code when any of the jobs was not replayed, or not dropped."""
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}

Id = Annotated[str, typer.Argument(help="The job's id, as in the header X-K9-Job.")]
Ids = Annotated[list[str] | None, typer.Argument(help="The jobs' ids.", metavar="ID")]
All = Annotated[bool, typer.Option("--all", help="All dead letters, or those that the filters leave.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before --all.")]
Backend = Annotated[str | None, typer.Option(metavar="NAME", help="Only those that were there last.")]
Code = Annotated[str | None, typer.Option(metavar="CODE", help="Only those with this error, as worker_lost.")]
Tenant = Annotated[str | None, typer.Option(metavar="NAME", help="Only those of this tenant.")]
Since = Annotated[
    str | None,
    typer.Option(metavar="WHEN", help="Only those that ended since: 90s, 30m, 2h, 1d, or an instant."),
]
Limit = Annotated[int, typer.Option(min=1, help="The newest only, so many.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Redis = Annotated[
    str | None, typer.Option(metavar="URL", help="Default: K9_REDIS_URL, else the private one of `k9 up`.")
]
StateDir = Annotated[Path | None, typer.Option(help="Default: ~/.local/state/k9.")]


@app.command("list")
def list_(
    backend: Backend = None,
    code: Code = None,
    tenant: Tenant = None,
    since: Since = None,
    limit: Limit = 100,
    as_json: AsJson = False,
    redis: Redis = None,
    state_dir: StateDir = None,
) -> None:
    """List the dead letters, newest first."""
    from rich.console import Console

    from k9_broker.dead_letters import search

    wanted = _wanted(backend, code, tenant, since)
    letters = _run(_settings(redis, state_dir), lambda here: search(here.letters, wanted, limit))
    console = Console()
    if as_json:
        console.print_json(data={"object": "list", "data": [deadview.plain(one) for one in letters]})
    elif not letters:
        console.print("None of them fits." if wanted.narrows else "There are no dead letters.")
    else:
        deadview.print_table(console, letters)
        if len(letters) == limit:
            console.print(f"These are the newest {limit}; --limit shows more.", highlight=False)


@app.command()
def show(
    id: Id,
    request: Annotated[
        bool, typer.Option("--request", help="Print what the caller sent, too: prompts are in it.")
    ] = False,
    as_json: AsJson = False,
    redis: Redis = None,
    state_dir: StateDir = None,
) -> None:
    """Show all that is known of a dead letter: where it went, why, and what became of it."""
    from k9_api import jobview, routeview
    from k9_api.cli import decided

    async def look(here: _Here) -> tuple[Job, Any, InferenceRequest | None]:
        job, explained = await here.letters.show(id)
        return job, explained, await here.letters.request(id) if request else None

    job, explained, sent = _run(_settings(redis, state_dir), look)
    said = {**jobview.job_object(job), "tried": job.tried, "calls": job.calls, "tenant": job.tenant}
    if sent is not None:
        said["request"] = sent.body
    if as_json:
        from rich.console import Console

        Console().print_json(data={**said, "route": routeview.taken(job, explained)})
        return
    decided.show(routeview.taken(job, explained), lambda _: deadview.became(said), as_json=False)


@app.command()
def replay(
    ids: Ids = None,
    all_: All = False,
    yes: Yes = False,
    backend: Backend = None,
    code: Code = None,
    tenant: Tenant = None,
    since: Since = None,
    redis: Redis = None,
    state_dir: StateDir = None,
) -> None:
    """Run dead letters again under the same ids, wherever they may go now.

    Each is decided anew and has its whole time again; what had to stay local still has to.

    Policy and budgets are those of the k9.toml read here: let it be the API's.

    Exit codes: 0 all were queued, 1 any was not.
    """
    from k9_broker import dead_letters
    from k9_broker.strategy.engine import Router

    settings = _settings(redis, state_dir)
    router = Router(settings.policy)

    async def decide(request: InferenceRequest, snapshot: Snapshot) -> Decision:
        return router.decide(request, snapshot)

    async def one(here: _Here, job_id: str) -> str:
        job = await dead_letters.replay(job_id, letters=here.letters, fleet=here.fleet, decide=decide)
        return f"to {job.backend} ({job.kind}), {job.model}: {job.reason}"

    wanted = _wanted(backend, code, tenant, since)
    _each(settings, _named(ids, all_, wanted), wanted, one, "replay", "replayed", asks=not yes)


@app.command()
def drop(
    ids: Ids = None,
    all_: All = False,
    yes: Yes = False,
    backend: Backend = None,
    code: Code = None,
    tenant: Tenant = None,
    since: Since = None,
    redis: Redis = None,
    state_dir: StateDir = None,
) -> None:
    """Forget dead letters, with what their callers sent.

    Exit codes: 0 all are gone, 1 any is not.
    """

    async def one(here: _Here, job_id: str) -> str:
        await here.letters.drop(job_id)
        return "dropped"

    wanted = _wanted(backend, code, tenant, since)
    settings = _settings(redis, state_dir)
    _each(settings, _named(ids, all_, wanted), wanted, one, "drop", "dropped", asks=not yes)


# -- reaching them --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Here:
    letters: RedisDeadLetters
    fleet: RedisFleet


def _settings(redis: str | None, state_dir: Path | None) -> Settings:
    from k9_broker.settings import load_settings

    given = {"redis_url": redis, "state_dir": state_dir}
    return load_settings(**{key: value for key, value in given.items() if value is not None})


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[_Here]:
    from k9_broker.adapters.connect import Commands, connect
    from k9_broker.adapters.redis_dead import RedisDeadLetters
    from k9_broker.adapters.redis_fleet import RedisFleet

    # No retries: the second try of a replay whose reply was lost would find that somebody has replayed it.
    commands = Commands(connect(redis_url(settings), retries=0, connections=2))
    try:
        yield _Here(RedisDeadLetters(commands, settings.jobs), RedisFleet(commands))
    finally:
        await commands.close()


def _run(settings: Settings, act: Callable[[_Here], Awaitable[Any]]) -> Any:
    async def acted() -> Any:
        async with _opened(settings) as here:
            return await act(here)

    return asyncio.run(acted())


def _named(ids: Sequence[str] | None, all_: bool, wanted: Wanted) -> list[str] | None:
    """The jobs that were named; `None` for all that are wanted."""
    if bool(ids) == all_:
        raise BadRequest("Name the jobs, or say --all. `k9 dead list` shows them.")
    if ids and wanted.narrows:
        raise BadRequest("The filters narrow down --all; leave them out when you name the jobs.")
    return list(dict.fromkeys(ids)) if ids else None


def _each(
    settings: Settings,
    named: list[str] | None,
    wanted: Wanted,
    act: Callable[[_Here, str], Awaitable[str]],
    verb: str,
    done: str,
    *,
    asks: bool,
) -> None:
    """Do it to each, oldest first, and tell what came of it."""
    from k9_broker.dead_letters import search

    if named is None:
        found = _run(settings, lambda here: search(here.letters, wanted))
        if not found:
            typer.echo("There is no such dead letter.")
            return
        if asks:
            letters = "dead letter" if len(found) == 1 else "dead letters"
            typer.confirm(f"{verb.capitalize()} {len(found)} {letters}?", abort=True)
        named = [letter.id for letter in reversed(found)]

    async def all_of_them(here: _Here) -> int:
        count = 0
        for job_id in named:
            try:
                typer.echo(f"{job_id} {await act(here, job_id)}")
                count += 1
            except LedgerUnavailable:
                typer.echo(f"{count} of {len(named)} {done}.", err=True)
                raise
            except K9Error as error:
                typer.echo(f"{job_id} not {done}: {error.message} ({error.code})", err=True)
        return count

    count = _run(settings, all_of_them)
    if len(named) > 1:
        typer.echo(f"{count} of {len(named)} {done}.")
    if count < len(named):
        raise typer.Exit(NOT_ALL)


def _wanted(backend: str | None, code: str | None, tenant: str | None, since: str | None) -> Wanted:
    from k9_broker.dead_letters import Wanted

    return Wanted(backend, code, tenant, _instant(since))


def _instant(since: str | None) -> float | None:
    """Unix seconds for `2h` (that long ago) or an ISO 8601 instant, local time if it has no zone."""
    if since is None:
        return None
    if ago := re.fullmatch(r"(\d{1,9})([smhdw])", since):
        return time.time() - int(ago[1]) * _UNITS[ago[2]]
    try:
        return datetime.fromisoformat(since).timestamp()
    except (ValueError, OverflowError):
        raise BadRequest(
            f"--since {since!r} is neither a time such as 30m, 2h or 1d nor an instant as 2026-01-31T18:00."
        ) from None
