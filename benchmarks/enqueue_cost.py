"""What it costs to queue a job: the ledger's admission beside Celery's `send_task`, on one Redis.

The admission decides, checks the queue's mark, writes the record and pushes the message, in one
script; `send_task` pushes a message of the same content.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import perf_counter, process_time

import psutil
from celery import Celery
from pydantic_core import from_json

from client import chat, run
from ground import Options, only_redis
from k9_broker.adapters.connect import Commands, connect
from k9_broker.adapters.redis_fleet import RedisFleet
from k9_broker.adapters.redis_ledger import RedisLedger
from k9_broker.backends import Announcement
from k9_broker.jobs import new_job_id
from k9_broker.policy import Policy
from k9_broker.requests import InferenceRequest, Kind, Operation
from k9_broker.settings import JobSettings
from k9_broker.snapshot import Snapshot
from k9_broker.strategy.decision import Decision
from k9_broker.strategy.engine import Router
from k9_broker.submit import submit
from tables import Figure, Table

TOGETHER = 64
MODEL = "some-model"
NOBODY = Announcement(
    node="k9-nobody@bench",
    backend="nobody",
    kind=Kind.LOCAL,
    dialect="fake",
    models=(MODEL,),
    operations=tuple(Operation),
    slots=8,
    max_waiting=10_000_000,
    max_waiting_batch=10_000_000,
)
"""A backend whose queue nobody reads."""


def measure(options: Options) -> Figure:
    with only_redis(options) as redis:
        assert redis.process is not None
        return run(_measure(redis.url, psutil.Process(redis.process.pid), options))


async def _measure(url: str, server: psutil.Process, options: Options) -> Figure:
    commands = Commands(connect(url, retries=1))
    fleet, ledger = RedisFleet(commands), RedisLedger(commands, JobSettings())
    request = InferenceRequest(Operation.CHAT, MODEL, from_json(chat(MODEL)))
    router = Router(Policy())
    celery = Celery("bench", broker=url, set_as_current=False)

    async def decide(asked: InferenceRequest, snapshot: Snapshot) -> Decision:
        return router.decide(asked, snapshot)

    async def admit() -> None:
        await submit(request, ledger=ledger, fleet=fleet, decide=decide, job_id=new_job_id(), waiter="nobody")

    async def one_by_one(count: int) -> None:
        for _ in range(count):
            await admit()

    async def together(count: int) -> None:
        for _ in range(count // TOGETHER):
            await asyncio.gather(*(admit() for _ in range(TOGETHER)))

    async def send_task(count: int) -> None:
        for _ in range(count):
            job_id = new_job_id()
            celery.send_task(
                "k9.chat", (job_id, 1), task_id=job_id, queue="bench.nobody", ignore_result=True,
                argsrepr=f"{MODEL} chat", kwargsrepr="tenant=default priority=interactive in~50tok",
            )  # fmt: skip

    ways = {"admission, one at a time": one_by_one, f"admission, {TOGETHER} at once": together}
    ways["Celery's send_task"] = send_task
    costs = {name: _Cost(server) for name in ways}
    count = options.of(1600, 320)
    for measured in [False] + [True] * options.of(5, 2):
        for name, way in ways.items():
            await fleet.announce(NOBODY)
            await costs[name].of(way, count if measured else TOGETHER, measured)
    await commands.close()
    rows = [[name, *costs[name].row(costs["Celery's send_task"])] for name in ways]
    columns = ("microseconds per job", "CPU here", "CPU Redis", "clock", "CPU here / send_task's")
    return Figure([Table("Queueing one job", columns, rows)])


class _Cost:
    """Seconds one way of queueing has taken so far."""

    def __init__(self, server: psutil.Process) -> None:
        self._server = server
        self.jobs = 0
        self.cpu = self.redis = self.clock = 0.0

    async def of(self, way: Callable[[int], Awaitable[None]], count: int, measured: bool) -> None:
        before = process_time(), self._redis(), perf_counter()
        await way(count)
        after = process_time(), self._redis(), perf_counter()
        if measured:
            cpu, redis, clock = (end - start for start, end in zip(before, after, strict=True))
            self.jobs, self.cpu = self.jobs + count, self.cpu + cpu
            self.redis, self.clock = self.redis + redis, self.clock + clock

    def _redis(self) -> float:
        times = self._server.cpu_times()
        return float(times.user + times.system)

    def row(self, other: _Cost) -> list[str]:
        each = [1e6 * seconds / self.jobs for seconds in (self.cpu, self.redis, self.clock)]
        ratio = (self.cpu / self.jobs) / (other.cpu / other.jobs)
        return [*(f"{microseconds:.0f}" for microseconds in each), f"{ratio:.2f}"]
