"""What the figures stand on: a whole K-9 of processes on this machine, as the tests start it.

Both sides of every comparison call the same fake backend, and take turns.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from k9_broker.testing import FakeServer
from stack import Stack
from stand import RedisProcess, free_port, wait_until

__all__ = ["Meter", "Options", "Stack", "only_redis", "running", "wait_until"]


@dataclass(frozen=True)
class Options:
    """How to measure."""

    quick: bool = False
    """Fewer rounds: to see that everything works, not to quote."""
    fsync: str = "everysec"
    """Redis' `appendfsync`, as `k9 up` sets it; `always` waits for the disk."""

    def of(self, full: int, quick: int) -> int:
        return quick if self.quick else full


@contextmanager
def only_redis(options: Options) -> Iterator[RedisProcess]:
    with TemporaryDirectory(prefix="k9-bench-") as folder:
        redis = RedisProcess(Path(folder), free_port(), fsync=options.fsync).start()
        try:
            yield redis
        finally:
            redis.stop()


@contextmanager
def running(options: Options, *, slots: int, **behaviour: Any) -> Iterator[Stack]:
    """Redis, a fake that behaves like this, one worker with so many slots, the API."""
    with TemporaryDirectory(prefix="k9-bench-") as name:
        folder = Path(name)
        redis = RedisProcess(folder, free_port(), fsync=options.fsync).start()
        stack = Stack(folder, redis, FakeServer(**behaviour), slots=slots)
        stack.extra["K9_JOBS__LEASE_SECONDS"] = "6"
        stack.start_worker()
        stack.start_api()
        try:
            yield stack.wait_ready()
        finally:
            stack.stop()


class Meter:
    """CPU seconds of each part of a running K-9, all its threads together."""

    def __init__(self, stack: Stack) -> None:
        children = {"API": stack.api, "worker": stack.workers["w1"], "Redis": stack.redis}
        pids = {name: one.process.pid for name, one in children.items() if one and one.process}
        self._processes = {name: psutil.Process(pid) for name, pid in pids.items()}
        self._processes |= {"fake": psutil.Process(stack.fake.pid), "client": psutil.Process()}
        self._last = self._now()

    def _now(self) -> dict[str, float]:
        times = {name: process.cpu_times() for name, process in self._processes.items()}
        return {name: time.user + time.system for name, time in times.items()}

    def lap(self) -> dict[str, float]:
        """CPU seconds since the lap before."""
        before, self._last = self._last, self._now()
        return {name: now - before[name] for name, now in self._last.items()}
