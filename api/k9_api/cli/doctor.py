"""`k9 doctor`: examines the backends, and says how to mend what is wrong.

Each backend is examined by the workers' half of K-9, in a process that has the key of that backend alone.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from k9_api.cli.fleetview import of_fleet
from k9_api.cli.up import fail
from k9_api.cli.where import Url, http_get, redis_url
from k9_broker.errors import ConfigurationError, K9Error
from k9_broker.findings import Finding, Verdict

if TYPE_CHECKING:
    from k9_broker.backends import Announcement, Backend
    from k9_broker.settings import Settings

AT_ONCE = 4
"""Backends examined at once."""
_SIGNS = {
    Verdict.OK: ("ok", "green"),
    Verdict.HINT: ("hint", "yellow"),
    Verdict.SKIPPED: ("–", "dim"),
    Verdict.WRONG: ("WRONG", "bold red"),
}


def doctor(
    name: Annotated[list[str] | None, typer.Argument(help="Only these backends. Default: all.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON for each finding.")] = False,
    no_calls: Annotated[
        bool, typer.Option("--no-calls", help="Ask for no inference: nothing is spent, no model loaded.")
    ] = False,
    patience: Annotated[
        float | None, typer.Option(min=0.1, help="Seconds an answer may take. Default: 300 local, 60 cloud.")
    ] = None,
    url: Url = None,
    state_dir: Annotated[Path | None, typer.Option(help="Default: ~/.local/state/k9.")] = None,
) -> None:
    """Examine each backend: reachable, credentials, models, a tiny answer, a stream, embeddings.

    Of a running K-9 its workers' own view is told too. Keys are read from this shell's environment.
    Exit codes: 0 all is well, 1 something is to be mended, 2 could not begin.
    """
    from k9_broker.discovery import pick, resolve
    from k9_broker.settings import load_settings

    try:
        settings = load_settings(**({"state_dir": state_dir} if state_dir else {}))
        every = asyncio.run(resolve(settings, os.environ))
        found = pick(every, name) if name else every
    except ModuleNotFoundError as missing:
        fail("doctor", f"{missing.name} is not installed: pip install 'k9-broker[api,workers]'")
    except ConfigurationError as error:
        fail("doctor", error.message)
    from rich.console import Console

    console, notes = Console(soft_wrap=True), Console(stderr=True, soft_wrap=True)
    if not found.backends:
        for note in every.notes:
            notes.print(note, markup=False, highlight=False)
        fail("doctor", "There is no backend to examine.")
    words = [*(["--no-calls"] if no_calls else []), *(["--patience", str(patience)] if patience else [])]
    wrong = 0

    def told(one: Sequence[Finding]) -> None:
        nonlocal wrong
        wrong += sum(finding.is_wrong for finding in one)
        if as_json:
            for finding in one:
                typer.echo(finding.line())
        else:
            _show(console, one)

    with notes.status("") as status:

        def progress(said: str) -> None:
            status.update(said)
            if not notes.is_terminal:
                notes.print(said, markup=False, highlight=False)

        asyncio.run(_examine(found.backends, every.backends, settings, words, told, progress))
    names = [backend.name for backend in found.backends]
    try:
        told(_running(settings, url, names))
    except K9Error as error:
        if url:
            raise
        notes.print(f"No worker was asked for its own view: {error.message}", style="dim")
    if not as_json:
        said = f"{wrong} to mend." if wrong else "All is well."
        console.print(said, style="bold red" if wrong else "bold green")
    raise typer.Exit(1 if wrong else 0)


async def _examine(
    backends: Sequence[Backend],
    every: Sequence[Backend],
    settings: Settings,
    words: Sequence[str],
    told: Callable[[Sequence[Finding]], None],
    progress: Callable[[str], None],
) -> None:
    """A process for each backend, a few at once; each one's findings are told when it has ended."""
    from k9_api.up.plan import own_settings, without_secrets, worker_env

    clean = without_secrets(os.environ, every) | own_settings(settings)
    places = asyncio.Semaphore(AT_ONCE)

    async def one(backend: Backend) -> None:
        async with places:
            told(await _one(backend, worker_env(backend, 0, clean, os.environ), words, progress))

    async with asyncio.TaskGroup() as group:
        for backend in backends:
            group.create_task(one(backend))


async def _one(
    backend: Backend, env: Mapping[str, str], words: Sequence[str], progress: Callable[[str], None]
) -> list[Finding]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "k9_workers.doctor", *words),
        env=dict(env),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout
    assert process.stderr
    complaint = asyncio.ensure_future(process.stderr.read())
    findings = []
    try:
        async for line in process.stdout:
            text = line.decode()
            try:
                findings.append(Finding.read(text))
            except ValueError:
                progress(f"{backend.name}: {json.loads(text)['progress']}")
        code = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
    if code not in (0, 1):
        last = (await complaint).decode(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
        broke = f"its examination broke off: {last[0][:200]}"
        findings.append(
            Finding(backend.name, "examination", Verdict.WRONG, broke, "install k9-broker[workers]")
        )
    return findings


def _running(settings: Settings, url: str | None, names: Sequence[str]) -> list[Finding]:
    """What the workers of a running K-9 say. Raises what says that none runs, or that it asks for a key."""
    rows = http_get(url, "/v1/queues")["data"]
    announced: Sequence[Announcement] = ()
    with suppress(K9Error):  # its Redis is elsewhere: the API's view will do
        announced = asyncio.run(_announced(redis_url(settings)))
    return of_fleet(rows, announced, names)


async def _announced(url: str) -> Sequence[Announcement]:
    from k9_broker.adapters.connect import Commands, connect
    from k9_broker.adapters.redis_fleet import RedisFleet

    commands = Commands(connect(url, retries=0, connections=2))
    try:
        return await RedisFleet(commands).announcements()
    finally:
        await commands.close()


def _show(console: object, findings: Sequence[Finding]) -> None:
    from rich.console import Console
    from rich.text import Text

    assert isinstance(console, Console)
    before = ""
    for one in findings:
        if one.backend != before:
            console.print(Text(one.backend, style="bold"))
            before = one.backend
        sign, style = _SIGNS[one.verdict]
        where = f" at {one.instance}" if one.instance else ""
        console.print(Text.assemble("  ", (f"{sign:<6}", style), f"{one.check}{where}: {one.said}"))
        if one.mend:
            console.print(Text(f"         → {one.mend}", style="cyan"))
