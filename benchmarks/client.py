"""One lean HTTP client for both sides of every comparison: aiohttp on uvloop, connections kept."""

from __future__ import annotations

import asyncio
import gc
import re
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from time import perf_counter, time
from typing import Any, TypeVar

import aiohttp
import uvloop
from pydantic_core import to_json

JSON = {"content-type": "application/json"}
PROMPT = "In two sentences, please: why does a queue in front of a slow server help its callers?"

T = TypeVar("T")

_TOKEN = re.compile(rb'"content":"[^"]')


def chat(model: str, **more: Any) -> bytes:
    """The body of a small chat request."""
    return to_json({"model": model, "messages": [{"role": "user", "content": PROMPT}], **more})


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a measurement with what is loaded by now out of the garbage collector's way."""
    gc.collect()
    gc.freeze()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


class Client:
    """Asks one URL with one body."""

    def __init__(self, session: aiohttp.ClientSession, url: str, body: bytes) -> None:
        self._session = session
        self._url = url
        self._body = body

    async def ask(self) -> float:
        """Seconds until the whole answer was there. Raises `RuntimeError` unless it was a good one."""
        began = perf_counter()
        async with self._session.post(self._url, data=self._body, headers=JSON) as reply:
            said = await reply.read()
        if reply.status != 200:
            raise RuntimeError(f"{self._url} answered {reply.status}: {said[:300]!r}")
        return perf_counter() - began

    async def walk(self) -> list[float]:
        """When one chat through K-9 was sent, admitted, claimed, recorded, answered (Unix seconds)."""
        sent = time()
        async with self._session.post(self._url, data=self._body, headers=JSON) as reply:
            await reply.read()
        answered = time()
        job = f"{self._url.partition('/v1/')[0]}/v1/jobs/{reply.headers['x-k9-job']}"
        async with self._session.get(job) as reply:
            said = await reply.json()
        return [sent, said["created_at"], said["started_at"], said["ended_at"], answered]

    async def tokens(self) -> list[float]:
        """Seconds from the request to each token of a streamed answer."""
        arrived: list[float] = []
        began = perf_counter()
        rest = b""
        async with self._session.post(self._url, data=self._body, headers=JSON) as reply:
            async for data in reply.content.iter_any():
                now = perf_counter() - began
                whole, end, rest = (rest + data).rpartition(b"\n\n")
                arrived += [now] * len(_TOKEN.findall(whole + end))
        if reply.status != 200 or not arrived:
            raise RuntimeError(f"{self._url} answered {reply.status} with {len(arrived)} tokens")
        return arrived

    async def crowd(self, count: int, concurrency: int) -> list[float]:
        """`count` requests, so many at a time: the seconds each took."""
        left = iter(range(count))

        async def one_after_the_other() -> list[float]:
            return [await self.ask() for _ in left]

        callers = [one_after_the_other() for _ in range(concurrency)]
        return [seconds for taken in await asyncio.gather(*callers) for seconds in taken]


@asynccontextmanager
async def clients(*targets: tuple[str, bytes]) -> AsyncIterator[list[Client]]:
    """A client for each URL and body, over one session."""
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=120)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        yield [Client(session, url, body) for url, body in targets]
