"""One HTTP request and its answer, with everything a fault needs: silence, cuts, resets."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, Iterable
from time import monotonic
from typing import Any, Protocol

from k9_broker.fake.head import Head
from k9_broker.fake.script import Reply

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


class Gone(Exception):
    """The caller closed the connection."""


class Connection(Protocol):
    """What the server lets the application see of a connection."""

    transport: asyncio.Transport
    requests: int
    """That began on it so far, this one included."""
    timeout_keep_alive: float
    """Seconds without a request after which it is closed."""


class Exchange:
    """An ASGI exchange; `scope["state"]["connection"]` is its connection."""

    def __init__(self, scope: Any, receive: Receive, send: Send) -> None:
        self.head = Head(scope["method"], scope["path"], scope["query_string"], scope["headers"])
        self.connection: Connection = scope["state"]["connection"]
        self._receive = receive
        self._send = send

    async def body(self) -> bytes:
        """The whole request body. Raises `Gone`."""
        parts = []
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise Gone
            parts.append(message["body"])
            if not message["more_body"]:
                return b"".join(parts)

    async def gone(self) -> None:
        """Return when the caller has closed the connection."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def pause(self, seconds: float) -> None:
        """Wait, never less than so long. Raises `Gone` as soon as the caller leaves."""
        end = monotonic() + seconds
        while (left := end - monotonic()) > 0:  # uvloop's timers may be half a millisecond early
            try:
                async with asyncio.timeout(left):
                    await self.gone()
            except TimeoutError:
                continue
            raise Gone

    async def until(self, turn: asyncio.Future[None]) -> None:
        """Wait for `turn`. Raises `Gone` as soon as the caller leaves."""
        left = asyncio.ensure_future(self.gone())
        try:
            await asyncio.wait((turn, left), return_when=asyncio.FIRST_COMPLETED)
            if left.done():
                raise Gone
        finally:
            left.cancel()

    async def reply(self, reply: Reply) -> None:
        """Send a whole answer."""
        await self.begin(reply.status, reply.content_type, reply.headers, len(reply.body))
        await self.write(reply.body, more=False)

    async def begin(
        self,
        status: int,
        content_type: str,
        headers: Iterable[tuple[str, str]] = (),
        length: int | None = None,
    ) -> None:
        """Send the head; without a `length` the body is chunked."""
        head = [("content-type", content_type), *headers] if content_type else [*headers]
        if length is not None:
            head.append(("content-length", str(length)))
        raw = [(name.encode(), value.encode()) for name, value in head]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})

    async def write(self, data: bytes, *, more: bool = True) -> None:
        """Send a piece of the body; the last one with `more=False`."""
        await self._send({"type": "http.response.body", "body": data, "more_body": more})

    def cut(self) -> None:
        """Close the connection once what was written has left."""
        self.connection.transport.close()

    def reset(self) -> None:
        """Close the connection so that the other side sees a reset (TCP RST)."""
        if (link := self.connection.transport.get_extra_info("socket")) is not None:
            link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.transport.abort()
