"""A tiny HTTP/1.1 server on a real socket, for tests that need one that stalls, lies or dies."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from k9_broker.backends import Backend
from k9_broker.dialects.registry import dialect_named
from k9_broker.requests import InferenceRequest, Operation
from k9_workers.transport import HttpCaller


class Exchange:
    """One request as the server got it, and the means to answer it."""

    def __init__(
        self, writer: asyncio.StreamWriter, connection: int, number: int, head: str, raw: bytes
    ) -> None:
        self.writer, self.connection, self.number = writer, connection, number
        self.line, _, rest = head.partition("\r\n")
        self.headers = {k.lower(): v for k, _, v in (row.partition(": ") for row in rest.split("\r\n"))}
        self.body: dict[str, Any] = json.loads(raw) if raw else {}

    async def reply(self, body: Any, status: int = 200, **headers: str) -> None:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        rows = {"content-type": "application/json", "content-length": str(len(raw)), **headers}
        head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in rows.items())
        await self.send(f"HTTP/1.1 {status} X\r\n{head}\r\n".encode() + raw)

    async def start_stream(self) -> None:
        await self.send(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        )

    async def event(self, data: Any) -> None:
        raw = b"data: " + (data if isinstance(data, bytes) else json.dumps(data).encode()) + b"\n\n"
        await self.send(f"{len(raw):x}\r\n".encode() + raw + b"\r\n")

    async def end_stream(self) -> None:
        await self.send(b"0\r\n\r\n")

    async def send(self, raw: bytes) -> None:
        self.writer.write(raw)
        await self.writer.drain()

    def die(self) -> None:
        self.writer.transport.abort()


class Server:
    """A tiny HTTP/1.1 server; `script` answers each exchange."""

    def __init__(self, script: Callable[[Exchange], Awaitable[None]]) -> None:
        self.script = script
        self.seen: list[Exchange] = []
        self.connections = 0
        self.gone = asyncio.Event()
        """Some client has closed its connection."""

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        connection, number, early = self.connections, 0, b""
        tasks: tuple[asyncio.Future[Any], ...] = ()
        try:
            while True:
                head = (early + await reader.readuntil(b"\r\n\r\n")).decode()
                length = next(
                    (int(r[15:]) for r in head.split("\r\n") if r.lower().startswith("content-len")), 0
                )
                number += 1
                exchange = Exchange(writer, connection, number, head, await reader.readexactly(length))
                self.seen.append(exchange)
                answering = asyncio.ensure_future(self.script(exchange))
                watching = asyncio.ensure_future(reader.read(1))
                tasks = (answering, watching)
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                early = watching.result() if watching.done() else b""  # the next request may have begun
                if not (early or answering.done()):
                    self.gone.set()
                    return
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)
                await answering
        except (asyncio.IncompleteReadError, ConnectionError):
            self.gone.set()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            writer.close()


@asynccontextmanager
async def serving(
    script: Callable[[Exchange], Awaitable[None]], dialect: str = "openai-compatible", **settings: Any
) -> AsyncIterator[tuple[Server, HttpCaller]]:
    server = Server(script)
    listening = await asyncio.start_server(server.connected, "127.0.0.1")
    port = listening.sockets[0].getsockname()[1]
    backend = Backend(name="b", dialect=dialect, url=f"http://127.0.0.1:{port}", **settings)
    caller = HttpCaller(backend, backend.servers[0], dialect_named(dialect))
    try:
        yield server, caller
    finally:
        await caller.close()
        listening.close()


def chat(**body: Any) -> InferenceRequest:
    return InferenceRequest(
        Operation.CHAT, "m", {"messages": [{"role": "user", "content": "a secret"}], **body}
    )


def embed(inputs: Any, *, partial: bool = False) -> InferenceRequest:
    return InferenceRequest(Operation.EMBEDDINGS, "m", {"input": inputs}, partial=partial)


async def collect(stream: AsyncIterator[Any], into: list[Any]) -> None:
    """Append what `stream` gives, so that it is there also when the stream fails."""
    async for item in stream:
        into.append(item)
