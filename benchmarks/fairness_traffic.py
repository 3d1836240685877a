"""The traffic of the fairness benchmark: bursts of chats, a batch, two tenants; and the K-9 they meet."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any

import aiohttp

from chat_latency import CHAT
from client import Client, chat
from embed_batch import CLI
from ground import Options, Stack, wait_until
from k9_broker.testing import FakeServer
from stack import ask
from stand import RedisProcess, free_port

SLOTS = 16
LINES_PER_SECOND = 600
"""Of the backend with all its slots at work: little enough for two cores."""
PER_LINE = 1000 * SLOTS / LINES_PER_SECOND
"""Milliseconds a line takes, give or take a half."""
SPEED: dict[str, Any] = {"first_token_ms": 300, "tokens_per_second": 40, "answer_tokens": 24}
"""A chat takes 0.9 s."""
RATE = 4.0
"""Chats a second within a burst."""
BURST, GAP = 20.0, 15.0
"""Seconds of each."""
HEAVY = 200
"""Jobs the heavy tenant has under way or waiting."""
KEYS = {"heavy": "heavy-tenants-key", "light": "light-tenants-key"}

Span = tuple[float, float]
"""Lines that ended, and the seconds that took."""


@dataclass
class Seen:
    """What one run met."""

    first: list[float] = field(default_factory=list)
    """Seconds to the first token of each chat."""
    gaps: list[Span] = field(default_factory=list)
    bursts: list[Span] = field(default_factory=list)


@contextmanager
def running(options: Options, *, kept: int | None = None, tenants: bool = False) -> Iterator[Stack]:
    """Redis, a fake that answers as vLLM does, one worker that keeps so many slots, the API.

    No chat is sent away for a long queue: waiting is what is measured.
    """
    with TemporaryDirectory(prefix="k9-bench-") as name:
        folder = Path(name)
        redis = RedisProcess(folder, free_port(), fsync=options.fsync).start()
        stack = Stack(folder, redis, FakeServer(flavour="vllm", per_input_ms=PER_LINE, **SPEED), slots=SLOTS)
        asking = {"authorization": f"Bearer {KEYS['light']}"} if tenants else {}
        if tenants:
            stack.extra["K9_API_KEYS"] = ",".join(f"{tenant}:{key}" for tenant, key in KEYS.items())
        stack.start_worker(dialect="vllm", max_waiting=2 * HEAVY, overflow_wait=None, reserved_slots=kept)
        stack.start_api()

        def ready() -> bool:
            status, _, said = ask(f"{stack.url}/v1/queues", headers=asking)
            return status == 200 and any(one["workers"] and one["models"] for one in said["data"])

        try:
            wait_until(ready, "K-9 is ready", 60)
            yield stack
        finally:
            stack.stop()


@contextmanager
def batch(stack: Stack, source: Path, chunk: int) -> Iterator[None]:
    """`k9 embed` in a process of its own, at work on all slots; it is stopped at the end."""
    words = [sys.executable, "-c", CLI, "embed", "--url", stack.url, "--model", stack.embed_model, "-q"]
    words += ["--overwrite", "--window", str(2 * SLOTS), "--chunk", str(chunk)]
    words += [str(source), "-o", str(source.with_suffix(".npy"))]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        stack.fake.wait(lambda seen: seen["active"] == SLOTS, timeout=60)
        yield
    finally:
        process.terminate()
        process.wait(30)
        stack.fake.wait(lambda seen: seen["active"] == 0, timeout=30)


async def speed(stack: Stack, chunk: int, lines: int) -> Seen:
    """A batch alone, from when all slots are at work until it nears its end."""
    async with _session() as session, _uneven(session, stack):
        first = last = await _ended(session, stack, chunk)
        while last[0] - first[0] < 0.9 * (lines - 2 * SLOTS * chunk):
            await asyncio.sleep(0.5)
            last = await _ended(session, stack, chunk)
        return Seen(gaps=[_between(first, last)])


async def chats(stack: Stack, bursts: int, chunk: int) -> Seen:
    """Bursts of streamed chats that come at random, the same every time; a gap after each."""
    seen, random = Seen(), Random(9)
    async with _session() as session, _uneven(session, stack):
        client = Client(session, stack.url + CHAT, chat(stack.model, stream=True))

        async def one(after: float) -> None:
            await asyncio.sleep(after)
            seen.first.append((await client.tokens())[0])

        for _ in range(bursts):
            at, calls = 0.0, []
            while (at := at + random.expovariate(RATE)) < BURST:
                calls.append(one(at))
            before = await _ended(session, stack, chunk)
            await asyncio.gather(*calls)
            middle = await _ended(session, stack, chunk)
            await asyncio.sleep(GAP)
            after = await _ended(session, stack, chunk)
            if after[0] > before[0]:
                seen.bursts.append(_between(before, middle))
                seen.gaps.append(_between(middle, after))
    return seen


async def light_and_heavy(stack: Stack, seconds: float) -> tuple[list[float], list[float], float]:
    """Seconds to the first token for a tenant who asks for one answer after the other, alone and beside
    another with many; and how many of the other's end in a second meanwhile."""
    async with _session("light") as one, _session("heavy") as other:
        light = Client(one, stack.url + CHAT, chat(stack.model, stream=True))
        heavy = Client(other, stack.url + CHAT, chat(stack.model))
        alone = await _one_by_one(light, seconds)
        done = 0

        async def caller() -> None:
            nonlocal done
            while True:
                try:
                    await heavy.ask()
                    done += 1
                except RuntimeError:  # refused: K-9 says when to come again, some time later will do
                    await asyncio.sleep(0.5)

        callers = [asyncio.create_task(caller()) for _ in range(HEAVY)]
        await asyncio.sleep(2)
        done, began = 0, monotonic()
        beside = await _one_by_one(light, seconds)
        rate = done / (monotonic() - began)
        for task in callers:
            task.cancel()
        await asyncio.gather(*callers, return_exceptions=True)
        return alone, beside, rate


async def _one_by_one(client: Client, seconds: float) -> list[float]:
    first: list[float] = []
    end = monotonic() + seconds
    while monotonic() < end:
        first.append((await client.tokens())[0])
    return first


@asynccontextmanager
async def _session(tenant: str | None = None) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=600),
        headers={"authorization": f"Bearer {KEYS[tenant]}"} if tenant else {},
    ) as session:
        yield session


@asynccontextmanager
async def _uneven(session: aiohttp.ClientSession, stack: Stack) -> AsyncIterator[None]:
    """Batch jobs of different lengths: else those that began together would end together for ever."""

    async def vary() -> None:
        random = Random(5)
        while True:
            per_line = {"per_input_ms": random.uniform(0.5, 1.5) * PER_LINE}
            async with session.patch(f"{stack.fake.url}/fake/behaviour", json=per_line) as reply:
                reply.raise_for_status()
            await asyncio.sleep(0.03)

    varying = asyncio.create_task(vary())
    try:
        yield
    finally:
        varying.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await varying


async def _ended(session: aiohttp.ClientSession, stack: Stack, chunk: int) -> Span:
    """Lines the backend has ended, when it works on batch jobs alone; and when that was."""
    async with session.get(f"{stack.fake.url}/fake/stats") as reply:
        seen = await reply.json()
    return float(seen["inputs"] - chunk * seen["active"]), monotonic()


def _between(before: Span, after: Span) -> Span:
    return after[0] - before[0], after[1] - before[1]
