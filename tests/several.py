"""Backends of several instances for tests: fakes in processes of their own, and callers that repeat."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any

from k9_broker.backends import Backend, Instance
from k9_broker.dialects.registry import dialect_named
from k9_broker.errors import K9Error
from k9_broker.health import CircuitState
from k9_broker.limits import RateLimits
from k9_broker.requests import InferenceRequest, Operation
from k9_broker.testing import FakeServer
from k9_workers.instances import Instances


@asynccontextmanager
async def calling(
    *fakes: FakeServer,
    slots: int = 4,
    heard: Callable[[RateLimits], None] | None = None,
    watched: bool = True,
    **settings: Any,
) -> AsyncIterator[Instances]:
    """The caller of one backend with the fakes as its instances, looked after ten times a second."""
    settings = {"dialect": "fake", "probe_seconds": 0.1 if watched else 0, **settings}
    servers = tuple(Instance(url=fake.url, slots=slots) for fake in fakes)
    backend = Backend(name="b", instances=servers, **settings)
    caller = Instances(backend, dialect_named(backend.dialect), heard)
    watching = asyncio.create_task(caller.watch())
    try:
        yield caller
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
        await caller.close()


def chat(**body: Any) -> InferenceRequest:
    body = {"model": "fake-chat", "messages": [{"role": "user", "content": "hello"}], **body}
    return InferenceRequest(Operation.CHAT, body["model"], body)


def embed(text: str = "hello") -> InferenceRequest:
    return InferenceRequest(Operation.EMBEDDINGS, "fake-embed", {"model": "fake-embed", "input": text})


async def answered(caller: Instances, request: InferenceRequest, attempts: int = 3) -> int:
    """Call until there is a whole answer, at once after each failure; gives how many attempts it took."""
    for attempt in range(1, attempts + 1):
        try:
            if not request.stream:
                await caller.call(request)
                return attempt
            async with aclosing(caller.stream(request)) as stream:
                async for _ in stream:
                    pass
            return attempt
        except K9Error as error:
            if attempt == attempts or not error.retryable:
                raise
    raise AssertionError


def states(caller: Instances) -> list[CircuitState]:
    return [one.state for one in caller.health()]


async def until(condition: Callable[[], object], what: str, seconds: float = 10) -> None:
    """Wait until the condition holds, while everything else goes on."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {seconds} s")
        await asyncio.sleep(0.01)


def kill(fake: FakeServer) -> None:
    os.kill(fake.pid, signal.SIGKILL)
    fake.stop()
