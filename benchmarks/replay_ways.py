"""Ways to serve a trace, and the client that plays it: each request at its time, every token's arrival noted.

A request that is sent late, because the client was busy, counts from when it was due.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count, cycle, islice
from typing import Any

import aiohttp
from pydantic_core import to_json

from k9_broker.simulation.traces import Arrival
from replay_ground import MODEL, Ground, Scale

CHAT = "/v1/chat/completions"
TASK_TYPES = {"code": "code_completion"}
"""Told to K-9, since the prompts here are only as long as the trace's, not about the same."""

_WORDS = ("and", "then", "we", "walked", "along", "the", "river", "to", "the", "old", "mill")
_TOKEN = re.compile(rb'"content":"[^"]')


@dataclass(frozen=True, slots=True)
class Served:
    """What became of one request. Seconds are the trace's."""

    arrival: Arrival
    status: int
    """HTTP status; 0 when the connection failed or tokens were missing."""
    kind: str = ""
    """`local` or `cloud`: where it ran."""
    reason: str = ""
    """K-9's, why there."""
    ttft: float | None = None
    """Until the first token, from when the request was due."""
    tpot: float | None = None
    """Between tokens on average; `None` for answers of a single one on the wire."""
    queued: float | None = None
    """In K-9's queue, as its header says."""

    @property
    def answered(self) -> bool:
        return self.ttft is not None


Ask = Callable[[Arrival, float], Coroutine[Any, Any, Served]]
"""Serves one arrival that is due at an instant of the event loop's clock."""


class Client:
    """Sends the requests of a trace to servers and reads their streams."""

    def __init__(self, session: aiohttp.ClientSession, scale: Scale) -> None:
        self._session = session
        self._scale = scale
        self._clock = asyncio.get_running_loop().time

    async def send(
        self, url: str, arrival: Arrival, due: float, headers: Mapping[str, str] | None = None
    ) -> Served:
        scale, came = self._scale, list[float]()
        rest, status = b"", 0
        head: Mapping[str, str] = {}
        try:
            sent = {"content-type": "application/json", **(headers or {})}
            async with self._session.post(url + CHAT, data=self._body(arrival), headers=sent) as reply:
                head = reply.headers
                async for data in reply.content.iter_any():
                    now = self._clock() - due
                    whole, end, rest = (rest + data).rpartition(b"\n\n")
                    came += [now] * len(_TOKEN.findall(whole + end))
                status = reply.status
        except (aiohttp.ClientError, TimeoutError):
            status = 0
        if status != 200 or len(came) < scale.tokens(arrival.output_tokens):
            return Served(arrival, 0 if status == 200 else status)
        gaps = (len(came) - 1) * scale.grain
        return Served(
            arrival,
            status,
            head.get("x-k9-kind", ""),
            head.get("x-k9-reason", ""),
            came[0] * scale.speed,
            (came[-1] - came[0]) * scale.speed / gaps if gaps else None,
            float(head["x-k9-queue-seconds"]) * scale.speed if "x-k9-queue-seconds" in head else None,
        )

    def _body(self, arrival: Arrival) -> bytes:
        words = " ".join(islice(cycle(_WORDS), self._scale.words(arrival.prompt_tokens)))
        asked: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": words}]}
        return to_json({**asked, "stream": True, "max_tokens": self._scale.tokens(arrival.output_tokens)})


def through_k9(client: Client, ground: Ground, kind: str | None = None) -> Ask:
    """K-9 decides, or only within one kind of backends."""
    named = {"x-k9-kind": kind} if kind else {}

    async def serve(arrival: Arrival, due: float) -> Served:
        headers = {**named, "x-k9-task-type": TASK_TYPES.get(arrival.kind, "chat")}
        return await client.send(ground.stack.url, arrival, due, headers)

    return serve


def fallback(client: Client, ground: Ground) -> Ask:
    """Without K-9: the local servers in turn, the other one after a 429, the cloud after two."""
    turn = count()

    async def serve(arrival: Arrival, due: float) -> Served:
        first = next(turn)
        for after in range(len(ground.locals)):
            server = ground.locals[(first + after) % len(ground.locals)]
            served = await client.send(server.url, arrival, due)
            if served.status != 429:
                return _at(served, "local")
        return _at(await client.send(ground.cloud.url, arrival, due), "cloud")

    return serve


def _at(served: Served, kind: str) -> Served:
    return Served(served.arrival, served.status, kind, "", served.ttft, served.tpot)


@asynccontextmanager
async def clients(scale: Scale) -> AsyncIterator[Client]:
    """A client with as many connections as it needs."""
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=900)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        yield Client(session, scale)


async def replay(arrivals: Sequence[Arrival], serve: Ask, speed: float) -> list[Served]:
    """Each arrival at its time; all answers, in the order of the arrivals."""
    loop = asyncio.get_running_loop()
    began = loop.time() + 0.1
    under_way: list[asyncio.Task[Served]] = []
    for arrival in arrivals:
        due = began + arrival.at / speed
        if (left := due - loop.time()) > 0:
            await asyncio.sleep(left)
        under_way.append(asyncio.create_task(serve(arrival, due)))
    return list(await asyncio.gather(*under_way))
