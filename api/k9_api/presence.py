"""Whether the caller is still there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType

from starlette.types import Receive


class CallerGone(Exception):
    """The caller hung up before its answer was complete."""


class Presence:
    """While entered, a caller that hangs up interrupts the task; leaving then raises `CallerGone`.

    Enter it only once the request body has been read. `tick`, if given, is awaited every `every`
    seconds meanwhile; it must not raise.
    """

    def __init__(
        self, receive: Receive, tick: Callable[[], Awaitable[None]] | None = None, every: float = 5.0
    ) -> None:
        self._receive = receive
        self._tick = tick
        self._every = every
        self._gone = False

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a presence needs a task")
        self._task = task
        self._watch = asyncio.create_task(self._ticking() if self._tick else self._listen())

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watch.cancel()
        # Only our own cancellation becomes `CallerGone`; a shutdown's goes on as it is.
        if self._gone and self._task.uncancel() == 0 and kind is asyncio.CancelledError:
            raise CallerGone from None

    async def _listen(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        self._task.cancel()

    async def _ticking(self) -> None:
        if self._tick is None:
            return
        while not self._gone:
            try:
                async with asyncio.timeout(self._every):
                    await self._listen()
            except TimeoutError:
                await self._tick()
