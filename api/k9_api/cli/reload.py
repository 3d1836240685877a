"""`k9 reload`: has a running `k9 up` read its configuration again."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Annotated

import typer

from k9_api.cli.up import fail

EVERY = 0.05
"""Seconds between looks at what `k9 up` has written."""


def reload(
    state_dir: Annotated[Path | None, typer.Option(help="As `k9 up`. Default: ~/.local/state/k9.")] = None,
    wait: Annotated[float, typer.Option(min=0, help="Seconds it may take.")] = 120.0,
) -> None:
    """Have the running `k9 up` read k9.toml again: backends, routing, aliases, tenants, without losing a job.

    New and changed backends get their worker before old ones leave. A configuration that is not valid
    changes nothing. Exit codes: 0 done, 1 refused, or not all of it is ready, 2 not valid, or nothing runs.
    """
    from k9_api.up import state
    from k9_broker.settings import load_settings

    folder = (state_dir or load_settings().state_dir).absolute()
    before = state.read(folder)
    _check(before.get("config"))
    os.kill(int(before["pid"]), signal.SIGHUP)
    until = time.monotonic() + wait
    while (said := state.read(folder)).get("reloads", 0) <= before.get("reloads", 0):
        if time.monotonic() > until:
            fail("reload", f"`k9 up` (pid {before['pid']}) was asked, but is not done; see its output.", 1)
        time.sleep(EVERY)
    if said["refused"]:
        fail("reload", f"refused, and the old configuration stays in force. {said['refused']}", 1)
    for line in said["told"]:
        typer.echo(line)
    if not said["complete"]:
        raise typer.Exit(1)


def _check(config: str | None) -> None:
    """Raises `ConfigurationError` when the file that `k9 up` reads is not valid: it need not be asked."""
    from k9_broker.dialects.registry import dialect_named
    from k9_broker.settings import load_settings

    if config is None:
        return
    os.environ["K9_CONFIG"] = config
    for backend in load_settings().backends:
        if backend.dialect != "embedded":
            dialect_named(backend.dialect)
