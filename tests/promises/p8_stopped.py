"""P8: a job that is cancelled, or whose caller went away, never runs, or stops within a second."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from k9_api import walk
from k9_api.presence import Presence
from k9_broker.adapters import keys
from k9_broker.jobs import JobState
from k9_workers.execute import execute
from k9_workers.runtime import Held, Runtime
from promises.mechanisms import lua, never, saying, swap
from promises.stage import Mechanism, Promise, Stage, until
from walks import admit, announced, chat

SOON = 1.0
"""Seconds."""
SLOW: dict[str, Any] = {"latency_ms": 60_000}
ENDLESS: dict[str, Any] = {"tokens_per_second": 50, "answer_tokens": 10_000}


async def one_that_waits_never_runs(stage: Stage) -> None:
    """Its message is still in the queue, and a worker reads it."""
    runtime = await stage.runtime(start=False)
    job = await admit(stage.ledger)
    await stage.ledger.cancel(job.id)
    for one in stage.messages():
        with suppress(KeyError):  # its prompt is gone too, so a worker that claims it breaks
            await execute(runtime, *one)
    assert (await stage.ledger.get(job.id)).state is JobState.CANCELLED, "a cancelled job is run"
    assert stage.fake.stats()["inferences"] == 0, "a cancelled job is run"


async def one_that_runs_stops(stage: Stage) -> None:
    """Nothing is renewed and nothing is relayed meanwhile: it is told."""
    await cancelled_while_it_runs(stage, SLOW, stream=False)


async def one_that_streams_stops_unheard(stage: Stage) -> None:
    """Nobody tells the worker: it learns when it relays."""
    _deaf(stage)
    await cancelled_while_it_runs(stage, ENDLESS, stream=True)


async def one_that_is_renewed_stops_unheard(stage: Stage) -> None:
    """Nobody tells the worker, and it has nothing to relay: it learns when it renews."""
    _deaf(stage)
    stage.jobs = stage.jobs.model_copy(update={"lease_seconds": 1.2})
    await cancelled_while_it_runs(stage, SLOW, stream=False)


def _deaf(stage: Stage) -> None:
    listen = Runtime._listen
    Runtime._listen = never  # type: ignore[method-assign]
    stage.exits.callback(setattr, Runtime, "_listen", listen)


async def cancelled_while_it_runs(stage: Stage, behaviour: dict[str, Any], *, stream: bool) -> None:
    stage.fake.behave(**behaviour)
    runtime = await stage.runtime()
    job = await admit(stage.ledger, chat(stream=stream))
    running = asyncio.create_task(execute(runtime, job.id, 1))
    try:
        await until(lambda: stage.fake.stats()["active"] == 1, "the backend works")
        if stream:
            await until(lambda: stage.client.hget(keys.job(job.id), "relayed") != b"0", "it streams")
        await stage.ledger.cancel(job.id)
        await until(lambda: stage.fake.stats()["disconnects"] == 1, "the backend still works", SOON)
        assert (await running)["taken"]
        assert (await stage.ledger.get(job.id)).state is JobState.CANCELLED
    finally:
        running.cancel()
        await asyncio.wait([running])


async def one_whose_caller_hangs_up_stops(stage: Stage) -> None:
    await caller_hangs_up(stage, stream=False)


async def a_stream_whose_caller_hangs_up_stops(stage: Stage) -> None:
    await caller_hangs_up(stage, stream=True)


async def caller_hangs_up(stage: Stage, *, stream: bool) -> None:
    stage.fake.behave(**SLOW)
    await stage.fleet.announce(announced("a"))
    stage.works(await stage.runtime())
    hang_up = await call(await stage.api(), stream=stream)
    await until(lambda: stage.fake.stats()["active"] == 1, "the backend works")
    (name,) = stage.client.scan_iter(keys.job("*"))
    hang_up()
    went = time.monotonic()
    stopped: Callable[[], bool] = lambda: stage.fake.stats()["disconnects"] == 1  # noqa: E731
    await until(stopped, "the backend works for nobody", SOON)
    assert time.monotonic() - went < SOON + 0.5
    assert stage.client.hget(name, "state") == b"cancelled"


async def one_whose_caller_hangs_up_in_the_queue_never_runs(stage: Stage) -> None:
    await stage.fleet.announce(announced("a"))
    hang_up = await call(await stage.api(), stream=False)
    (name,) = await until(lambda: list(stage.client.scan_iter(keys.job("*"))), "it is queued")
    hang_up()
    cancelled: Callable[[], bool] = lambda: stage.client.hget(name, "state") == b"cancelled"  # noqa: E731
    await until(cancelled, "a job waits for nobody", SOON)


async def call(url: str, *, stream: bool) -> Callable[[], None]:
    """Ask for a chat on a bare connection; gives how to hang up."""
    body = json.dumps({**chat(stream=stream).body}).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nhost: k9\r\ncontent-type: application/json\r\n"
    _, writer = await asyncio.open_connection("127.0.0.1", urlsplit(url).port)
    writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
    await writer.drain()
    return writer.close


def _only_notes(self: Runtime, held: Held) -> None:
    held.taken = True


P8 = Promise(
    "p8_cancelled_means_stopped",
    {
        "a claim wants a job that waits": Mechanism(
            one_that_waits_never_runs,
            lua("claim", "if h[1] ~= 'queued' or h[2] ~= ARGV[2] then", "if h[2] ~= ARGV[2] then"),
            "a cancelled job is run",
        ),
        "workers listen for cancels": Mechanism(
            one_that_runs_stops, swap(Runtime, "_listen", never), "the backend still works"
        ),
        "cancels are told": Mechanism(
            one_that_runs_stops,
            lua("stop", "if h[1] == 'running' then redis.call('PUBLISH', 'k9:cancel', id) end"),
            "the backend still works",
        ),
        "a job that is taken ends its call": Mechanism(
            one_that_runs_stops, swap(Runtime, "_take", _only_notes), "the backend still works"
        ),
        "a relay says whose claim is over": Mechanism(
            one_that_streams_stops_unheard,
            lua("relay", "lost[#lost + 1] = token"),
            "the backend still works",
        ),
        "a renewal says whose claim is over": Mechanism(
            one_that_is_renewed_stops_unheard,
            lua("renew", "lost[#lost + 1] = id"),
            "the backend still works",
        ),
        "claims are renewed": Mechanism(
            one_that_is_renewed_stops_unheard, swap(Runtime, "_renew", never), "the backend still works"
        ),
        "the API sees its caller go": Mechanism(
            one_whose_caller_hangs_up_stops, swap(Presence, "_listen", never), "the backend works for nobody"
        ),
        "the API sees the caller of a stream go": Mechanism(
            a_stream_whose_caller_hangs_up_stops,
            swap(Presence, "_listen", never),
            "the backend works for nobody",
        ),
        "the API cancels what nobody waits for": Mechanism(
            one_whose_caller_hangs_up_in_the_queue_never_runs,
            swap(walk, "_abandon", saying(None)),
            "a job waits for nobody",
        ),
    },
)
