"""The K-9 that storms fall upon: three workers of two backends, two API processes, one Redis."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chaos.storm_gate import Gate, Gates
from k9_broker.testing import FakeServer
from stack import Child, Stack, ask
from stand import RedisProcess, free_port, wait_until

MODEL = "fake-chat"
WORKERS = {"east1": "east", "east2": "east", "west1": "west"}
"""The worker's node, and its backend."""
APIS = ("one", "two")
READ_TIMEOUT = 3.0
"""Seconds a silent backend is borne with."""
PATH = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
MOST_ATTEMPTS = 8
"""Claims of a job before it is a dead letter: more than any storm kills the workers of one."""


@dataclass(frozen=True)
class Excuse:
    """Why jobs called at `worker` (`None`: at any) in a span of time may be called once more."""

    worker: str | None
    since: float
    until: float


@dataclass(frozen=True)
class Guise:
    """How a process differs from the usual ones: words before its module, code that comes before ours."""

    words: tuple[str, ...] = ()
    path: tuple[str, ...] = ()


USUAL = Guise()


@dataclass
class Stormy(Stack):
    fakes: dict[str, FakeServer] = field(default_factory=dict)
    gates: Gates = field(default_factory=Gates)
    gate: dict[str, Gate] = field(default_factory=dict)
    apis: dict[str, Child] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)
    excuses: list[Excuse] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)
    """What the storm has done so far, by name: a storm that did nothing proves nothing."""
    forgotten: set[str] = field(default_factory=set)
    """Jobs whose records Redis lost, all of them."""
    fell: list[str] = field(default_factory=list)
    """Processes that ended without having been told to."""
    power_cuts: list[float] = field(default_factory=list)
    guises: dict[str, Guise] = field(default_factory=dict)
    """Children that are not as usual."""
    _down: set[str] = field(default_factory=set)
    _over: threading.Event = field(default_factory=threading.Event)
    _supervisor: threading.Thread | None = None

    @classmethod
    def raised(cls, folder: Path) -> Stormy:
        """A whole one, ready."""
        behaviour = {"latency_ms": 150, "answer_tokens": 6, "tokens_per_second": 60}
        fakes = {name: FakeServer(**behaviour) for name in sorted(set(WORKERS.values()))}
        redis = RedisProcess(folder, free_port(), fsync="always").start()
        made = cls(folder, redis, fakes["east"], slots=8, fakes=fakes)
        for node, backend in WORKERS.items():
            made.gate[node] = made.gates.open(node, fakes[backend].port)
            made.workers[node] = made.worker_child(node)
        for name in APIS:
            made.ports[name] = free_port()
            made.apis[name] = made.api_child(name)
        made.port, made.api = made.ports["one"], made.apis["one"]
        for child in made.children.values():
            child.start()
        made.ready()
        made._supervisor = threading.Thread(target=made._supervise, daemon=True)
        made._supervisor.start()
        return made

    @property
    def children(self) -> dict[str, Child]:
        return {**self.workers, **self.apis}

    @property
    def urls(self) -> list[str]:
        return [f"http://127.0.0.1:{port}" for port in self.ports.values()]

    def worker_child(self, node: str) -> Child:
        backend = self.backend(
            name=WORKERS[node], url=self.gate[node].url, models=(MODEL,), probe_seconds=0.5,
            connect_timeout=1, read_timeout=READ_TIMEOUT, max_waiting=200,
        )  # fmt: skip
        words = ["k9_workers", "--node", f"k9-{node}@storm"]
        return self._child(node, words, K9_BACKEND=backend.model_dump_json(exclude_defaults=True))

    def api_child(self, name: str) -> Child:
        return self._child(name, ["k9_api"], K9_API__PORT=str(self.ports[name]))

    def _child(self, name: str, words: list[str], **env: str) -> Child:
        guise = self.guises.get(name, USUAL)
        path = os.pathsep.join([*guise.path, *PATH])
        env = {"K9_JOBS__MAX_ATTEMPTS": str(MOST_ATTEMPTS), "PYTHONPATH": path, **env}
        return Child(name, [*guise.words, *words], {**self.env(), **env}, self.folder)

    def ready(self, seconds: float = 60) -> None:
        """Wait until each API process sees each worker, and every instance is fit."""
        wait_until(lambda: all(self._sees_all(url) for url in self.urls), "all is ready", seconds)

    def _sees_all(self, url: str) -> bool:
        status, _, said = ask(f"{url}/v1/queues")
        if status != 200:
            return False
        seen = {one["backend"]: (one["workers"], one["slots"]) for one in said["data"]}
        counts = Counter(WORKERS.values())
        return seen == {name: (count, count * self.slots) for name, count in counts.items()}

    def excuse(self, worker: str | None, since: float, until: float | None = None) -> None:
        self.excuses.append(Excuse(worker, since, time.monotonic() if until is None else until))

    def kill(self, name: str) -> None:
        """SIGKILL; the supervisor starts it again."""
        with self._held(name):
            since = time.monotonic()
            self.children[name].stop(signal.SIGKILL)
            if name in self.workers:
                self.excuse(name, since)
            self.children[name].start()
        self.done["kills"] += 1

    @contextmanager
    def frozen(self, name: str) -> Iterator[None]:
        since = time.monotonic()
        self.children[name].send(signal.SIGSTOP)
        try:
            yield
        finally:
            self.children[name].send(signal.SIGCONT)
            self.excuse(name, since)
            self.done["freezes"] += 1

    @contextmanager
    def cut(self, worker: str, how: str) -> Iterator[None]:
        """The network between a worker and its backend; `how` is a method of `Gate`."""
        since, gate = time.monotonic(), self.gate[worker]
        getattr(gate, how)()
        try:
            yield
        finally:
            gate.heal()
            self.excuse(worker, since)
            self.done[how] += 1

    def disguise(self, guises: Mapping[str, Guise]) -> None:
        """Have these leave as they should and come back so; wait until all is ready."""

        def change(name: str) -> None:
            with self._held(name):
                self.children[name].stop(signal.SIGTERM)
                self.guises[name] = guises[name]
                made, all_of = (
                    (self.worker_child, self.workers) if name in self.workers else (self.api_child, self.apis)
                )
                all_of[name] = made(name).start()

        with ThreadPoolExecutor() as together:
            list(together.map(change, guises))
        self.done["disguises"] += len(guises)
        self.ready()

    def as_usual(self, *, disguised: bool = False) -> None:
        """Everything is ready, nothing is excused or counted; nobody is in a guise, unless they may be."""
        changed = [name for name, guise in self.guises.items() if guise != USUAL]
        if changed and not disguised:
            self.disguise(dict.fromkeys(changed, USUAL))
        self.ready()
        for memory in (self.excuses, self.fell, self.forgotten, self.power_cuts, self.done, self.gates.calls):
            memory.clear()

    @contextmanager
    def _held(self, name: str) -> Iterator[None]:
        self._down.add(name)
        try:
            yield
        finally:
            self._down.discard(name)

    def _supervise(self) -> None:
        """Start again what fell, as `k9 up`, systemd or compose would."""
        while not self._over.wait(0.2):
            for name, child in self.children.items():
                if name not in self._down and not child.alive:
                    self.fell.append(name)
                    child.start()

    def stop(self) -> None:
        self._over.set()
        if self._supervisor is not None:
            self._supervisor.join(10)
        for child in self.children.values():
            if child.alive:
                child.send(signal.SIGCONT)
                child.send(signal.SIGTERM)
        for child in self.children.values():
            child.stop(seconds=10)
        self.workers, self.api = {}, None
        for fake in self.fakes.values():
            fake.stop()
        self.gates.stop()
        super().stop()

    def config(self, **changes: Any) -> None:
        """`CONFIG SET` at Redis."""
        for name, value in changes.items():
            self.redis.client.config_set(name.replace("_", "-"), value)

    def redis_says(self, section: str, name: str) -> int:
        """A number of `INFO`."""
        return int(self.redis.client.info(section)[name])  # type: ignore[index]
