"""The window: several chunks under way, their answers handed on in the order of the input."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator

from k9_api.batch.answers import Answer
from k9_api.batch.chunks import Chunk

WINDOW = 16
"""Chunks under way: twice the slots of a usual backend, so that one always waits where one has ended."""


class ReadAhead:
    """Chunks read in a thread of their own, `depth` ahead, so that a slow input blocks nobody.

    The thread is a daemon: one that waits for a silent standard input must not keep the process.
    """

    def __init__(self, chunks: Iterator[Chunk], depth: int = 2) -> None:
        self._chunks = chunks
        self._queue: asyncio.Queue[Chunk | Exception | None] = asyncio.Queue(depth)
        self._loop = asyncio.get_running_loop()
        self._closed = False
        threading.Thread(target=self._read, name="k9-embed-reader", daemon=True).start()

    async def next(self) -> Chunk | None:
        """The next chunk; `None` at the end, and ever after. Raises what reading raised."""
        got = await self._queue.get()
        if not isinstance(got, Chunk):
            self._closed = True
            self._queue.put_nowait(None)
        if isinstance(got, Exception):
            raise got
        return got

    def close(self) -> None:
        """Let the thread go."""
        self._closed = True
        while not self._queue.empty():
            self._queue.get_nowait()

    def _read(self) -> None:
        try:
            for chunk in self._chunks:
                if not self._put(chunk):
                    return
            self._put(None)
        except Exception as error:  # whatever it is, it belongs to the one who waits for a chunk
            self._put(error)

    def _put(self, item: Chunk | Exception | None) -> bool:
        if self._closed or self._loop.is_closed():
            return False
        asyncio.run_coroutine_threadsafe(self._queue.put(item), self._loop).result()
        return not self._closed


async def in_order(
    chunks: ReadAhead, embed: Callable[[Chunk], Awaitable[Answer]], window: int = WINDOW
) -> AsyncGenerator[Answer]:
    """Answers in input order, `window` chunks under way, at most `window` more done and waiting.

    Closing the iterator cancels what is under way. Close it with `contextlib.aclosing`.
    """
    slots = asyncio.Semaphore(window)

    async def run(chunk: Chunk) -> Answer:
        async with slots:
            return await embed(chunk)

    pending: deque[asyncio.Task[Answer]] = deque()
    reading: asyncio.Task[Chunk | None] | None = asyncio.create_task(chunks.next())
    try:
        while pending or reading:
            waits: set[asyncio.Task[Answer] | asyncio.Task[Chunk | None]] = set()
            if pending:
                waits.add(pending[0])
            if reading and len(pending) < 2 * window:
                waits.add(reading)
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if reading and reading.done() and len(pending) < 2 * window:
                chunk = reading.result()
                if chunk is not None:
                    pending.append(asyncio.create_task(run(chunk)))
                reading = asyncio.create_task(chunks.next()) if chunk is not None else None
            if pending and pending[0].done():
                yield pending.popleft().result()
    finally:
        chunks.close()
        left = [*pending, *([reading] if reading else [])]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
