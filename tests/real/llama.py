"""llama-server as a process: where its binary is, how it is started, what it tells of its work."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import urllib.request
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from stack import ask
from stand import free_port, wait_until

BUILD = Path(__file__).with_name("build_llama_server.sh")


def binary() -> Path:
    """The server that `build_llama_server.sh` built, or the one in K9_LLAMA_SERVER.

    Without it the test is skipped; in CI it fails.
    """
    if named := os.environ.get("K9_LLAMA_SERVER"):
        return Path(named)
    found = re.search(r"^version=(\S+)$", BUILD.read_text(), re.M)
    assert found
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    cache = Path(os.environ.get("K9_CACHE_DIR") or Path(caches) / "k9")
    built = cache / "llama-server" / found[1] / "llama-server"
    if os.access(built, os.X_OK):
        return built
    why = f"no llama-server at {built}: `make test-real` builds it once (five to ten minutes)"
    if os.environ.get("CI"):
        pytest.fail(why)
    pytest.skip(why)


@dataclass
class LlamaServer:
    """One llama-server on loopback, which a test may freeze, kill and start again on its port."""

    binary: Path
    folder: Path
    name: str
    words: tuple[str, ...]
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    log_from: int = 0
    """Where in its log the present process begins."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> LlamaServer:
        """Start it and wait until its model is loaded."""
        own = ("--host", "127.0.0.1", "--port", str(self.port), "--offline", "--metrics")
        own += ("--threads", "1", "--threads-http", "16", "--fit", "off", "--no-warmup", "--cache-ram", "0")
        environment = {key: value for key, value in os.environ.items() if not key.startswith("LLAMA_")}
        self.log_from = len(self.log.read_text(errors="replace")) if self.log.exists() else 0
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [self.binary, *self.words, *own], stdout=log, stderr=log, env=environment, cwd=self.folder
            )

        def healthy() -> bool:
            assert self.alive, self.log.read_text(errors="replace")[-2000:]
            return ask(f"{self.url}/health")[0] == 200

        wait_until(healthy, f"{self.name} is healthy", 30)
        return self

    def send(self, what: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(what)

    def stop(self, what: signal.Signals = signal.SIGTERM) -> None:
        if self.process is None or not self.alive:
            return
        self.process.send_signal(what)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=10) as reply:
            raw = reply.read()
        return json.loads(raw) if path != "/metrics" else raw.decode()

    @property
    def busy(self) -> int:
        """Slots at work now, as its log tells it.

        Not as `/slots` does: any answer of the server starts anew the second after which it looks whether
        the callers of whole answers are still there, so who asks often keeps it from ever looking.
        """
        told = self.log.read_text(errors="replace")[self.log_from :]
        return told.count(" launch_slot_: ") - told.count(" release: ")

    @property
    def started(self) -> int:
        """Requests that were given a slot since the server started, refused ones included."""
        return self.log.read_text(errors="replace")[self.log_from :].count(" launch_slot_: ")

    def has_started(self, requests: int) -> None:
        """Assert `started`, which its log tells a moment late."""
        with suppress(TimeoutError):
            wait_until(lambda: self.started >= requests, "the log tells it", 5)
        assert self.started == requests

    def metric(self, name: str) -> int:
        """A counter or gauge such as `tokens_predicted_total`, the tokens of all answers that ended."""
        found = re.search(rf"^llamacpp:{name} (\S+)$", self.get("/metrics"), re.M)
        assert found
        return int(float(found[1]))

    def idle(self, seconds: float) -> None:
        """Wait until no slot works."""
        wait_until(lambda: not self.busy, f"{self.name} has no slot at work", seconds)
        assert not [slot for slot in self.get("/slots") if slot["is_processing"]]
