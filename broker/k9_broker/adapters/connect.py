"""One way to Redis: connection settings set on purpose, and commands that share round trips."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from hashlib import sha1
from importlib.resources import files
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
)
from redis.exceptions import (
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import (
    TimeoutError as RedisTimeoutError,
)

from k9_broker.errors import LedgerUnavailable

UNAVAILABLE = (RedisConnectionError, RedisTimeoutError, OutOfMemoryError, ReadOnlyError, OSError)
"""What redis-py raises when Redis cannot take a command now."""

_REFUSALS = ("BUSY", "MISCONF", "NOREPLICAS")
"""How else Redis says so: a script blocks it, its disk is full, its replicas are gone."""

_SHARE = 128
"""Commands in one round trip at most, so that a large backlog does not become one large reply."""


_PARTS = re.compile(r"^-- Stands on (.+)\.$", re.MULTILINE)


def script_text(name: str) -> str:
    """A script as Redis gets it: after the prelude and the parts that its header says it stands on."""
    folder = files("k9_broker.adapters") / "scripts"
    text = (folder / f"{name}.lua").read_text("utf-8")
    said = _PARTS.search(text)
    parts = ["prelude", *(said[1].split(", ") if said else ())]
    return "".join((folder / "parts" / f"{part}.lua").read_text("utf-8") for part in parts) + text


def connect(url: str, *, retries: int, connections: int = 32) -> Redis:
    """A client that fails fast: 2 s to connect, 5 s for a reply, `retries` more tries with backoff.

    Retrying is safe because every K-9 script may be repeated; of `pace` a repetition costs a turn or counts
    some tokens twice. Nothing is sent before the first
    command, so Redis need not be up.
    """
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=connections,
        timeout=5,
        socket_connect_timeout=2,
        socket_timeout=5,
        socket_keepalive=True,
        health_check_interval=15,
        retry=Retry(ExponentialWithJitterBackoff(cap=1, base=0.05), retries),
        retry_on_error=[RedisConnectionError, RedisTimeoutError],
    )
    return Redis(connection_pool=pool)


def unavailable(error: BaseException) -> LedgerUnavailable | None:
    """The caller's view of a Redis failure, or `None` when it is another error.

    The message names the kind of failure, never the URL.
    """
    kind: str | None = None
    if isinstance(error, UNAVAILABLE):
        kind = type(error).__name__
    elif isinstance(error, ResponseError):
        kind = next((word for word in _REFUSALS if word in str(error)), None)
    if kind is None:
        return None
    return LedgerUnavailable(f"{LedgerUnavailable.default_message()} ({kind})", retry_after=2)


class Commands:
    """Runs commands and scripts; what is asked for while a round trip is under way shares the next one.

    Alone, a command leaves at once; under load, many leave together, which is what makes a job cheap:
    the unit of cost is the round trip through asyncio, not the command.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._waiting: list[tuple[tuple[Any, ...], asyncio.Future[Any]]] = []
        self._flusher: asyncio.Task[None] | None = None
        self._scripts: dict[str, tuple[str, str]] = {}

    async def command(self, *words: Any) -> Any:
        """One Redis command. Raises `LedgerUnavailable`."""
        reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((words, reply))
        if self._flusher is None:
            self._flusher = asyncio.create_task(self._flush())
        try:
            return await reply
        except (RedisError, OSError) as error:
            if away := unavailable(error):
                raise away from error
            raise

    async def script(self, name: str, keys: list[str], args: list[Any]) -> Any:
        """One of `scripts/*.lua`, by name. Raises `LedgerUnavailable`."""
        digest, source = self._scripts.get(name) or self._load(name)
        try:
            return await self.command("EVALSHA", digest, len(keys), *keys, *args)
        except NoScriptError:
            return await self.command("EVAL", source, len(keys), *keys, *args)

    def _load(self, name: str) -> tuple[str, str]:
        source = script_text(name)
        digest = sha1(source.encode(), usedforsecurity=False).hexdigest()
        self._scripts[name] = digest, source
        return digest, source

    async def _flush(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:_SHARE], self._waiting[_SHARE:]
                try:
                    replies = await self._send([words for words, _ in batch])
                except Exception as error:  # whatever it was, nobody may be left waiting for a reply
                    replies = [error] * len(batch)
                for (_, reply), answer in zip(batch, replies, strict=True):
                    if not reply.done():
                        _settle(reply, answer)
        finally:
            self._flusher = None

    async def _send(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        if len(commands) == 1:
            return [await self._redis.execute_command(*commands[0])]
        pipeline = self._redis.pipeline(transaction=False)
        for words in commands:
            pipeline.execute_command(*words)
        return await pipeline.execute(raise_on_error=False)

    async def close(self) -> None:
        """Let what was asked for finish, then close the connections."""
        if self._flusher is not None:
            await asyncio.wait([self._flusher], timeout=5)
        await self._redis.aclose()


async def ended(task: asyncio.Task[None]) -> None:
    """Cancel a task until it has ended: redis-py, closing a broken connection, may swallow a cancellation."""
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=0.5)


def _settle(reply: asyncio.Future[Any], answer: Any) -> None:
    act: Callable[[Any], None] = (
        reply.set_exception if isinstance(answer, BaseException) else reply.set_result
    )
    act(answer)
