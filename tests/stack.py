"""The whole of K-9 as processes: Redis, a fake backend, Celery workers, the API."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from k9_broker.backends import Backend
from k9_broker.testing import FakeServer
from stand import RedisProcess, free_port, wait_until

LEASE_SECONDS = 3.0


@dataclass
class Child:
    """A process of K-9's with its log, which may be killed, frozen and started again."""

    name: str
    words: list[str]
    env: dict[str, str]
    folder: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        return (self.folder / f"{self.name}.log").read_text(errors="replace")

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> Child:
        log = (self.folder / f"{self.name}.log").open("ab")
        clean = {key: value for key, value in os.environ.items() if not key.startswith("K9_")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", *self.words], env={**clean, **self.env}, stdout=log, stderr=log,
            cwd=self.folder,
        )  # fmt: skip
        return self

    def send(self, what: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(what)

    def stop(self, what: signal.Signals = signal.SIGTERM, seconds: float = 30) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(what)
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)
        return int(self.process.returncode)


def ask(
    url: str, body: Any = None, method: str | None = None, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], Any]:
    """One HTTP exchange: status, headers, and the body as JSON if it is. Connection failures are status 0."""
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url, data, method=method, headers=headers or {})
    if data is not None:
        request.add_header("content-type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            status, got, raw = reply.status, dict(reply.headers), reply.read()
    except urllib.error.HTTPError as error:
        status, got, raw = error.code, dict(error.headers), error.read()
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return 0, {}, None
    try:
        return status, got, json.loads(raw)
    except ValueError:
        return status, got, raw


@dataclass
class Stack:
    """K-9 with one fake backend (chat and embeddings) and as many workers as asked for."""

    folder: Path
    redis: RedisProcess
    fake: FakeServer
    slots: int = 32
    workers: dict[str, Child] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    api: Child | None = None
    extra: dict[str, str] = field(default_factory=dict)
    model: str = "fake-chat"
    embed_model: str = "fake-embed"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def env(self) -> dict[str, str]:
        return {
            "K9_REDIS_URL": self.redis.url,
            "K9_STATE_DIR": str(self.folder),
            "K9_JOBS__LEASE_SECONDS": str(LEASE_SECONDS),
            "K9_API__PORT": str(self.port),
            **self.extra,
        }

    def backend(self, **changes: Any) -> Backend:
        said = {"name": "fake", "dialect": "fake", "url": self.fake.url, "slots": self.slots, **changes}
        return Backend.model_validate(said)

    def start_worker(self, node: str = "w1", **changes: Any) -> Child:
        backend = self.backend(**changes)
        env = {**self.env(), "K9_BACKEND": backend.model_dump_json()}
        words = ["k9_workers", "--node", f"k9-{node}@test"]
        self.workers[node] = Child(f"worker-{node}", words, env, self.folder).start()
        return self.workers[node]

    def start_api(self) -> Child:
        self.api = Child("api", ["k9_api"], self.env(), self.folder).start()
        return self.api

    def wait_ready(self, workers: int | None = None) -> Stack:
        expected = len(self.workers) if workers is None else workers

        def ready() -> bool:
            status, _, said = ask(f"{self.url}/v1/queues")
            if status != 200:
                return False
            live = [one for one in said["data"] if one["workers"] and one["models"]]
            return sum(one["workers"] for one in live) >= expected

        wait_until(ready, f"{expected} workers and the API are ready", 60)
        return self

    def job(self, job_id: str) -> dict[str, Any]:
        status, _, said = ask(f"{self.url}/v1/jobs/{job_id}")
        assert status == 200, said
        return dict(said)

    def submit(self, prompt: str = "hello", **changes: Any) -> str:
        body = {"model": self.model, "messages": [{"role": "user", "content": prompt}]}
        status, _, said = ask(
            f"{self.url}/v1/jobs", {"endpoint": "/v1/chat/completions", "body": body, **changes}
        )
        assert status == 202, said
        return str(said["id"])

    def ended(self, jobs: list[str], seconds: float) -> Counter[str]:
        """How many jobs ended in which state, once all have."""
        states: dict[str, str] = {}

        def all_ended() -> bool:
            for job in jobs:
                if states.get(job) in (None, "queued", "running"):
                    states[job] = self.job(job)["state"]
            return not any(state in ("queued", "running") for state in states.values())

        wait_until(all_ended, "every job has ended", seconds)
        return Counter(states.values())

    def stop(self) -> None:
        for child in [self.api, *self.workers.values()]:
            if child is not None:
                child.send(signal.SIGCONT) if child.alive else None
                child.stop(seconds=10)
        self.fake.stop()
        self.redis.stop()
