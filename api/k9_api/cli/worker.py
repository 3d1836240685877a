"""`k9 worker --backend NAME`: workers for some backends, on this machine or one that joins."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from k9_api.cli.up import fail
from k9_api.cli.where import redis_url
from k9_broker.errors import ConfigurationError, K9Error


def worker(
    backend: Annotated[list[str], typer.Option(help="The backend to serve; may be repeated.")],
    redis: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Default: K9_REDIS_URL, else the private one of `k9 up`."),
    ] = None,
    state_dir: Annotated[Path | None, typer.Option(help="Default: ~/.local/state/k9.")] = None,
    node: Annotated[
        str | None,
        typer.Option(help="Celery node name, for a second worker of a backend here. Default: k9-NAME@HOST."),
    ] = None,
) -> None:
    """Serve backends of k9.toml, or ones found on this machine, until Ctrl-C.

    One name: this process becomes the worker. Several: each gets a process of its own, started again
    when it ends. On SIGHUP k9.toml is read again. Give only cloud workers their key: each process sees
    the key its backend names.
    """
    try:
        from k9_api.up.plan import own_settings, without_secrets, workers
        from k9_api.up.reload import Configured
        from k9_api.up.run import run_workers
        from k9_broker.adapters.embedded_redis import answers, redacted
        from k9_broker.discovery import pick, resolve
        from k9_broker.settings import Settings, load_settings
    except ModuleNotFoundError as missing:
        fail("worker", f"{missing.name} is not installed: pip install 'k9-broker[api,workers]'")
    given = {"redis_url": redis, "state_dir": state_dir}
    if node and len(backend) > 1:
        fail("worker", "--node names one worker; start one `k9 worker` per backend to name each.")
    try:

        def read() -> Settings:
            return load_settings(**{name: value for name, value in given.items() if value is not None})

        settings = read()
        url = redis_url(settings)
        if not answers(url, timeout=3.0):
            typer.echo(f"k9 worker: {redacted(url)} does not answer yet; trying on.", err=True)
        every = asyncio.run(resolve(settings, os.environ))
        found = pick(every, backend)
        clean = without_secrets(os.environ, every.backends) | own_settings(settings, url)
        processes = workers(found.backends, clean, os.environ, url, among=every.backends)
        if len(processes) > 1:
            logs = settings.state_dir / "logs" / "worker"

            async def reread() -> Configured:
                again = read()
                all_of_it = await resolve(again, os.environ)
                return Configured(again, pick(all_of_it, backend), all_of_it)

            now, console = Configured(settings, found, every), Console(soft_wrap=True)
            asyncio.run(run_workers(processes, logs, url, console, now, os.environ, reread))
            return
        process = processes[0]
    except ConfigurationError as error:
        fail("worker", error.message)
    except K9Error as error:
        fail("worker", error.message, 1)
    sys.stdout.flush()
    argv = [*process.argv, "--node", node] if node else process.argv
    os.execve(argv[0], argv, dict(process.env))  # noqa: S606 - our own interpreter
