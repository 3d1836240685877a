"""The API's end of the relay: one subscription wakes every caller that waits in this process.

A wake-up only says "look again"; what is true stands in the job's relay and record. So a lost
wake-up costs time, never an answer: after a reconnect, and every few seconds, everybody looks.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from pydantic_core import from_json
from redis.asyncio import Redis

from k9_broker.adapters import keys
from k9_broker.adapters.connect import Commands, ended
from k9_broker.errors import JobNotFound, LedgerUnavailable
from k9_broker.ports import Event, Follower

logger = logging.getLogger(__name__)

LOOK_ANYWAY = 10.0
"""Seconds after which a follower looks without having been woken."""
_PAGE = 64
"""Events read at once: a slow reader holds a page, not the whole answer."""


class RedisFollower:
    """Implements `k9_broker.ports.Follower`."""

    def __init__(self, commands: Commands, job_id: str) -> None:
        self._commands = commands
        self._job_id = job_id
        self.woken = asyncio.Event()
        self.unsure = asyncio.Event()
        """The job may have ended: look."""
        self.finished = False

    async def ended(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_ANYWAY):
                    await self.unsure.wait()
            if self.finished:
                return
            self.unsure.clear()
            with suppress(LedgerUnavailable):
                state, ended_at = await self._commands.command(
                    "HMGET", keys.job(self._job_id), "state", "ended_at"
                )
                if state is None:
                    raise JobNotFound
                if ended_at is not None:
                    return

    async def events(self, after: str = "0") -> AsyncIterator[Event]:
        while True:
            self.woken.clear()
            try:
                page = await self._commands.command(
                    "XRANGE", keys.relay(self._job_id), f"({after}", "+", "COUNT", _PAGE
                )
            except LedgerUnavailable:
                page = []
            for entry_id, fields in page:
                after = entry_id.decode()
                event = Event(after, fields[b"kind"].decode(), from_json(fields[b"data"]))
                yield event
                if event.kind == "end":
                    return
            if len(page) < _PAGE and not self.woken.is_set():
                if self.finished and not page:
                    return  # asked for events after the last one
                await self._look_again()

    async def _look_again(self) -> None:
        """Wait for news; when there is none for long, or Redis was away, ask whether there is still a job."""
        if not self.unsure.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_ANYWAY):
                    await self.woken.wait()
                    if self.finished or not self.unsure.is_set():
                        return
        self.unsure.clear()
        with suppress(LedgerUnavailable):
            if not await self._commands.command("EXISTS", keys.job(self._job_id)):
                raise JobNotFound


class RedisRelayReader:
    """Implements `k9_broker.ports.RelayReader`."""

    def __init__(self, redis: Redis, commands: Commands) -> None:
        """`redis`: a client of its own, since a subscription occupies a connection."""
        self._redis = redis
        self._commands = commands
        self._followers: dict[str, set[RedisFollower]] = {}
        self._listener: asyncio.Task[None] | None = None
        self.waiter = secrets.token_hex(6)

    def start(self) -> None:
        self._listener = asyncio.create_task(self._listen(), name="wake")

    async def close(self) -> None:
        if self._listener is not None:
            await ended(self._listener)
        await self._redis.aclose()

    @asynccontextmanager
    async def follow(self, job_id: str) -> AsyncIterator[Follower]:
        follower = RedisFollower(self._commands, job_id)
        self._followers.setdefault(job_id, set()).add(follower)
        try:
            yield follower
        finally:
            others = self._followers[job_id]
            others.discard(follower)
            if not others:
                del self._followers[job_id]

    async def attend(self, job_id: str) -> None:
        """Be woken for a job that was submitted elsewhere. Raises `JobNotFound`."""
        if not await self._commands.script("follow", [keys.job(job_id)], [self.waiter]):
            raise JobNotFound

    async def _listen(self) -> None:
        while True:
            try:
                async with self._redis.pubsub() as channel:
                    await channel.subscribe(keys.wake(self.waiter))
                    self._wake_everybody()
                    while True:
                        message = await channel.get_message(ignore_subscribe_messages=True, timeout=5)
                        if message is not None:
                            self._wake(message["data"].decode())
            except Exception as error:  # whatever broke it: without wake-ups every caller would be late
                logger.warning("the wake-up subscription broke (%s); reconnecting", type(error).__name__)
                await asyncio.sleep(0.2)

    def _wake(self, message: str) -> None:
        what, *job_ids = message.split()
        for job_id in job_ids:
            for follower in self._followers.get(job_id, ()):
                follower.woken.set()
                if what == "end":
                    follower.finished = True
                    follower.unsure.set()

    def _wake_everybody(self) -> None:
        """After a reconnect: what was said meanwhile is lost, so everybody looks again."""
        for followers in self._followers.values():
            for follower in followers:
                follower.woken.set()
                follower.unsure.set()
