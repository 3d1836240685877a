"""A server on a real socket that plays a table of replies, well or badly, and workers' own caller for it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Literal

from k9_broker.backends import Backend
from k9_workers.callers import build_caller
from k9_workers.instances import Instances
from tiny_server import Exchange, Server

Ending = Literal["whole", "eof", "reset", "silence"]
"""How a streamed reply ends: as HTTP wants it, by closing the connection, by a TCP reset, or not at all."""

TURNS = 3
"""Turns of the event loop that a client gets to read one piece before the next is written."""


@dataclass(frozen=True)
class Reply:
    """What the server answers to one request."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    pieces: Sequence[bytes] | None = None
    """Instead of `body`: a streamed body, each piece written by itself."""
    ending: Ending = "whole"
    late: asyncio.Event | None = None
    """No byte goes out before it is set."""
    gaps: float = 0.0
    """Seconds of silence before each piece."""

    @classmethod
    def of(cls, body: Any, status: int = 200, **headers: str) -> Reply:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return cls(body if isinstance(body, bytes) else dump(body), status, named)


def dump(value: Any) -> bytes:
    """JSON as servers write it: compact, its letters not escaped."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def cut(raw: bytes, random: Random, most: int = 40) -> list[bytes]:
    """`raw` in pieces of any size, cut within characters and line ends too."""
    places = sorted({random.randrange(1, len(raw)) for _ in range(random.randrange(1, most))})
    return [raw[start:stop] for start, stop in zip([0, *places], [*places, len(raw)], strict=True)]


def bytewise(raw: bytes) -> list[bytes]:
    return [raw[at : at + 1] for at in range(len(raw))]


class Replaying:
    """Replies by method and path, `*` for any path; a list of them is used up in order, its last stays."""

    def __init__(self, routes: Mapping[tuple[str, str], Reply | list[Reply]]) -> None:
        self.routes = dict(routes)
        self.backend: Backend | None = None
        self.server = Server(self._answer)
        self.dies_on_reuse = False
        """Each connection is reset when a second request comes on it, before any byte of an answer."""
        self.dies = False
        """Each connection is reset at its first request."""

    @property
    def seen(self) -> list[Exchange]:
        return self.server.seen

    async def _answer(self, exchange: Exchange) -> None:
        if self.dies or (self.dies_on_reuse and exchange.number > 1):
            exchange.die()
            return
        where = asked(exchange)
        found = self.routes.get(where) or self.routes.get((where[0], "*"))
        if found is None:
            await exchange.reply({"error": {"message": f"nothing is scripted for {where}"}}, 418)
            return
        reply = found if isinstance(found, Reply) else found.pop(0) if len(found) > 1 else found[0]
        if reply.late:
            await reply.late.wait()
        if reply.pieces is None:
            await exchange.reply(reply.body, reply.status, **reply.headers)
        else:
            await _stream(exchange, reply, reply.pieces)


def asked(exchange: Exchange) -> tuple[str, str]:
    """Method and path of a request."""
    method, path, _ = exchange.line.split(" ")
    return method, path


async def _stream(exchange: Exchange, reply: Reply, pieces: Sequence[bytes]) -> None:
    chunked = reply.ending != "eof"
    how = "transfer-encoding: chunked" if chunked else "connection: close"
    rows = {"content-type": "text/event-stream", **reply.headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in rows.items())
    await exchange.send(f"HTTP/1.1 {reply.status} X\r\n{head}{how}\r\n\r\n".encode())
    for piece in pieces:
        if reply.gaps:
            await asyncio.sleep(reply.gaps)
        await exchange.send(f"{len(piece):x}\r\n".encode() + piece + b"\r\n" if chunked else piece)
        for _ in range(TURNS):
            await asyncio.sleep(0)
    if reply.ending == "whole":
        await exchange.end_stream()
    elif reply.ending == "eof":
        exchange.writer.close()
    elif reply.ending == "reset":
        exchange.die()
    else:
        await asyncio.Event().wait()


@asynccontextmanager
async def replaying(
    dialect: str, routes: Mapping[tuple[str, str], Reply | list[Reply]], **settings: Any
) -> AsyncIterator[tuple[Replaying, Instances]]:
    """A replaying server, and the caller that a worker would have for it."""
    played = Replaying(routes)
    connections: set[asyncio.Task[None] | None] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.add(asyncio.current_task())
        await played.server.connected(reader, writer)

    listening = await asyncio.start_server(connected, "127.0.0.1")
    port = listening.sockets[0].getsockname()[1]
    backend = Backend(name="b", dialect=dialect, url=f"http://127.0.0.1:{port}", **settings)
    played.backend = backend
    caller = build_caller(backend, Path())
    assert isinstance(caller, Instances)
    try:
        yield played, caller
    finally:
        await caller.close()
        listening.close()
        await asyncio.gather(*filter(None, connections), return_exceptions=True)
