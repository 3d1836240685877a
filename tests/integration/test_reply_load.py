"""One API process under load: hundreds who wait, hundreds of streams, and readers that do not read."""

from __future__ import annotations

import asyncio
import json
import resource
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import psutil
import pytest
import pytest_asyncio

from k9_broker.testing import FakeServer
from raw_callers import CHAT, RawCaller, chat_body
from stack import Stack, ask
from stand import RedisProcess, free_port, wait_until
from tiny_server import Exchange, Server

pytestmark = pytest.mark.asyncio(loop_scope="module")

WAITING, STREAMS = 500, 200
EVERY = 0.25
"""Seconds between two tokens of a stream."""
BEHIND = 2 * EVERY
"""Half of the tokens come sooner, however busy the machine is; on an idle one it is some 0.03 s."""
LONG, PIECE, SLOW = 1500, 4096, 6
"""Pieces of a long answer, characters of one, and how many of its readers are slow."""


@dataclass
class Wide:
    """A backend with as many slots as there are streams, played by the test, and K-9 before it."""

    stack: Stack
    active: int = 0
    calls: int = 0
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    """Until it is set, streams trickle and whole answers do not come."""

    async def answer(self, exchange: Exchange) -> None:
        body = exchange.body
        if not body:
            await exchange.reply({"object": "list", "data": [{"id": "m", "object": "model"}]})
            return
        self.calls += 1
        self.active += 1
        try:
            if body.get("stream"):
                await exchange.start_stream()
                asked = body["messages"][0]["content"]
                async for text in self._trickle() if asked == "hello" else self._much(asked):
                    await exchange.event(piece(text))
                await exchange.event(piece("", "stop"))
                await exchange.event(b"[DONE]")
                await exchange.end_stream()
            else:
                await self.go_on.wait()
                message = {"role": "assistant", "content": "hi"}
                choice = {"index": 0, "message": message, "finish_reason": "stop"}
                await exchange.reply({"id": "c", "created": 0, "model": "m", "choices": [choice]})
        finally:
            self.active -= 1

    async def _trickle(self) -> AsyncIterator[str]:
        number = 0
        while not (self.go_on.is_set() and number > 2):
            yield f"{number} {time.monotonic()}"
            number += 1
            if not self.go_on.is_set():
                await asyncio.sleep(EVERY)

    async def _much(self, asked: str) -> AsyncIterator[str]:
        for number in range(LONG):
            yield f"{number} ".ljust(PIECE, "x")
        if asked == "endless":
            await asyncio.Event().wait()

    @property
    def api(self) -> psutil.Process:
        assert self.stack.api
        assert self.stack.api.process
        return psutil.Process(self.stack.api.process.pid)

    @property
    def waiting(self) -> int:
        return int(ask(f"{self.stack.url}/v1/queues")[2]["data"][0]["waiting"]["interactive"])

    async def callers(self, count: int, **body: Any) -> list[RawCaller]:
        asked = (RawCaller.ask(self.stack.port, CHAT, chat_body("m", **body)) for _ in range(count))
        return list(await asyncio.gather(*asked))

    async def taken(self) -> list[RawCaller]:
        """Callers of whole answers that hold every slot."""
        callers = await self.callers(STREAMS)
        await until(lambda: self.active == STREAMS, "every slot is taken")
        return callers


