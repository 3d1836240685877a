"""A hundred backends: what a snapshot, a decision, an admission, a sweep and an idle second cost."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from statistics import median
from time import monotonic, perf_counter, thread_time
from typing import Any

import psutil

from ground import Options, Stack, running
from k9_api.demo.prompts import PROMPTS
from k9_broker.adapters import keys
from k9_broker.adapters.connect import Commands, connect
from k9_broker.adapters.reaper import Reaper
from k9_broker.adapters.redis_fleet import ANNOUNCE_EVERY, RedisFleet
from k9_broker.adapters.redis_ledger import RedisLedger
from k9_broker.backends import Announcement
from k9_broker.health import InstanceHealth
from k9_broker.jobs import new_job_id
from k9_broker.models import Latency, ModelCard
from k9_broker.policy import Policy
from k9_broker.requests import InferenceRequest, Kind, Operation
from k9_broker.settings import JobSettings
from k9_broker.strategy.decision import Decision
from k9_broker.strategy.engine import Router
from scale_ground import BACKEND, BOUNDLESS, Cost, Store, fill, store
from stack import ask
from tables import Aim, Figure, Table, percentile

SIZES = (1, 20, 100)
MODELS = 3
"""At each backend, of which it shares one with every fourth other."""
WAITING = 50_000
IDLE = 6.0
"""Seconds."""


def announcements(count: int) -> list[Announcement]:
    """Local and cloud backends in turn; the first is the one that nobody reads the queue of."""
    kinds = (Kind.LOCAL, Kind.CLOUD, Kind.LOCAL, Kind.CLOUD)
    return [_announcement(f"backend-{at}" if at else BACKEND, kinds[at % 4], at) for at in range(count)]


def _announcement(name: str, kind: Kind, at: int) -> Announcement:
    models = (f"model-{at % 4}", *(f"{name}-model-{number}" for number in range(1, MODELS)))
    price = {"input_usd": 0.1 + at / 100, "output_usd": 0.4 + at / 50} if kind is Kind.CLOUD else {}
    card = ModelCard(tags=("small",), quality=0.4 + at / 200, context_window=128_000, **price)
    return Announcement(
        node=f"k9-{name}@bench", backend=name, kind=kind, dialect="fake", models=models,
        cards=dict.fromkeys(models, card), operations=tuple(Operation), order=1000 * at, slots=8,
        latencies={model: Latency(ttft=0.3 + at / 100, tpot=0.02) for model in models},
        instances=(InstanceHealth(name=f"10.0.0.{at}:8000"),),
        max_waiting=BOUNDLESS, max_waiting_batch=BOUNDLESS, service_seconds=0.001,
    )  # fmt: skip


@asynccontextmanager
async def announced(fleet: RedisFleet, count: int) -> AsyncIterator[None]:
    """So many backends, whose workers say so again and again."""
    said = announcements(count)

    async def keep_on() -> None:
        while True:
            await asyncio.gather(*map(fleet.announce, said))
            await asyncio.sleep(ANNOUNCE_EVERY)

    await asyncio.gather(*map(fleet.announce, said))
    keeping = asyncio.create_task(keep_on())
    try:
        yield
    finally:
        keeping.cancel()
        with suppress(asyncio.CancelledError):
            await keeping


def measure(rounds: int) -> Figure:
    return asyncio.run(_measure(rounds))


async def _measure(rounds: int) -> Figure:
    decisions: list[list[str]] = []
    rows: list[list[str]] = []
    p99 = 0.0
    for count in SIZES:
        async with store() as at, announced(at.fleet, count):
            ranked, spent = await _decisions(at, rounds)
            p99 = percentile(spent, 0.99) if count == 20 else p99
            decisions.append(
                [f"{count} backends", *(f"{1e3 * percentile(spent, one):.2f}" for one in (0.5, 0.99))]
            )
            rows.append([f"{count} backends", *await _admissions(at, ranked, rounds)])
    columns = ("milliseconds of CPU", "p50", "p99")
    tables = [
        Table(f"One whole decision, {MODELS} models at each backend", columns, decisions),
        Table(
            "A snapshot, and an admission with every place a candidate",
            (
                "", "snapshot: Redis µs", "asked ms", "candidates", "admit: Redis µs", "asked ms",
                "decision kept, bytes", "record, bytes",
            ),
            rows,
        ),
        await _sweeps(),
        *await _api(rounds),
    ]  # fmt: skip
    return Figure(tables, [Aim("a whole decision over 20 backends, p99", 1e3 * p99, 0.5, "ms", True)])


async def _decisions(at: Store, rounds: int) -> tuple[tuple[InferenceRequest, Decision], list[float]]:
    """A decision for `auto`, and the CPU seconds of one for each of the demo's prompts, the least of some."""
    router, snapshot = Router(Policy()), await at.fleet.snapshot(fresh=True)
    router.warm_up()
    asked = [InferenceRequest(one.operation, "auto", one.body("auto")) for one in PROMPTS]
    asked = [one for one in asked if one.operation is Operation.CHAT]
    least = [float("inf")] * len(asked)
    for _ in range(max(3, rounds // 8)):
        for number, one in enumerate(asked):
            began = thread_time()
            router.decide(one, snapshot)
            least[number] = min(least[number], thread_time() - began)
    widest = max(asked, key=lambda one: len(router.decide(one, snapshot).candidates))
    return (widest, router.decide(widest, snapshot)), least


async def _admissions(at: Store, ranked: tuple[InferenceRequest, Decision], rounds: int) -> list[str]:
    snapshot, admit = Cost.none(), Cost.none()
    asked, decision = ranked
    for number in range(rounds + 1):
        if number == 1:
            snapshot, admit = Cost.none(), Cost.none()
        await snapshot.of(at, (at.fleet.snapshot(fresh=True) for _ in range(4)))
        jobs = await admit.of(at, (at.ledger.admit(new_job_id(), asked, decision) for _ in range(4)))
    record = keys.job(jobs[-1].id)
    kept = len(at.client.hget(record, "decision"))
    size = at.client.memory_usage(record, samples=0)
    return [
        f"{snapshot.microseconds:.0f}", f"{snapshot.milliseconds:.2f}", str(len(decision.candidates)),
        f"{admit.microseconds:.0f}", f"{admit.milliseconds:.2f}", f"{kept:,}", f"{size:,}",
    ]  # fmt: skip


class Counted(Commands):
    """Counts what it is asked for."""

    asked = 0

    async def command(self, *words: Any) -> Any:
        self.asked += 1
        return await super().command(*words)


def sweeper(at: Store) -> tuple[Reaper, Counted]:
    """A reaper, and the commands it is given, to be closed."""
    port = at.client.connection_pool.connection_kwargs["port"]
    counted = Counted(connect(f"redis://127.0.0.1:{port}/0", retries=1))
    ledger = RedisLedger(counted, JobSettings())
    return Reaper(counted, ledger, RedisFleet(counted), lease_seconds=6.0), counted


async def _sweeps() -> Table:
    rows = []
    async with store() as at:
        reaper, counted = sweeper(at)
        for count, waiting in ((1, 0), (100, 0), (100, WAITING)):
            if waiting:
                await fill(at, waiting)
            await asyncio.gather(*map(at.fleet.announce, announcements(count)))
            spent: list[list[float]] = [[], [], [], []]
            for _ in range(8):
                await asyncio.sleep(0.2)  # a snapshot of its own, as each sweep has
                before = counted.asked, at.cpu(), thread_time(), perf_counter()
                await reaper.sweep()
                after = counted.asked, at.cpu(), thread_time(), perf_counter()
                for values, start, end in zip(spent, before, after, strict=True):
                    values.append(end - start)
            asked, *seconds = (median(values[1:]) for values in spent)
            shown = (f"{1e3 * one:.2f}" for one in seconds)
            rows.append([f"{count} backends, {waiting:,} jobs wait", f"{asked:.0f}", *shown])
        await counted.close()
    columns = ("", "commands", "Redis, CPU ms", "here, CPU ms", "ms")
    return Table("One sweep of the reaper; one process makes one a second", columns, rows)


async def _api(rounds: int) -> list[Table]:
    """What operators ask an API with so many backends for, and what a quiet K-9 asks of Redis."""
    rows: list[list[str]] = []
    idle: list[list[str]] = []
    with running(Options(), slots=8) as stack:
        idle.append(["an API and a worker", *await asyncio.to_thread(_commands, stack)])
        stack.workers["w1"].stop()
        idle.append(["an API", *await asyncio.to_thread(_commands, stack)])
        commands = Commands(connect(stack.redis.url, retries=1))
        try:
            for count in (1, 100):
                async with announced(RedisFleet(commands), count):
                    for path in ("/v1/queues", "/metrics", "/v1/models"):
                        rows.append([f"{path}, {count} backends", *await _calls(stack, path, rounds // 2)])
        finally:
            await commands.close()
        idle.append(["an API that knows 100 backends", *await asyncio.to_thread(_commands, stack)])
    return [
        Table("Asking an API with so many backends", ("", "p50 ms", "API's CPU ms", "bytes"), rows),
        Table("A second in which nobody asks for anything", ("commands", "asked", "inside scripts"), idle),
    ]


async def _calls(stack: Stack, path: str, rounds: int) -> list[str]:
    assert stack.api is not None
    assert stack.api.process is not None
    process = psutil.Process(stack.api.process.pid)
    took, size = [], 0
    cpu = sum(process.cpu_times()[:2])
    for _ in range(max(4, rounds)):
        await asyncio.sleep(0.06)
        began = perf_counter()
        _, headers, _ = await asyncio.to_thread(ask, stack.url + path)
        took.append(perf_counter() - began)
        size = int(headers.get("content-length", 0))
    spent = (sum(process.cpu_times()[:2]) - cpu) / len(took)
    return [f"{1e3 * median(took):.1f}", f"{1e3 * spent:.1f}", f"{size:,}"]


def _commands(stack: Stack) -> tuple[str, str]:
    """Commands a second that come over the network, and those inside scripts."""
    seen: Counter[bool] = Counter()
    with stack.redis.client.monitor() as watching:
        end = monotonic() + IDLE
        while monotonic() < end:
            seen[watching.next_command()["client_type"] == "lua"] += 1
    return f"{seen[False] / IDLE:.1f}", f"{seen[True] / IDLE:.1f}"
