"""One child process: started, started again when it ends, and stopped for good."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from k9_api.up.plan import Process, Role
from k9_broker.adapters.embedded_redis import UMASK
from k9_broker.adapters.parent_death import die_with_parent


@dataclass(frozen=True, slots=True)
class Backoff:
    """Seconds between the end of a child and its next start: doubled from `first` to `last`."""

    first: float = 0.5
    last: float = 10.0
    steady: float = 30.0
    """A child that ran for so long starts again from `first`."""

    def after(self, delay: float, ran: float) -> float:
        """The delay after a run of `ran` seconds, when the one before it was `delay` (0: none)."""
        if ran >= self.steady or delay == 0:
            return self.first
        return min(2 * delay, self.last)


COLD_SECONDS = 5.0
"""How long a worker may take to hand its jobs back, and Redis to close its file, when all must go at once."""


class Child:
    """Runs a `Process`. `keep` is its life; `leave` ends it."""

    def __init__(
        self, process: Process, logs: Path, say: Callable[[str], None], backoff: Backoff | None = None
    ) -> None:
        self.process = process
        self.log = logs / f"{process.name}.log"
        self.ended = 0
        """Times it ended without having been asked to."""
        self._say = say
        self._backoff = backoff or Backoff()
        self._running: asyncio.subprocess.Process | None = None
        self._leaving = asyncio.Event()
        self._life: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        return self._running.pid if self._running else None

    @property
    def over(self) -> bool:
        """Whether its life has ended, though nobody asked it to leave: its log cannot be written."""
        return self._life is not None and self._life.done()

    def start(self) -> None:
        self._life = asyncio.create_task(self._keep(), name=self.process.name)

    def hang_up(self) -> None:
        """Ask it to read its configuration again."""
        self._send(signal.SIGHUP)

    async def leave(self, cold: asyncio.Event) -> None:
        """Ask it to stop, wait as long as it may take or until `cold`, then make it stop."""
        self._leaving.set()
        if self._life is None:
            return
        self._send(signal.SIGTERM)
        gone = asyncio.create_task(cold.wait())
        await asyncio.wait(
            [self._life, gone],
            timeout=self.process.leaves_within,
            return_when=asyncio.FIRST_COMPLETED,
        )
        gone.cancel()
        if not self._life.done() and self.process.role in (Role.WORKER, Role.REDIS):
            if self.process.role is Role.WORKER:
                self._send(signal.SIGQUIT)
            await asyncio.wait([self._life], timeout=COLD_SECONDS)
        if not self._life.done():
            if not cold.is_set():
                self._say(f"{self.process.name} did not stop in time and was killed.")
            self._kill_group()
        await self._life

    async def _keep(self) -> None:
        delay = 0.0
        clock = asyncio.get_running_loop().time
        log = _rotated(self.log)
        try:
            while not self._leaving.is_set():
                started = clock()
                how = await self._run_once(log)
                if self._leaving.is_set():
                    return
                self.ended += 1
                before, delay = delay, self._backoff.after(delay, clock() - started)
                if delay != before:  # no message every ten seconds for ever
                    self._say(f"{self.process.name} {how}; starting it again. Its log: {self.log}")
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._leaving.wait(), delay)
        finally:
            os.close(log)

    async def _run_once(self, log: int) -> str:
        """Run it until it ends; says how it did."""
        is_redis = self.process.role is Role.REDIS
        try:
            self._running = await asyncio.create_subprocess_exec(
                *self.process.argv,
                env=dict(self.process.env),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                umask=UMASK,
                process_group=0,  # Ctrl-C is for `k9 up` alone, which stops its children in order
                # Redis needs a moment to close its file; the others might wait for a Redis that is gone.
                preexec_fn=die_with_parent(signal.SIGTERM if is_redis else signal.SIGKILL),
            )
        except OSError as error:
            return f"cannot be started ({error.strerror})"
        if self._leaving.is_set():
            self._send(signal.SIGTERM)
        code = await self._running.wait()
        self._kill_group()
        self._running = None
        return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"

    def _send(self, number: signal.Signals) -> None:
        if self._running:
            with suppress(ProcessLookupError):
                self._running.send_signal(number)

    def _kill_group(self) -> None:
        """Whatever the child itself started goes with it."""
        if self._running:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._running.pid, signal.SIGKILL)


def _rotated(path: Path) -> int:
    """A fresh log file for its owner alone; the one before it is kept as `.1`."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.exists():
        path.replace(path.with_name(f"{path.name}.1"))
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
