"""A stretch of network between one worker and its backend, which a storm may cut.

It also counts: every inference that passes bears a mark in its prompt, so a gate knows which job was
called, when, and until when the answer came.
"""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

MARK = re.compile(rb"storm-[0-9a-f]{16}")
_LONGEST = 22
"""Bytes of a mark."""


@dataclass
class Call:
    """One inference that reached a backend. Instants are `time.monotonic()`."""

    mark: str
    worker: str
    began: float
    heard: float | None = None
    """When the last byte of the answer so far came back."""
    closed: float | None = None
    """When its connection carried the next request, or ended."""

    @property
    def goes_on(self) -> bool:
        """It has been sent, and nothing of its answer has come."""
        return self.heard is None and self.closed is None

    def under_way(self, since: float, until: float, slack: float = 0.5) -> bool:
        """Whether it was going on at any time of a span; `slack` seconds are for recording its end."""
        ends = [at for at in (self.heard, self.closed) if at is not None]
        return self.began <= until and (not ends or min(ends[0], ends[-1]) + slack >= since)


class Gates:
    """All gates, on one event loop of a thread of their own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.calls: list[Call] = []

    def open(self, worker: str, port: int) -> Gate:
        """A gate on a free port, before the server at `port`."""
        gate = Gate(self, worker, port)
        self.do(gate.listen())
        return gate

    def do(self, what: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(what, self._loop).result(10)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)


class Gate:
    def __init__(self, gates: Gates, worker: str, upstream: int) -> None:
        self.worker = worker
        self.port = 0
        self._gates = gates
        self._upstream = upstream
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._flows = asyncio.Event()
        self._flows.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def drop(self) -> None:
        """Cut every connection; new ones are welcome."""
        self._gates.do(self._drop())

    def refuse(self) -> None:
        """Cut every connection, and refuse new ones."""
        self._gates.do(self._refuse())

    def hold(self) -> None:
        """Let no byte through either way, and tell nobody."""
        self._gates.do(self._hold())

    def heal(self) -> None:
        """As before; what was held goes on its way, as a network sends again what got lost."""
        self._gates.do(self.listen())

    async def listen(self) -> None:
        self._flows.set()
        if self._server is None:
            self._server = await asyncio.start_server(self._carry, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    async def _drop(self) -> None:
        for writer in self._open:
            writer.transport.abort()

    async def _refuse(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._drop()

    async def _hold(self) -> None:
        self._flows.clear()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        away: asyncio.StreamWriter | None = None
        calls: list[Call] = []
        try:
            back, away = await asyncio.open_connection("127.0.0.1", self._upstream)
            self._open.add(away)
            up = asyncio.create_task(self._up(reader, away, calls))
            down = asyncio.create_task(self._down(back, writer, calls))
            await asyncio.wait([up, down], return_when=asyncio.FIRST_COMPLETED)
            up.cancel()
            down.cancel()
        except OSError:
            pass
        finally:
            for end in (writer, away):
                if end is not None:
                    self._open.discard(end)
                    end.close()
            if calls:
                calls[-1].closed = time.monotonic()

    async def _up(self, reader: asyncio.StreamReader, away: asyncio.StreamWriter, calls: list[Call]) -> None:
        seen = b""
        while data := await reader.read(65536):
            sent = time.monotonic()  # that is when its worker began to wait, whenever it gets through
            await self._flows.wait()
            seen = seen[-_LONGEST + 1 :] + data
            for mark in MARK.findall(seen):
                if calls:
                    calls[-1].closed = time.monotonic()
                call = Call(mark.decode(), self.worker, sent)
                calls.append(call)
                self._gates.calls.append(call)
            away.write(data)
            await away.drain()

    async def _down(
        self, back: asyncio.StreamReader, writer: asyncio.StreamWriter, calls: list[Call]
    ) -> None:
        while data := await back.read(65536):
            await self._flows.wait()
            if calls:
                calls[-1].heard = time.monotonic()
            writer.write(data)
            await writer.drain()
