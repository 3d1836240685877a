"""Callers who leave: queued, running or amid a stream, their job is cancelled within a second."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from k9_api.app import create_app
from k9_broker.settings import JobSettings, Settings
from k9_broker.testing import FakeServer
from raw_callers import CHAT, MESSAGES, RawCaller, chat_body
from scripted import Scripted, chunk, end, running
from serving import Served
from stack import Stack, ask
from stand import RedisProcess, free_port, wait_until

SOON = 1.0
QUEUE = "k9:waiting:k9.local.fake.interactive"
SURFACES = pytest.mark.parametrize("path", [CHAT, MESSAGES], ids=["openai", "anthropic"])
WAYS = pytest.mark.parametrize("way", [RawCaller.leave, RawCaller.reset], ids=["closes", "resets"])
Way = Callable[[RawCaller], None]


@pytest.fixture(scope="module")
def narrow_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A K-9 that runs one job at a time."""
    folder = tmp_path_factory.mktemp("narrow")
    stack = Stack(folder, RedisProcess(folder, free_port()).start(), FakeServer(), slots=1)
    stack.start_worker(probe_seconds=0)
    stack.start_api()
    try:
        yield stack.wait_ready()
    finally:
        stack.stop()


@pytest.fixture
def narrow(narrow_stack: Stack) -> Stack:
    narrow_stack.fake.reset()
    return narrow_stack


async def until(condition: Callable[[], object], what: str, seconds: float = 10) -> Any:
    return await asyncio.to_thread(wait_until, condition, what, seconds)


async def ended(stack: Stack, job: str, since: float) -> None:
    """The job was cancelled, in time."""
    await until(lambda: stack.job(job)["state"] == "cancelled", "its job is cancelled")
    assert time.monotonic() - since < SOON


@SURFACES
@WAYS
@pytest.mark.parametrize("more", [{}, {"stream": True}, {"stream": True, "k9": {"queue": "wait"}}])
async def test_who_leaves_the_queue_is_never_called_for(
    narrow: Stack, path: str, way: Way, more: dict[str, Any]
) -> None:
    narrow.fake.behave(hang=True)
    blocker = narrow.submit()
    await until(lambda: narrow.fake.stats()["active"] == 1, "the slot is taken")
    caller = await RawCaller.ask(narrow.port, path, chat_body("fake-chat", **more))
    (job,) = await until(lambda: narrow.redis.client.zrange(QUEUE, 0, -1), "it waits")
    if "k9" in more:
        await caller.reader.readuntil(b"k9 queued")
    gone = time.monotonic()
    way(caller)
    await ended(narrow, job.decode(), gone)
    ask(f"{narrow.url}/v1/jobs/{blocker}", method="DELETE")
    narrow.fake.behave(hang=False)
    assert narrow.ended([narrow.submit()], 10) == {"succeeded": 1}
    assert narrow.fake.stats()["inferences"] == 2  # the blocker, and the one after


@SURFACES
@WAYS
@pytest.mark.parametrize(
    ("behaviour", "stream"),
    [
        ({"hang": True}, False),
        ({"hang": True}, True),
        ({"tokens_per_second": 20, "answer_tokens": 2000}, True),
    ],
    ids=["whole", "before the first token", "amid a stream"],
)
async def test_the_call_of_who_leaves_is_closed(
    narrow: Stack, path: str, way: Way, behaviour: dict[str, Any], stream: bool
) -> None:
    narrow.fake.behave(**behaviour)
    body = chat_body("fake-chat", stream=stream, max_tokens=2000)
    caller = await RawCaller.ask(narrow.port, path, body)
    await until(lambda: narrow.fake.stats()["active"] == 1, "it is called for")
    if "tokens_per_second" in behaviour:
        await caller.head()
        told = caller.told()
        for _ in range(5):
            assert (await anext(told)).data
    (job,) = narrow.redis.client.zrange("k9:leases:fake", 0, -1)
    gone = time.monotonic()
    way(caller)
    await until(lambda: narrow.fake.stats()["active"] == 0, "the call is closed")
    assert time.monotonic() - gone < SOON
    await ended(narrow, job.decode(), gone)
    assert narrow.fake.stats()["disconnects"] == 1


@pytest.mark.parametrize("http", ["h11", "httptools"])
@pytest.mark.parametrize("stream", [False, True])
@SURFACES
async def test_nothing_is_sent_to_one_who_left_the_queue(http: str, stream: bool, path: str) -> None:
    """It closes its sending half and could still read: whatever server speaks HTTP takes it for gone."""
    turn, broker = threading.Event(), Scripted()
    broker.steps = [turn, running(), chunk("a"), end()]

    async def opener(url: str, jobs: JobSettings) -> Scripted:
        return broker

    with Served(create_app(Settings(), "redis://127.0.0.1:1/0", opener=opener), http=http) as api:
        caller = await RawCaller.ask(int(api.url.rpartition(":")[2]), path, chat_body("m", stream=stream))
        await until(lambda: broker.jobs, "it is queued")
        gone = time.monotonic()
        caller.say_no_more()
        await until(lambda: broker.cancelled, "its job is cancelled")
        assert min(broker.cancelled.values()) - gone < SOON
        turn.set()
        assert await caller.reader.read(-1) == b""
        assert broker.cancelled.keys() == broker.jobs.keys()
        caller.leave()
