"""The worker's end of the relay: chunks of all running jobs leave together, every few milliseconds.

The first chunk of a job leaves at once, since someone is waiting for it; after that, one script call
carries whatever all jobs of the process have produced. A slow Redis makes the calls larger, not more.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from pydantic_core import to_json

from k9_broker.adapters import keys
from k9_broker.adapters.connect import Commands, ended
from k9_broker.jobs import Claim
from k9_broker.results import Chunk

logger = logging.getLogger(__name__)

FLUSH_EVERY = 0.015
"""Seconds between flushes: adds up to half of it to a token's latency, saves two thirds of its cost."""
_PATIENCE = 0.5
"""Seconds before chunks that could not be written are offered again."""


@dataclass(slots=True)
class _Stream:
    claim: Claim
    first: int = 0
    """Number of the first chunk that is still unwritten."""
    unwritten: list[bytes] = field(default_factory=list)
    written: asyncio.Event = field(default_factory=asyncio.Event)


class RedisRelayWriter:
    """Implements `k9_broker.ports.RelayWriter`."""

    def __init__(self, commands: Commands, superseded: Callable[[Claim], None]) -> None:
        """`superseded` is told the claims whose chunks nobody wants any more."""
        self._commands = commands
        self._superseded = superseded
        self._streams: dict[str, _Stream] = {}
        self._urgent = asyncio.Event()
        self._waiting = asyncio.Event()
        self._flusher: asyncio.Task[None] | None = None

    def send(self, claim: Claim, chunk: Chunk) -> None:
        stream = self._streams.get(claim.token)
        if stream is None:
            stream = self._streams[claim.token] = _Stream(claim)
            self._urgent.set()
        stream.unwritten.append(to_json(chunk))
        stream.written.clear()
        self._waiting.set()
        if self._flusher is None:
            self._flusher = asyncio.create_task(self._run(), name="relay")

    async def drain(self, claim: Claim) -> None:
        stream = self._streams.get(claim.token)
        if stream is None:
            return
        self._urgent.set()
        try:
            await stream.written.wait()
        finally:
            self._streams.pop(claim.token, None)

    async def close(self) -> None:
        if self._flusher is not None:
            await ended(self._flusher)

    async def _run(self) -> None:
        clock = asyncio.get_running_loop().time
        due = clock()
        while True:
            await self._waiting.wait()
            try:
                async with asyncio.timeout_at(due):
                    await self._urgent.wait()
            except TimeoutError:
                pass
            due = clock() + FLUSH_EVERY
            self._urgent.clear()
            self._waiting.clear()
            batch = [
                (stream, list(stream.unwritten)) for stream in self._streams.values() if stream.unwritten
            ]
            if not batch:
                continue
            try:
                lost = await self._write(batch)
            except Exception as error:  # whatever it was: every stream of the process waits for this task
                logger.warning("chunks could not be written (%s)", type(error).__name__)
                await asyncio.sleep(_PATIENCE)
                self._waiting.set()
                continue
            for stream, chunks in batch:
                stream.first += len(chunks)
                del stream.unwritten[: len(chunks)]
                if not stream.unwritten or stream.claim.token in lost:
                    stream.written.set()
                if stream.claim.token in lost:
                    self._superseded(stream.claim)

    async def _write(self, batch: list[tuple[_Stream, list[bytes]]]) -> set[str]:
        args: list[object] = []
        for stream, chunks in batch:
            args += [stream.claim.job.id, stream.claim.token, stream.first, len(chunks), *chunks]
        reply = await self._commands.script(
            "relay", [keys.job(stream.claim.job.id) for stream, _ in batch], args
        )
        return {token.decode() for token in reply}
