"""Another configuration while everything runs: workers come, go and are replaced, and no job is lost.

New workers are ready before old ones leave, and those leave warm: they take no more jobs, finish what
they run or hand it back. What waits for a backend that is gone moves on by the reaper's sweep.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from k9_api.up.child import Child
from k9_api.up.difference import difference, needs_restart, orders, read_by_workers
from k9_api.up.plan import BackendServed, Process, Role, own_settings, without_secrets, worker
from k9_api.up.supervisor import Supervisor
from k9_broker.backends import Backend
from k9_broker.discovery import Found
from k9_broker.errors import ConfigurationError
from k9_broker.naming import node_name
from k9_broker.settings import Settings


@dataclass(frozen=True, slots=True)
class Configured:
    """A configuration: the backends to run here, among all there are."""

    settings: Settings
    found: Found
    every: Found


Reread = Callable[[], Awaitable[Configured]]
"""Reads the configuration again. Raises `ConfigurationError`."""


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What became of one reload."""

    number: int
    told: tuple[str, ...] = ()
    refused: str = ""
    complete: bool = True
    """Whether every worker that was to come is ready."""
    backends: tuple[str, ...] = ()


class Reloader:
    """Brings what runs under a supervisor into line with the configuration, each time it is asked to."""

    def __init__(
        self,
        supervisor: Supervisor,
        now: Configured,
        reread: Reread,
        environ: Mapping[str, str],
        redis_url: str,
    ) -> None:
        self._supervisor = supervisor
        self._now = now
        self._reread = reread
        self._environ = environ
        self._redis_url = redis_url
        self._number = 0

    async def reload(self) -> Reloaded:
        """A configuration that is not valid changes nothing, and the message says what is wrong with it."""
        self._number += 1
        try:
            new = await self._reread()
            _same_kinds(self._now.found.backends, new.found.backends)
        except ConfigurationError as error:
            return Reloaded(self._number, refused=error.message, backends=self._names())
        told, complete = await self._bring(new)
        told += needs_restart(self._now.settings, new.settings)
        self._now = Configured(
            # What is told to need a restart is told again until that has happened.
            new.settings.model_copy(update=self._started_with()),
            new.found,
            new.every,
        )
        return Reloaded(self._number, tuple(told), complete=complete, backends=self._names())

    async def _bring(self, new: Configured) -> tuple[list[str], bool]:
        """What is told of it, and whether all that was to come is ready."""
        running = self._workers()
        wanted = self._wanted(new, running)
        all_changed = read_by_workers(self._now.settings) != read_by_workers(new.settings)
        what = difference(
            {name: one.process for name, one in running.items()}, wanted, all_changed=all_changed
        )
        coming = (*what.added, *what.changed)
        joined = await asyncio.gather(*(self._supervisor.join(wanted[name]) for name in coming))
        told = what.lines()
        leaving = [running[name] for name in what.removed]
        for name, (child, ready) in zip(coming, joined, strict=True):
            if ready and name in running:
                leaving.append(running[name])
            elif name in running:
                told.append(f"{name}: its new worker is not ready ({child.log}), so the old one stays")
                leaving.append(child)
            elif not ready:
                told.append(f"{name}: not ready yet, see {child.log}")
        for child in self._supervisor.children:
            if child.process.role is Role.API:
                child.hang_up()
        await asyncio.gather(*(self._supervisor.part(child) for child in leaving))
        return told, all(ready for _, ready in joined)

    def _wanted(self, new: Configured, running: Mapping[str, Child]) -> dict[str, Process]:
        """The worker of each backend; one that replaces another has a name of its own."""
        clean = without_secrets(self._environ, new.every.backends)
        clean |= own_settings(new.settings.model_copy(update=self._started_with()), self._redis_url)
        had = {name: int(child.process.env["K9_BACKEND_ORDER"]) for name, child in running.items()}
        places = orders(had, [backend.name for backend in new.every.backends])
        host = socket.gethostname()
        return {
            backend.name: worker(
                backend,
                places[backend.name],
                clean,
                self._environ,
                self._redis_url,
                node=node_name(f"{backend.name}.{self._number}", host) if backend.name in running else None,
            )
            for backend in new.found.backends
        }

    def _workers(self) -> dict[str, Child]:
        """The worker of each backend."""
        return {
            child.process.ready.backend: child
            for child in self._supervisor.children
            if isinstance(child.process.ready, BackendServed)
        }

    def _names(self) -> tuple[str, ...]:
        return tuple(self._workers())

    def _started_with(self) -> dict[str, object]:
        """The settings that stay what they were when everything started."""
        old = self._now.settings
        return {"redis_url": old.redis_url, "state_dir": old.state_dir, "api": old.api, "flower": old.flower}


def _same_kinds(old: tuple[Backend, ...], new: tuple[Backend, ...]) -> None:
    """Jobs wait in queues of a backend's kind, and may not be allowed in one of the other."""
    kinds = {backend.name: backend.kind for backend in old}
    for backend in new:
        if kinds.get(backend.name, backend.kind) is not backend.kind:
            raise ConfigurationError(
                f"The backend {backend.name!r} cannot become {backend.kind} while it runs: give it another"
                " name, or stop K-9 and start it again."
            )
