"""What one thread carries: many calls at once, quiet connections, and nothing that blocks it."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from k9_broker.adapters import keys
from k9_broker.backends import Backend
from k9_broker.dialects.registry import dialect_named
from k9_broker.testing import FakeServer
from k9_workers.transport import HttpCaller
from stack import Stack, ask
from stand import wait_until
from walks import chat

MANY = 256


# -- 1: many calls at once --------------------------------------------------------------------------


@asynccontextmanager
async def calling(fake: FakeServer, slots: int) -> AsyncIterator[HttpCaller]:
    backend = Backend(name="b", dialect="fake", url=fake.url, slots=slots)
    caller = HttpCaller(backend, backend.servers[0], dialect_named("fake"))
    try:
        yield caller
    finally:
        await caller.close()


@pytest.fixture(scope="module")
def busy_fake() -> Iterator[FakeServer]:
    with FakeServer(models=("m",), answer_tokens=1) as running:
        yield running


async def test_hazard_01_every_slot_has_its_connection_and_questions_theirs(busy_fake: FakeServer) -> None:
    """aiohttp opens a hundred unless told otherwise; the rest of the slots would wait unseen."""
    busy_fake.reset()
    busy_fake.behave(latency_ms=60_000)
    async with calling(busy_fake, MANY) as caller, asyncio.timeout(20):
        calls = [asyncio.create_task(caller.call(chat())) for _ in range(MANY)]
        await asyncio.to_thread(busy_fake.wait, lambda seen: seen["active"] == MANY)
        assert "m" in await caller.listed()
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)


async def test_hazard_01_a_call_costs_no_more_among_many(busy_fake: FakeServer) -> None:
    """httpx's own pool walks all connections for each request: at 256 a call costs eight times what it costs
    at 8. CPU of this process, at its best of some rounds, for wall time says nothing on a busy machine."""
    busy_fake.reset()
    busy_fake.behave(latency_ms=100)

    async def cost(at_once: int, rounds: int) -> float:
        async with calling(busy_fake, at_once) as caller:
            best = float("inf")
            for _ in range(rounds):
                before = time.thread_time()
                await asyncio.gather(*(caller.call(chat()) for _ in range(at_once)))
                best = min(best, time.thread_time() - before)
        return best / at_once

    few, many = await cost(8, 5), await cost(MANY, 3)
    assert many < 3 * few


# -- 8: quiet connections ---------------------------------------------------------------------------


def test_hazard_08_long_silence_breaks_no_blocking_read(steady: Stack) -> None:
    """redis-py gives up a reply after 5 s unless told otherwise: subscriptions and takers of messages, of the
    API and of the worker, sit out longer on the connections they have, and then hear at once."""
    client = steady.redis.client

    def listeners() -> set[str]:
        waits = ("subscribe", "psubscribe", "brpop")
        return {one["id"] for one in client.client_list() if one["cmd"] in waits or int(one["sub"])}

    wait_until(lambda: len(listeners()) >= 4, "the API, the worker's ears, its control, its queues")
    before, children = listeners(), [child for child in (steady.api, steady.workers["w1"]) if child]
    said = [len(child.log) for child in children]
    time.sleep(6.5)  # the length of the silence is what is tested
    assert before <= {one["id"] for one in client.client_list()}
    began = time.monotonic()
    body = {"model": steady.model, "messages": [{"role": "user", "content": "hello"}]}
    assert ask(f"{steady.url}/v1/chat/completions", body)[0] == 200
    steady.fake.behave(latency_ms=60_000)
    job = steady.submit()
    steady.fake.wait(lambda seen: seen["active"] == 1)
    ask(f"{steady.url}/v1/jobs/{job}", method="DELETE")
    steady.fake.wait(lambda seen: seen["active"] == 0)
    assert time.monotonic() - began < 5
    for child, length in zip(children, said, strict=True):
        assert "WARNING" not in child.log[length:]


# -- 15: nothing that blocks ------------------------------------------------------------------------


def test_hazard_15_celerys_callbacks_stay_off_the_thread_of_the_streams(steady: Stack) -> None:
    """Acknowledgements and events, which Celery sends with blocking writes, are the consumer's thread's."""
    jobs = [steady.submit() for _ in range(20)]
    assert steady.ended(jobs, 20) == {"succeeded": 20}
    seen: Counter[str] = Counter()

    def told() -> bool:
        steady.workers["w1"].send(signal.SIGWINCH)
        path = steady.folder / "seen.json"
        seen.clear()
        try:
            seen.update(json.loads(path.read_text()))
        except (OSError, ValueError):
            return False
        return seen["callback MainThread"] >= 20

    wait_until(told, "the callbacks are counted")
    assert seen["accept MainThread"] >= 20
    assert seen["_put_fanout MainThread"] > 0, "events were sent"
    assert not [name for name in seen if name.endswith(" k9-pool")]


def test_hazard_15_a_blocking_call_in_the_loop_is_noticed(steady: Stack) -> None:
    def lag() -> float:
        announced = json.loads(steady.redis.client.get(keys.worker("k9-w1@test")))
        return float(announced.get("loop_lag_seconds", 0))

    assert lag() < 2
    steady.workers["w1"].send(signal.SIGUSR2)
    wait_until(lambda: lag() > 2, "the fleet is told")
