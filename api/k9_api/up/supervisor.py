"""Starts the processes in order, keeps them running, stops them in order, and leaves none behind."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from k9_api.up.child import Backoff, Child
from k9_api.up.plan import STARTS, STOPS, Process
from k9_api.up.ready import Probe, Readiness
from k9_broker.adapters.terminal import Terminal
from k9_broker.errors import K9Error

NEEDED_SECONDS = 60.0
"""How long Redis and the API may take to be ready before everything is stopped again."""
OTHERS_SECONDS = 45.0
"""How long workers and Flower are waited for; they may still come later."""
EMPTY_SECONDS = 8.0
"""How long a worker that runs is waited for while its backend tells no model."""
_TRIES = 3
_POLL = 0.1


class DidNotStart(K9Error):
    """A process that everything needs did not start. Its log says why."""

    code = "did_not_start"


class Stopped(Exception):
    """Somebody asked to stop while things were starting."""


class Supervisor:
    def __init__(
        self,
        processes: Sequence[Process],
        logs: Path,
        probe: Probe,
        say: Callable[[str], None],
        backoff: Backoff | None = None,
        *,
        reloads: bool = False,
    ) -> None:
        """`reloads`: somebody waits for `reload`; otherwise SIGHUP is one more way to ask to stop."""
        self.children = [Child(process, logs, say, backoff) for process in processes]
        self.stop = asyncio.Event()
        """Set: leave in order."""
        self.reload = asyncio.Event()
        """Set: the configuration is to be read again."""
        self.cold = asyncio.Event()
        """Set: leave at once."""
        self.failed: Child | None = None
        """The needed one that did not start."""
        self._probe = probe
        self._new_child = partial(Child, logs=logs, say=say, backoff=backoff)
        self._reloads = reloads
        self._terminal = Terminal()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Sequence[Child]]:
        """Everything started; gives the children that were not ready in time, all needed ones being.

        Stops everything at the end, however it ends. Raises `DidNotStart`, and `Stopped` when
        `stop` was set meanwhile.
        """
        signals = self._listen()
        try:
            yield await self._start()
        finally:
            self.stop.set()
            try:
                await self._leave()
            finally:
                loop = asyncio.get_running_loop()
                for number in signals:
                    loop.remove_signal_handler(number)

    def ask_to_stop(self) -> None:
        """Once: in order. Again: at once."""
        (self.cold if self.stop.is_set() else self.stop).set()

    async def join(self, process: Process) -> tuple[Child, bool]:
        """Start one process more; gives it once it is ready, or was waited for in vain."""
        child = self._new_child(process)
        self.children.append(child)
        child.start()
        return child, await self._until_ready(child)

    async def part(self, child: Child) -> None:
        """Stop one process, the others going on."""
        await child.leave(self.cold)
        self.children.remove(child)

    def _hung_up(self) -> None:
        if self._reloads and not self._terminal.is_gone:
            self.reload.set()
        else:
            self.ask_to_stop()

    def _listen(self) -> list[signal.Signals]:
        loop = asyncio.get_running_loop()
        numbers = [signal.SIGINT, signal.SIGTERM]
        for number in numbers:
            loop.add_signal_handler(number, self.ask_to_stop)
        if self._reloads or signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup
            numbers.append(signal.SIGHUP)
            loop.add_signal_handler(signal.SIGHUP, self._hung_up)
        return numbers

    async def _start(self) -> list[Child]:
        late: list[Child] = []
        for roles in STARTS:
            group = [child for child in self.children if child.process.role in roles]
            for child in group:
                child.start()
            ready = await asyncio.gather(*(self._until_ready(child) for child in group))
            missing = [child for child, is_ready in zip(group, ready, strict=True) if not is_ready]
            if self.failed:
                raise DidNotStart(f"{self.failed.process.name} did not start: {_last_line(self.failed.log)}")
            late += missing
            if self.stop.is_set():
                raise Stopped
        return late

    async def _until_ready(self, child: Child) -> bool:
        needed = child.process.is_needed
        clock = asyncio.get_running_loop().time
        until = clock() + (NEEDED_SECONDS if needed else OTHERS_SECONDS)
        while not self.stop.is_set():
            state = await self._probe.ask(child.process.ready) if child.pid else Readiness.NOT
            if state is Readiness.READY:
                return True
            if state is Readiness.EMPTY:
                until = min(until, clock() + EMPTY_SECONDS)
            if clock() > until or child.ended >= _TRIES or child.over:
                if needed:
                    self.failed = child
                    self.stop.set()
                return False
            await asyncio.sleep(_POLL)
        return False

    async def _leave(self) -> None:
        for roles in STOPS:
            group = [child for child in self.children if child.process.role in roles]
            await asyncio.gather(*(child.leave(self.cold) for child in group))


def _last_line(log: Path) -> str:
    lines = log.read_text("utf-8", "replace").splitlines() if log.exists() else []
    said = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
    return f"{said[:300]} (its log: {log})"
