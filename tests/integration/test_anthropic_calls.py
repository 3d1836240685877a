"""Calls to an Anthropic backend over a real socket."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

import pytest

from anthropic_events import begin, end, folded, text, wire
from k9_broker import errors
from tiny_server import Exchange, chat, serving

MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-x",
    "content": [{"type": "text", "text": "Hi."}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 3, "output_tokens": 2},
}
STREAM = wire([begin(), {"type": "ping"}, *text(0, "Hi", " 🌍."), *end()])


async def answer(exchange: Exchange) -> None:
    """What Anthropic answers: a stream where one is asked for, in pieces of a few bytes."""
    if exchange.body.get("stream"):
        await exchange.start_stream()
        for start in range(0, len(STREAM), 7):
            piece = STREAM[start : start + 7]
            await exchange.send(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        await exchange.end_stream()
    else:
        await exchange.reply(MESSAGE)


async def test_a_request_of_openais_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLAUDE_KEY", "sk-ant-api03-x")
    async with serving(answer, "anthropic", api_key_env="CLAUDE_KEY") as (server, caller):
        made = await caller.call(chat(temperature=1.2))
    assert made.body is not None
    assert made.body["choices"][0]["message"]["content"] == "Hi."
    (seen,) = server.seen
    assert seen.line == "POST /v1/messages HTTP/1.1"
    assert seen.headers["x-api-key"] == "sk-ant-api03-x"
    assert seen.headers["anthropic-version"] == "2023-06-01"
    assert "authorization" not in seen.headers
    assert (seen.body["max_tokens"], seen.body["temperature"]) == (4096, 1)
    assert "stream" not in seen.body


async def test_a_stream_and_a_long_whole_answer_are_the_same_answer() -> None:
    async with serving(answer, "anthropic") as (server, caller):
        async with aclosing(caller.stream(chat(max_tokens=50))) as stream:
            chunks = [dict(chunk) async for chunk in stream]
        made = await caller.call(chat(max_tokens=50_000))
    assert made.body is not None
    streamed = folded(chunks)
    assert streamed["message"]["content"] == made.body["choices"][0]["message"]["content"] == "Hi 🌍."
    assert streamed["usage"] == made.usage.openai()
    assert [exchange.body["stream"] for exchange in server.seen] == [True, True]
    assert server.connections == 1


async def test_a_model_that_refuses_effort_is_asked_once() -> None:
    words = "adaptive thinking is not supported on this model"
    refusal = {"type": "error", "error": {"type": "invalid_request_error", "message": words}}

    async def old(exchange: Exchange) -> None:
        if exchange.body["thinking"]["type"] == "adaptive":
            await exchange.reply(refusal, 400)
        else:
            await exchange.reply(MESSAGE)

    async with serving(old, "anthropic") as (server, caller):
        for _ in range(2):
            await caller.call(chat(reasoning_effort="low"))
    thinking: list[Any] = [exchange.body["thinking"]["type"] for exchange in server.seen]
    assert thinking == ["adaptive", "enabled", "enabled"]


async def test_overload_inside_a_long_whole_answer() -> None:
    overloaded = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}

    async def busy(exchange: Exchange) -> None:
        await exchange.reply(wire([begin(), overloaded]), content_type="text/event-stream")

    async with serving(busy, "anthropic") as (_, caller):
        with pytest.raises(errors.BackendOverloaded):
            await caller.call(chat(max_tokens=50_000))
