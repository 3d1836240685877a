"""What the scenes of the promises are played on: a Redis, a backend, and K-9 in the test's own process."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from k9_api.app import create_app
from k9_broker.adapters.connect import Commands, connect
from k9_broker.adapters.reaper import Reaper
from k9_broker.adapters.redis_dead import RedisDeadLetters
from k9_broker.adapters.redis_fleet import RedisFleet
from k9_broker.adapters.redis_ledger import RedisLedger
from k9_broker.backends import Backend
from k9_broker.jobs import Claim, Job
from k9_broker.requests import Kind
from k9_broker.settings import JobSettings, Settings
from k9_broker.testing import FakeServer
from k9_workers.callers import build_caller
from k9_workers.execute import execute
from k9_workers.runtime import Runtime
from promises.mechanisms import Switch
from serving import Served
from stand import RedisProcess

QUEUE = "k9.local.a.interactive"
JOBS = JobSettings(lease_seconds=30.0, max_attempts=3, retention_seconds=300)
"""A lease so long that no renewal mends anything, unless the scene is about that."""
_LISTEN = Runtime._listen
"""As it is when it is not switched off."""


@dataclass
class Stage:
    redis: RedisProcess
    fake: FakeServer
    """It offers the model `m`."""
    folder: Path
    jobs: JobSettings = JOBS
    exits: AsyncExitStack = field(default_factory=AsyncExitStack)

    @cached_property
    def client(self) -> Redis:
        client = self.redis.client
        self.exits.callback(client.close)
        return client

    @property
    def now(self) -> float:
        """Unix seconds by Redis' clock."""
        seconds, millionths = self.client.time()
        return float(seconds) + 1e-6 * float(millionths)

    @cached_property
    def commands(self) -> Commands:
        commands = Commands(connect(self.redis.url, retries=1))
        self.exits.push_async_callback(commands.close)
        return commands

    @cached_property
    def ledger(self) -> RedisLedger:
        return RedisLedger(self.commands, self.jobs)

    @cached_property
    def fleet(self) -> RedisFleet:
        return RedisFleet(self.commands)

    @cached_property
    def letters(self) -> RedisDeadLetters:
        return RedisDeadLetters(self.commands, self.jobs)

    @cached_property
    def reaper(self) -> Reaper:
        return Reaper(self.commands, self.ledger, self.fleet, lease_seconds=60.0)

    async def sweep(self) -> dict[str, int]:
        """A sweep for which every message that is missing now has been missing for long."""
        await self.reaper.sweep()
        self.reaper._missing = dict.fromkeys(self.reaper._missing, float("-inf"))
        return await self.reaper.sweep()

    def messages(self, queue: str = QUEUE) -> list[tuple[str, int]]:
        """Job and generation of every message there, taken off the queue, the first one first."""
        found = []
        while isinstance(message := self.client.rpop(queue), bytes):
            job_id, generation = json.loads(message)["properties"]["delivery_tag"].split(":")[:2]
            found.append((job_id, int(generation)))
        return found

    async def take(self, queue: str = QUEUE, kind: Kind = Kind.LOCAL) -> list[Claim]:
        """What idle workers do: take every message there is."""
        claims = [await self.ledger.claim(*one, "w", kind) for one in self.messages(queue)]
        return [claimed for claimed in claims if claimed is not None]

    def lease_ends(self, job: Job) -> None:
        """As if it had not been renewed for long; nothing when it has none."""
        self.client.zadd(f"k9:leases:{job.backend}", {job.id: 0}, xx=True)

    async def runtime(self, caller: Any = None, *, start: bool = True) -> Runtime:
        """A worker of the backend `a`, which calls the fake unless it is given another caller."""
        said = {"name": "a", "dialect": "fake", "url": self.fake.url, "slots": 4}
        backend = Backend.model_validate(said)
        runtime = Runtime(
            backend=backend,
            order=0,
            node="k9-a@here",
            caller=caller or build_caller(backend, self.folder),
            redis_url=self.redis.url,
            jobs=self.jobs,
        )
        self.exits.push_async_callback(runtime.close, withdraw=False)
        if start:
            await runtime.start()
            if Runtime._listen is _LISTEN:
                await until(lambda: self.client.pubsub_numsub("k9:cancel")[0][1], "the worker is deaf")
        return runtime

    def works(self, runtime: Runtime) -> None:
        """The worker takes and runs whatever comes to its interactive queue, until the scene ends."""
        running: set[asyncio.Task[Any]] = set()

        async def work() -> None:
            while True:
                for one in self.messages():
                    running.add(asyncio.create_task(execute(runtime, *one)))
                await asyncio.sleep(0.01)

        running.add(asyncio.create_task(work()))

        async def stop() -> None:
            for task in running:
                task.cancel()
            await asyncio.wait(running)

        self.exits.push_async_callback(stop)

    async def api(self, **settings: Any) -> str:
        """The API, served by a thread; gives its URL."""
        app = create_app(Settings(jobs=self.jobs, **settings), self.redis.url)
        served = Served(app)
        await asyncio.to_thread(served.__enter__)
        self.exits.push_async_callback(asyncio.to_thread, served.__exit__, None, None, None)
        return served.url


async def until(condition: Callable[[], object], complaint: str, seconds: float = 10) -> Any:
    """The condition's value once it is true. Fails with the complaint when it is not in time."""
    end = time.monotonic() + seconds
    while not (value := await asyncio.to_thread(condition)):
        assert time.monotonic() < end, complaint
        await asyncio.sleep(0.01)
    return value


Scene = Callable[[Stage], Awaitable[None]]
"""Plays, and raises `AssertionError` when the promise is broken."""


@dataclass(frozen=True)
class Mechanism:
    """What a promise stands on: the scene that shows it, how to turn it off, and what is said then."""

    scene: Scene
    off: Switch
    complaint: str


@dataclass(frozen=True)
class Promise:
    name: str
    mechanisms: Mapping[str, Mechanism]

    @property
    def scenes(self) -> list[Scene]:
        """Each once. A scene without a mechanism would be one that was never seen to fail."""
        return list(dict.fromkeys(one.scene for one in self.mechanisms.values()))

    async def holds(self, house: House) -> None:
        """With everything as it is, no scene complains."""
        for scene in self.scenes:
            async with house.stage() as stage:
                await scene(stage)

    async def breaks_without(self, mechanism: str, house: House, patch: pytest.MonkeyPatch) -> None:
        """Without it, its scene complains, and of just that."""
        one = self.mechanisms[mechanism]
        one.off(patch)
        async with house.stage() as stage:
            with pytest.raises(AssertionError, match=re.escape(one.complaint)):
                await one.scene(stage)


@dataclass
class House:
    """Where stages are set up: empty, and cleared away afterwards."""

    redis: RedisProcess
    fake: FakeServer
    folder: Path

    @asynccontextmanager
    async def stage(self) -> AsyncIterator[Stage]:
        with self.redis.client as client:
            client.flushall()
        self.fake.reset()
        async with asyncio.timeout(30), AsyncExitStack() as exits:
            yield Stage(self.redis, self.fake, self.folder, exits=exits)
