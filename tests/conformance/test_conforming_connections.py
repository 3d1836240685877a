"""Every dialect over connections that are slow, silent, reset or left: what is alive is waited for, what is
dead says so, and nothing is asked twice but what was never begun."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from random import Random
from typing import Any

import pytest

from conformance.cases import ASKS, Answer, answer_of, answer_of_chunks
from conformance.dialects import (
    TABLES,
    before_the_end,
    exchange,
    serving,
    stream,
    stream_path,
    streamed,
    taken,
    whole,
)
from k9_broker.errors import BackendTimeout, BackendUnreachable, StreamTruncated
from k9_broker.health import CircuitState
from k9_workers.instances import Instances
from replaying import Replaying, Reply, cut

SILENT = 0.25
"""Seconds of silence after which a server counts as dead here."""
SOON = 1.0
"""Seconds within which a server must see that its client is gone."""
ASK = ASKS["text"]
HOW = ("whole", "streamed")


def route(dialect: str, how: str) -> str:
    found = exchange(dialect, "text")
    return found.path if how == "whole" else stream_path(found)


def reply(dialect: str, how: str, **more: Any) -> Reply:
    found = exchange(dialect, "text")
    if how == "whole":
        return Reply(found.whole, headers=found.headers, **more)
    return stream(found, **more)


async def answered(caller: Instances, how: str) -> Answer:
    if how == "whole":
        return answer_of(await caller.call(ASK))
    return answer_of_chunks(await taken(caller, ASK))


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


async def within(seconds: float, awaited: Awaitable[object]) -> None:
    async with asyncio.timeout(seconds):
        await awaited


def state(caller: Instances) -> CircuitState:
    (health,) = caller.health()
    return health.state


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("dialect", TABLES)
async def test_a_slow_first_byte_is_alive(dialect: str, how: str) -> None:
    """A cold model sends nothing while it is loaded, not even a head."""
    late = asyncio.Event()
    async with serving(dialect, {route(dialect, how): reply(dialect, how, late=late)}) as (played, caller):
        asking = asyncio.ensure_future(answered(caller, how))
        await until(lambda: played.seen)
        (health,) = caller.health()
        assert (health.state, health.in_flight) == (CircuitState.CLOSED, 1)
        assert not asking.done()
        late.set()
        assert await asking == exchange(dialect, "text").answer
        assert len(played.seen) == 1


async def test_comments_keep_a_silent_stream_alive() -> None:
    """The time is that between bytes, not that of an answer."""

    async def one(dialect: str) -> None:
        found = exchange(dialect, "text")
        beat = b": alive\n\n" if TABLES[dialect].comments else b"\n"
        pieces = (*found.stream[:1], *[beat] * 8, *found.stream[1:])
        routes = {stream_path(found): Reply(pieces=pieces, gaps=SILENT / 4)}
        async with serving(dialect, routes, read_timeout=2 * SILENT) as (_, caller):
            began = asyncio.get_running_loop().time()
            assert await answered(caller, "streamed") == found.answer
            assert asyncio.get_running_loop().time() - began > 2 * SILENT

    await asyncio.gather(*map(one, TABLES))


@pytest.mark.parametrize("how", HOW)
async def test_silence_before_the_first_byte(how: str) -> None:
    async def one(dialect: str) -> None:
        never = reply(dialect, how, late=asyncio.Event())
        async with serving(dialect, {route(dialect, how): never}, read_timeout=SILENT) as (played, caller):
            with pytest.raises(BackendTimeout) as caught:
                await answered(caller, how)
            assert (caught.value.status, caught.value.retryable) == (504, True)
            await within(SOON, played.server.gone.wait())
            assert len(played.seen) == 1

    await asyncio.gather(*map(one, TABLES))


async def test_silence_amid_an_answer() -> None:
    """Also after all of the text, as long as nothing says that it was all."""

    async def one(dialect: str) -> None:
        found = exchange(dialect, "text")
        raw, last = b"".join(found.stream), before_the_end(found)
        for place in (last // 2, last):
            hanging = Reply(pieces=[raw[:place]], ending="silence")
            routes = {stream_path(found): hanging}
            async with serving(dialect, routes, read_timeout=SILENT) as (played, caller):
                with pytest.raises(BackendTimeout):
                    await answered(caller, "streamed")
                await within(SOON, played.server.gone.wait())
                assert len(played.seen) == 1

    await asyncio.gather(*map(one, TABLES))


async def test_silence_after_the_end_costs_nothing() -> None:
    """A server that has said it is done is not waited for; one that never says so does not fail either."""

    async def one(dialect: str) -> None:
        found = exchange(dialect, "text")
        marks = b"[DONE]", b"message_stop", b'"done":true'
        told = any(mark in found.stream[-1] for mark in marks)
        patience = {} if told else {"read_timeout": SILENT}
        routes = {stream_path(found): stream(found, ending="silence")}
        async with serving(dialect, routes, **patience) as (_, caller), asyncio.timeout(20):
            chunks = []
            async with aclosing(caller.stream(streamed(ASK))) as coming:
                async for chunk in coming:
                    chunks.append(chunk)
                    if "usage" in chunk:
                        break
            assert answer_of_chunks(chunks) == found.answer

    await asyncio.gather(*map(one, TABLES))


@pytest.mark.parametrize("dialect", TABLES)
async def test_a_reset_amid_a_stream(dialect: str) -> None:
    found = exchange(dialect, "text")
    raw, last = b"".join(found.stream), before_the_end(found)
    reset = Reply(pieces=[raw[: last // 2], raw[last // 2 : last]], ending="reset")
    async with serving(dialect, {stream_path(found): reset}) as (played, caller):
        with pytest.raises(StreamTruncated) as caught:
            await answered(caller, "streamed")
        assert (caught.value.status, caught.value.retryable) == (502, True)
        assert len(played.seen) == 1


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("dialect", TABLES)
async def test_a_reset_on_reuse_is_asked_once_more(dialect: str, how: str) -> None:
    """The server had closed an idle connection: exactly one more request, on a new one, and an answer."""
    expected = exchange(dialect, "text").answer
    async with serving(dialect, {route(dialect, how): reply(dialect, how)}) as (played, caller):
        played.dies_on_reuse = True
        assert await answered(caller, how) == expected
        assert await answered(caller, how) == expected
        assert [one.connection for one in played.seen] == [1, 1, 2]
        assert state(caller) is CircuitState.CLOSED


@pytest.mark.parametrize("dialect", TABLES)
async def test_a_reset_of_a_new_connection_is_not(dialect: str) -> None:
    """Nobody knows whether that request was begun."""
    found = exchange(dialect, "text")
    async with serving(dialect, {found.path: whole(found)}) as (played, caller):
        played.dies = True
        with pytest.raises(BackendUnreachable):
            await answered(caller, "whole")
        assert len(played.seen) == 1


@pytest.mark.parametrize("dialect", TABLES)
async def test_a_reset_on_reuse_after_the_first_byte_is_not(dialect: str) -> None:
    """The server had begun to answer: asking again would have it work twice."""
    found = exchange(dialect, "text")
    begun = Reply(pieces=cut(b"".join(found.stream[:2]), Random(dialect)), ending="reset")
    async with serving(dialect, {stream_path(found): [stream(found), begun]}) as (played, caller):
        assert await answered(caller, "streamed") == found.answer
        with pytest.raises(StreamTruncated):
            await answered(caller, "streamed")
        assert [one.connection for one in played.seen] == [1, 1]


@pytest.mark.parametrize("dialect", TABLES)
async def test_a_client_that_leaves_a_stream(dialect: str) -> None:
    found = exchange(dialect, "text")
    endless = Reply(pieces=[*found.stream[:3]], ending="silence")
    async with serving(dialect, {stream_path(found): endless}) as (played, caller):
        chunks = caller.stream(streamed(ASK))
        await anext(chunks)
        await chunks.aclose()
        await within(SOON, played.server.gone.wait())
        await _left_no_trace(played, caller)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("dialect", TABLES)
async def test_a_client_that_leaves_before_the_first_byte(dialect: str, how: str) -> None:
    never = reply(dialect, how, late=asyncio.Event())
    async with serving(dialect, {route(dialect, how): never}) as (played, caller):
        asking = asyncio.ensure_future(answered(caller, how))
        await until(lambda: played.seen)
        asking.cancel()
        await within(SOON, played.server.gone.wait())
        await asyncio.gather(asking, return_exceptions=True)
        assert asking.cancelled()
        await _left_no_trace(played, caller)


async def _left_no_trace(played: Replaying, caller: Instances) -> None:
    """A client that leaves says nothing of the server, and its place is free again."""
    (health,) = caller.health()
    assert (health.state, health.in_flight) == (CircuitState.CLOSED, 0)
    assert len(played.seen) == 1
