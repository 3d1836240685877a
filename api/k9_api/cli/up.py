"""`k9 up`: everything on this machine, until Ctrl-C."""

from __future__ import annotations

import asyncio
import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from k9_broker.errors import ConfigurationError, K9Error


class AppendSync(StrEnum):
    EVERYSEC = "everysec"
    ALWAYS = "always"


def up(
    redis: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Use this Redis. Default: K9_REDIS_URL, else a private server."),
    ] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="The API's port. Default: 8765.")] = None,
    host: Annotated[str | None, typer.Option(help="The API's address. Default: 127.0.0.1.")] = None,
    state_dir: Annotated[
        Path | None, typer.Option(help="Private Redis, logs, addresses. Default: ~/.local/state/k9.")
    ] = None,
    backend: Annotated[
        list[str] | None, typer.Option(help="Only this backend; may be repeated. Default: all found.")
    ] = None,
    flower: Annotated[
        bool | None, typer.Option("--flower/--no-flower", help="Flower, to watch the work. Default: yes.")
    ] = None,
    appendfsync: Annotated[
        AppendSync,
        typer.Option(help="When the private Redis writes to disk; `always` also survives a power cut."),
    ] = AppendSync.EVERYSEC,
) -> None:
    """Start everything on this machine: Redis, a worker per backend found, the API and Flower.

    Prints what runs where once all of it is ready; the file up.json in the state folder appears then and
    says the same to scripts. `k9 reload`, or SIGHUP, has k9.toml read again; where the terminal it was
    started from is closed, SIGHUP ends it. Ctrl-C stops all in order, a second one at once. Exit codes:
    0 stopped as asked, 1 something did not start, 2 could not begin.
    """
    console = Console(soft_wrap=True)
    overrides: dict[str, Any] = {"api": _given(host=host, port=port), "flower": _given(enabled=flower)}
    overrides |= _given(redis_url=redis, state_dir=state_dir)
    try:
        from k9_api.up.reload import Configured
        from k9_api.up.run import run_everything
        from k9_api.up.state import alone
        from k9_broker.adapters.embedded_redis import locate
        from k9_broker.discovery import pick, resolve
        from k9_broker.settings import Settings, load_settings
    except ModuleNotFoundError as missing:
        fail("up", f"{missing.name} is not installed. Install all of it: pip install 'k9-broker[all]'")
    try:

        def read() -> Settings:
            said = load_settings(**{name: value for name, value in overrides.items() if value != {}})
            return said.model_copy(update={"state_dir": said.state_dir.absolute()})

        settings = read()
        with (
            alone(settings.state_dir),
            locate(settings.state_dir, settings.redis_url, appendfsync=appendfsync.value) as server,
        ):

            async def configured(settings: Settings) -> Configured:
                every = await resolve(settings, os.environ)
                return Configured(settings, pick(every, backend) if backend else every, every)

            async def everything() -> None:
                now = await configured(settings)
                await run_everything(now, server, os.environ, console, lambda: configured(read()))

            asyncio.run(everything())
    except ConfigurationError as error:
        fail("up", error.message)
    except K9Error as error:
        fail("up", error.message, 1)
    except OSError as error:
        fail("up", f"{error.filename or 'this machine'}: {error.strerror or error}")


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def fail(command: str, message: str, code: int = 2) -> NoReturn:
    """One line for the reader, and the exit code."""
    typer.echo(f"k9 {command}: {message}", err=True)
    raise typer.Exit(code)
