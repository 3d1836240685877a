"""Streams over real sockets: whole, cut short, and held open after their end."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from k9_broker import errors
from tiny_server import Exchange, chat, collect, serving

PIECE = {"choices": [{"index": 0, "delta": {"content": "a"}}]}
LAST = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}


async def test_a_stream_and_its_connection_kept() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.start_stream()
        for data in (PIECE, LAST, b"[DONE]"):
            await exchange.event(data)
        await asyncio.sleep(0.05)  # so that the end of the response comes after the end of the answer
        await exchange.end_stream()

    async with serving(script) as (server, caller):
        for _ in range(3):
            chunks = [chunk async for chunk in caller.stream(chat())]
            assert [len(chunk["choices"]) for chunk in chunks] == [1, 1, 0]
        assert server.connections == 1
        assert server.seen[0].body["stream"] is True


async def test_a_server_that_holds_on_after_the_end_delays_no_chunk() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.start_stream()
        for data in (PIECE, LAST, b"[DONE]"):
            await exchange.event(data)
        await asyncio.Event().wait()

    async with serving(script) as (_, caller):
        start, times = time.monotonic(), []
        async for _ in caller.stream(chat()):
            times.append(time.monotonic() - start)
        assert times[-1] < 0.5
        assert time.monotonic() - start < 3


@pytest.mark.parametrize("how", ["close", "reset", "clean"])
@pytest.mark.parametrize(("events", "complete"), [([PIECE], False), ([PIECE, LAST], True)])
async def test_a_stream_that_ends_early(how: str, events: list[Any], complete: bool) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.start_stream()
        for data in events:
            await exchange.event(data)
        if how == "clean":
            await exchange.end_stream()
        elif how == "close":
            exchange.writer.close()
        else:
            exchange.die()

    async with serving(script) as (_, caller):
        chunks: list[Any] = []
        truncated = False
        try:
            await collect(caller.stream(chat()), chunks)
        except errors.StreamTruncated:
            truncated = True
        assert truncated is not complete or how == "reset"  # a reset may take the last bytes with it
        assert truncated or chunks[-1]["choices"] == []
