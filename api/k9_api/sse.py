"""Server-sent events: the answer that is written while it comes into being."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from k9_api.dialects.surface import Surface
from k9_api.errors import error_response
from k9_api.presence import CallerGone, Presence
from k9_broker.errors import K9Error

log = logging.getLogger(__name__)

KEEP_ALIVE = 10.0
"""Seconds of silence after which the headers and a frame without meaning are sent."""


class Downstream:
    """The caller's end of one stream. The first frame sends the status and the headers before it."""

    def __init__(self, receive: Receive, send: Send, keep_alive: bytes) -> None:
        self.headers: dict[str, str] = {}
        self.started = False
        self._receive = receive
        self._send = send
        self._keep_alive = keep_alive
        self._turn = asyncio.Lock()
        self._quiet_since = time.monotonic()

    def attended(self) -> Presence:
        """While entered, silence is filled and a caller that hangs up interrupts the task."""
        return Presence(self._receive, self._fill_silence, KEEP_ALIVE / 2)

    async def write(self, data: bytes) -> None:
        """Raises `CallerGone`."""
        async with self._turn:
            self._quiet_since = time.monotonic()
            try:
                if not self.started:
                    self.started = True
                    await self._send({"type": "http.response.start", "status": 200, "headers": self._head()})
                await self._send({"type": "http.response.body", "body": data, "more_body": True})
            except OSError:
                raise CallerGone from None

    async def close(self) -> None:
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _fill_silence(self) -> None:
        # Half of the period between two looks: nobody waits longer than one and a half periods.
        # While a write is under way it is the caller who is silent: more would only wait behind it.
        if not self._turn.locked() and time.monotonic() - self._quiet_since >= 0.95 * KEEP_ALIVE:
            try:
                await self.write(self._keep_alive)
            except CallerGone:
                return  # the next look at the connection finds it closed

    def _head(self) -> list[tuple[bytes, bytes]]:
        own = [
            (b"content-type", b"text/event-stream"),
            (b"cache-control", b"no-cache"),
            (b"x-accel-buffering", b"no"),
        ]
        return own + [
            (name.encode("latin-1"), value.encode("latin-1")) for name, value in self.headers.items()
        ]


class EventStream(Response):
    """A streamed answer written by `produce`.

    An error before the first frame is an ordinary answer with its own status; later it is a frame
    of the caller's format, after which the stream ends.
    """

    def __init__(self, surface: Surface, produce: Callable[[Downstream], Awaitable[None]]) -> None:
        self.background = None
        self._surface = surface
        self._produce = produce

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        surface, request_id = self._surface, scope["state"]["request_id"]
        out = Downstream(receive, send, surface.keep_alive)
        try:
            await self._produce(out)
        except K9Error as error:
            if not out.started:
                refused = error_response(error, surface, request_id, out.headers)
                await refused(scope, receive, send)
                return
            await out.write(surface.error_frame(error, request_id))
        except CallerGone:
            raise
        except Exception as problem:
            if not out.started:
                raise
            log.error("a stream failed: %s", type(problem).__name__)
            await out.write(surface.error_frame(K9Error(), request_id))
        await out.close()
