"""The HTTP caller against real sockets that answer, stall, lie and die."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from typing import Any

import pytest

from k9_broker import errors
from k9_broker.backends import Backend
from k9_broker.dialects.registry import dialect_named
from k9_workers.transport import HttpCaller
from tiny_server import Exchange, chat, collect, serving

ANSWER = {
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}]
}


async def answer(exchange: Exchange) -> None:
    await exchange.reply(ANSWER)


# -- connections ----------------------------------------------------------------------------------


async def test_one_connection_serves_many_calls() -> None:
    async with serving(answer) as (server, caller):
        for _ in range(5):
            result = await caller.call(chat())
            assert result.body is not None
        assert server.connections == 1
        sent = server.seen[0]
        assert sent.line == "POST /v1/chat/completions HTTP/1.1"
        assert sent.headers["content-type"] == "application/json"
        assert "authorization" not in sent.headers


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_reused_connection_that_dies_unanswered_is_replaced_once(how: str) -> None:
    async def script(exchange: Exchange) -> None:
        if exchange.number > 1:  # the server had just given up on the idle connection
            exchange.writer.close() if how == "close" else exchange.die()
            return
        await exchange.reply(ANSWER)

    async with serving(script) as (server, caller):
        for _ in range(6):
            await caller.call(chat())
        assert server.connections > 3
        assert len([e for e in server.seen if e.number == 1]) == 6


async def test_a_server_that_closes_idle_connections_costs_neither_a_failure_nor_a_repeat() -> None:
    timers: dict[int, asyncio.TimerHandle] = {}
    answered = 0

    async def script(exchange: Exchange) -> None:
        nonlocal answered
        if timer := timers.pop(exchange.connection, None):
            timer.cancel()
        if exchange.writer.is_closing():  # it had given up on the connection in the same moment
            return
        answered += 1
        await exchange.reply(ANSWER)
        loop = asyncio.get_running_loop()
        timers[exchange.connection] = loop.call_later(0.008, exchange.writer.close)

    async with serving(script) as (server, caller):
        for number in range(100):
            await caller.call(chat())
            await asyncio.sleep(number % 17 / 1000)  # around the server's patience
        assert answered == 100
        assert server.connections > 2


async def test_it_is_not_replaced_twice() -> None:
    alive = True

    async def script(exchange: Exchange) -> None:
        await exchange.reply(ANSWER) if alive else exchange.die()

    async with serving(script) as (server, caller):
        await caller.call(chat())
        alive = False
        with pytest.raises(errors.BackendUnreachable, match="closed the connection"):
            await caller.call(chat())
        assert [(e.connection, e.number) for e in server.seen] == [(1, 1), (1, 2), (2, 1)]


async def test_a_fresh_connection_that_dies_is_not_retried() -> None:
    async def script(exchange: Exchange) -> None:
        exchange.die()

    async with serving(script) as (server, caller):
        with pytest.raises(errors.BackendUnreachable):
            await caller.call(chat())
        assert len(server.seen) == 1


@pytest.mark.parametrize(
    "sent", [b"HTTP/1.1 200 OK\r\ncontent-le", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{"]
)
async def test_nothing_is_repeated_once_a_byte_has_come(sent: bytes) -> None:
    async def script(exchange: Exchange) -> None:
        if exchange.number == 1:
            await exchange.reply(ANSWER)
            return
        await exchange.send(sent)
        exchange.writer.close()

    async with serving(script) as (server, caller):
        await caller.call(chat())
        with pytest.raises(errors.BackendError):
            await caller.call(chat())
        assert len(server.seen) == 2


async def test_connection_refused() -> None:
    async with serving(answer) as (_, caller):
        pass
    backend = Backend(name="gone", dialect="openai", url=caller._connections._url)
    caller = HttpCaller(backend, backend.servers[0], dialect_named("openai"))
    try:
        with pytest.raises(errors.BackendUnreachable, match="'gone' could not be reached"):
            await caller.call(chat())
    finally:
        await caller.close()


@pytest.mark.parametrize("url", ["nonsense", "http://", "http://127.0.0.1:99999"])
async def test_a_url_that_is_none(url: str) -> None:
    backend = Backend(name="b", dialect="openai", url=url)
    caller = HttpCaller(backend, backend.servers[0], dialect_named("openai"))
    try:
        with pytest.raises(errors.BackendError):
            await caller.call(chat())
    finally:
        await caller.close()


async def test_read_timeout_is_time_without_a_byte() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.start_stream()
        for _ in range(6):  # longer in all than the timeout
            await exchange.event({"choices": [{"index": 0, "delta": {"content": "a"}}]})
            await asyncio.sleep(0.15)
        await asyncio.Event().wait()

    async with serving(script, read_timeout=0.5) as (_, caller):
        chunks: list[Any] = []
        with pytest.raises(errors.BackendTimeout, match=r"nothing for 0\.5 seconds"):
            await collect(caller.stream(chat()), chunks)
        assert len(chunks) == 6


async def test_a_silent_server_times_out() -> None:
    async def script(exchange: Exchange) -> None:
        await asyncio.Event().wait()

    async with serving(script, read_timeout=0.2) as (server, caller):
        with pytest.raises(errors.BackendTimeout):
            await caller.call(chat())
        assert len(server.seen) == 1


@pytest.mark.parametrize("phase", ["before headers", "within the body", "streaming"])
async def test_cancel_closes_the_connection_at_once(phase: str) -> None:
    begun = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        if phase == "within the body":
            await exchange.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{")
        if phase == "streaming":
            await exchange.start_stream()
            await exchange.event({"choices": [{"index": 0, "delta": {"content": "a"}}]})
        begun.set()
        await asyncio.Event().wait()

    async with serving(script) as (server, caller):

        async def run() -> None:
            if phase != "streaming":
                await caller.call(chat())
            async for _ in caller.stream(chat()):
                pass

        task = asyncio.create_task(run())
        await asyncio.wait_for(begun.wait(), 5)
        start = time.monotonic()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.wait_for(server.gone.wait(), 1)
        assert time.monotonic() - start < 1
        assert task.cancelled()


async def test_leaving_a_stream_closes_the_connection() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.start_stream()
        while True:
            await exchange.event({"choices": [{"index": 0, "delta": {"content": "a"}}]})
            await asyncio.sleep(0.01)

    async with serving(script) as (server, caller):
        async with aclosing(caller.stream(chat())) as chunks:  # type: ignore[type-var]
            async for _ in chunks:
                break
        await asyncio.wait_for(server.gone.wait(), 1)
        assert not server.seen[1:]


# -- answers --------------------------------------------------------------------------------------


async def test_errors_carry_the_wait_and_not_the_prompt() -> None:
    async def script(exchange: Exchange) -> None:
        said = exchange.body["messages"][0]["content"]
        await exchange.reply({"error": {"message": f"no {said!r}"}}, 429, retry_after="7")

    async with serving(script) as (server, caller):
        for asked in (caller.call(chat()), collect(caller.stream(chat()), [])):
            with pytest.raises(errors.BackendRateLimited) as caught:
                await asked
            assert caught.value.retry_after == 7
            assert "a secret" not in caught.value.message
        assert len(server.seen) == 2  # and nothing is retried


async def test_redirects_are_not_followed() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.reply(b"", 307, location="http://127.0.0.1:1/elsewhere")

    async with serving(script) as (server, caller):
        with pytest.raises(errors.BackendError, match="307"):
            await caller.call(chat())
        assert len(server.seen) == 1


async def test_the_key_goes_out_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(answer) as (_, unused):
        backend = unused._connections._backend.model_copy(update={"api_key_env": "K9_TEST_KEY"})
        with pytest.raises(errors.ConfigurationError, match="K9_TEST_KEY"):
            HttpCaller(backend, backend.servers[0], unused._dialect)
    monkeypatch.setenv("K9_TEST_KEY", "sk-hidden")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    async with serving(answer, api_key_env="K9_TEST_KEY") as (server, caller):
        await caller.call(chat())
        assert server.seen[0].headers["authorization"] == "Bearer sk-hidden"
        assert "sk-hidden" not in repr(caller) + repr(vars(caller)) + repr(
            caller._connections._client.headers
        )


@pytest.mark.parametrize(
    ("dialect", "body", "line"),
    [
        ("openai-compatible", {"data": [{"id": "a"}]}, "GET /v1/models HTTP/1.1"),
        ("ollama", {"models": [{"name": "a:latest"}]}, "GET /api/tags HTTP/1.1"),
    ],
)
async def test_models(dialect: str, body: Any, line: str) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.reply(body)

    async with serving(script, dialect) as (server, caller):
        assert "a" in await caller.listed()
        assert server.seen[0].line == line
    async with serving(lambda exchange: exchange.reply(b"", 401)) as (_, caller):
        with pytest.raises(errors.BackendCredentials):
            await caller.listed()
