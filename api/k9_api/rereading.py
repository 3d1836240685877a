"""SIGHUP at a running API: another policy, other tenants; the connections and the jobs stay."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fastapi import FastAPI

from k9_broker.adapters.terminal import Terminal
from k9_broker.errors import ConfigurationError
from k9_broker.settings import Settings

log = logging.getLogger(__name__)

Reread = Callable[[], Settings]
"""Reads the configuration again. Raises `ConfigurationError`."""


def warn(settings: Settings) -> None:
    """Tell what is valid and likely not meant: a slip of the pen would leave a tenant's privacy or budget
    without effect."""
    for name in settings.unknown_tenants:
        log.warning("k9.toml speaks of the tenant %r, which no key in K9_API_KEYS names", name)


@contextmanager
def rereading(app: FastAPI, reread: Reread | None) -> Iterator[None]:
    """While entered, SIGHUP has the configuration read again; where the terminal is gone it ends the server.

    A configuration that is not valid is told in the log, and the one before it stays in force.
    """
    if reread is None or not hasattr(signal, "SIGHUP"):
        yield
        return
    loop = asyncio.get_running_loop()
    terminal = Terminal()
    under_way: set[asyncio.Task[None]] = set()

    async def once() -> None:
        try:
            settings = await asyncio.to_thread(reread)
            app.state.context = await asyncio.to_thread(app.state.context.reread, settings)
        except ConfigurationError as error:
            log.error("the configuration was not read again; the old one stays in force. %s", error.message)
        except Exception:
            log.exception("the configuration was not read again; the old one stays in force")
        else:
            warn(settings)
            log.info("the configuration was read again")

    def hung_up() -> None:
        if terminal.is_gone:
            os.kill(os.getpid(), signal.SIGTERM)
            return
        task = loop.create_task(once())
        under_way.add(task)
        task.add_done_callback(under_way.discard)

    loop.add_signal_handler(signal.SIGHUP, hung_up)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)
