"""Callers on bare sockets: hundreds at once, slow to read, or gone at any moment."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

CHAT = "/v1/chat/completions"
MESSAGES = "/v1/messages"


class Told(NamedTuple):
    """One event of a stream, or, with no data, a comment's text in `name`."""

    name: str = ""
    data: str = ""
    id: str = ""


@dataclass
class RawCaller:
    """One request on a connection of its own, which says `connection: close`."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    chunked: bool = False

    @classmethod
    async def ask(
        cls, port: int, path: str, body: Any = None, *, buffer: int | None = None, **headers: str
    ) -> Self:
        """Send it and wait for nothing. `buffer`: bytes the kernel keeps for a caller that does not read;
        of what comes it then reads no more than is asked for."""
        raw = b"" if body is None else json.dumps(body).encode()
        connected = socket.socket()
        if buffer is not None:
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        connected.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connected, ("127.0.0.1", port))
        limit = 2**16 if buffer is None else 2**11
        reader, writer = await asyncio.open_connection(sock=connected, limit=limit)
        head = [f"{'GET' if body is None else 'POST'} {path} HTTP/1.1", "host: k9", "connection: close"]
        head += [f"content-length: {len(raw)}", "content-type: application/json"]
        head += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join([*head, "", ""]).encode() + raw)
        await writer.drain()
        return cls(reader, writer)

    async def head(self) -> tuple[int, dict[str, str]]:
        """Status and headers, with names in lower case."""
        status, *rows = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").strip().split("\r\n")
        headers = {name.lower(): value for name, _, value in (row.partition(": ") for row in rows)}
        self.chunked = headers.get("transfer-encoding") == "chunked"
        return int(status.split()[1]), headers

    async def whole(self) -> tuple[int, Any]:
        """Status and body of an answer that is JSON."""
        status, _ = await self.head()
        raw = await self.reader.read(-1)
        return status, json.loads(raw)

    async def told(self) -> AsyncIterator[Told]:
        """The events and comments of a stream, after `head`."""
        fields: dict[str, str] = {}
        comment = ""
        async for line in self._lines():
            if line.startswith(":"):
                comment = line[1:].strip()
            elif line:
                name, _, value = line.partition(": ")
                fields[name] = value
            elif fields or comment:
                yield Told(fields.get("event", comment), fields.get("data", ""), fields.get("id", ""))
                fields, comment = {}, ""

    async def _lines(self) -> AsyncIterator[str]:
        rest = b""
        while piece := await self._piece():
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                yield line.decode()

    async def _piece(self) -> bytes:
        """What one chunk holds; nothing at the end, or when the server is gone."""
        try:
            if not self.chunked:
                return await self.reader.read(2**16)
            size = int((await self.reader.readuntil(b"\r\n")).strip() or b"0", 16)
            return (await self.reader.readexactly(size + 2))[:-2]
        except (asyncio.IncompleteReadError, ConnectionError):
            return b""

    def leave(self) -> None:
        """Close the connection, as a client does that gives up."""
        self.writer.close()

    def reset(self) -> None:
        """Tear the connection down, as a client does whose machine goes away."""
        held = self.writer.get_extra_info("socket")
        held.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    def say_no_more(self) -> None:
        """Close the sending half only: what still comes can be read."""
        self.writer.write_eof()


def chat_body(model: str, **more: Any) -> dict[str, Any]:
    """A body that both wire formats take."""
    return {"model": model, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 16, **more}