def piece(content: str, finish: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": finish}
    return {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": [choice]}


async def until(condition: Callable[[], object], what: str, seconds: float = 30) -> None:
    await asyncio.to_thread(wait_until, condition, what, seconds)


@pytest.fixture(scope="module")
def many_files() -> Iterator[None]:
    """As many open files as the test and its processes need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 8192 if hard == resource.RLIM_INFINITY else min(hard, 8192)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory, many_files: None) -> AsyncIterator[Wide]:
    folder = tmp_path_factory.mktemp("wide")
    stack = Stack(folder, RedisProcess(folder, free_port()).start(), FakeServer(), slots=STREAMS)
    wide = Wide(stack)
    server = Server(lambda exchange: wide.answer(exchange))
    listening = await asyncio.start_server(server.connected, "127.0.0.1", backlog=512)
    port = listening.sockets[0].getsockname()[1]
    url = f"http://127.0.0.1:{port}/v1"
    stack.start_worker(
        dialect="openai-compatible", url=url, models=["m"], max_waiting=2 * WAITING, probe_seconds=0
    )
    stack.start_api()
    try:
        await asyncio.to_thread(stack.wait_ready)
        yield wide
    finally:
        await asyncio.to_thread(stack.stop)
        listening.close()


@pytest.fixture
def wide(running: Wide) -> Wide:
    running.calls = 0
    running.go_on = asyncio.Event()
    return running


async def contents(caller: RawCaller) -> AsyncIterator[str]:
    """What the chunks of a stream that comes to its end hold."""
    last = ""
    async for one in caller.told():
        if one.data and (last := one.data) != "[DONE]":
            yield json.loads(last)["choices"][0]["delta"].get("content") or ""
    assert last == "[DONE]"


async def followed(caller: RawCaller) -> list[tuple[float, float]]:
    """When the backend sent each token of a trickling stream, and how long it took to its caller."""
    status, _ = await caller.head()
    assert status == 200
    tokens: list[tuple[float, float]] = []
    async for content in contents(caller):
        if content:
            number, sent = content.split()
            assert int(number) == len(tokens)
            tokens.append((float(sent), time.monotonic() - float(sent)))
    return tokens


async def test_readers_that_do_not_read_cost_no_memory(wide: Wide) -> None:
    """It comes first: what the others leave free would hide what this one takes."""
    async with asyncio.timeout(60):
        wide.go_on.set()
        (first,) = await wide.callers(1, stream=True)
        assert len(await followed(first)) > 2
        wide.go_on.clear()
        before = most = wide.api.memory_info().rss
        slow = [
            await RawCaller.ask(wide.stack.port, CHAT, asking(what), buffer=2048)
            for what in (SLOW // 2) * ("long", "endless")
        ]
        jobs = [(await one.head())[1]["x-k9-job"] for one in slow]
        redis = wide.stack.redis.client

        def written() -> bool:
            nonlocal most
            most = max(most, wide.api.memory_info().rss)
            return all(redis.xlen(f"k9:relay:{job}") > LONG for job in jobs)

        await until(written, "the worker has written all of it")
        (beside,) = await wide.callers(1, stream=True)
        served = asyncio.create_task(followed(beside))
        await asyncio.sleep(6 * EVERY)
        wide.go_on.set()
        took = sorted(took for _, took in await served)
        assert took[len(took) // 2] < BEHIND
        assert written()
        print(f"{(most - before) / 2**20:.1f} MiB of {SLOW * LONG * PIECE / 2**20:.0f}")
        assert most - before < SLOW * LONG * PIECE / 4
        late = [content async for content in contents(slow[0]) if content]
        assert [content.split()[0] for content in late] == [str(number) for number in range(LONG)]
        assert wide.active == SLOW // 2
        gone = time.monotonic()
        for one in slow:
            one.reset()
        await until(lambda: wide.active == 0, "nobody calls for them any more")
        assert time.monotonic() - gone < 2
        states = [wide.stack.job(job)["state"] for job in jobs]
        assert states == (SLOW // 2) * ["succeeded", "cancelled"]


def asking(what: str) -> dict[str, Any]:
    return chat_body("m", stream=True, messages=[{"role": "user", "content": what}])


async def test_five_hundred_wait_while_two_hundred_stream(wide: Wide) -> None:
    before, files = wide.api.memory_info().rss, wide.api.num_fds()
    async with asyncio.timeout(60):
        streams = [asyncio.create_task(followed(one)) for one in await wide.callers(STREAMS, stream=True)]
        await until(lambda: wide.active == STREAMS, "all stream")
        whole = [asyncio.create_task(one.whole()) for one in await wide.callers(WAITING)]
        await until(lambda: wide.waiting == WAITING, "all others wait")
        assert (wide.active, wide.calls) == (STREAMS, STREAMS)
        held = wide.api.memory_info().rss - before
        settled = time.monotonic()
        await asyncio.sleep(6 * EVERY)  # to have tokens to look at
        until_then = time.monotonic()
        wide.go_on.set()
        tokens = [token for one in await asyncio.gather(*streams) for token in one]
        answers = await asyncio.gather(*whole)
    took = sorted(took for sent, took in tokens if settled < sent < until_then)
    half = len(took) // 2
    print(
        f"{held / 1024 / (WAITING + STREAMS):.0f} KiB each;"
        f" {len(took)} tokens {took[half]:.3f} {took[int(len(took) * 0.99)]:.3f} {took[-1]:.3f}"
    )
    assert {status for status, _ in answers} == {200}
    assert {answer["choices"][0]["message"]["content"] for _, answer in answers} == {"hi"}
    assert wide.calls == WAITING + STREAMS
    assert took[half] < BEHIND
    assert held < 120 * 1024 * (WAITING + STREAMS)
    await until(lambda: wide.api.num_fds() <= files + 5, "every connection is closed")


async def test_who_leaves_is_cancelled_within_a_second_though_hundreds_do(wide: Wide) -> None:
    async with asyncio.timeout(60):
        taken = await wide.taken()
        queued = await wide.callers(WAITING // 2) + await wide.callers(WAITING // 2, stream=True)
        await until(lambda: wide.waiting == WAITING, "all others wait")
        for what, callers, left in (
            ("queued", queued, lambda: wide.waiting == 0),
            ("running", taken, lambda: wide.active == 0),
        ):
            gone = time.monotonic()
            for one in callers:
                one.leave()
            await until(left, f"nobody is {what}")
            print(what, time.monotonic() - gone)
            assert time.monotonic() - gone < 2  # the second, and what hundreds take on a busy machine
    assert wide.calls == STREAMS
