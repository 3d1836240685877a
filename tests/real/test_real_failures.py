"""Connections that die, servers that die, keys that are wrong."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable, Iterator
from contextlib import aclosing
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI

from k9_broker import errors
from k9_broker.ports import Caller
from k9_broker.requests import InferenceRequest, Operation
from real.asking import answer_of
from real.llama import LlamaServer
from stand import wait_until

HELLO: list[Any] = [{"role": "user", "content": "hello"}]
STREAMS = 1000
TOKENS = 4


def chat(model: str, **more: Any) -> InferenceRequest:
    return InferenceRequest(Operation.CHAT, model, {"messages": HELLO, "max_tokens": TOKENS, **more})


# -- connections -----------------------------------------------------------------------------------


@pytest.mark.timeout(300)
async def test_a_thousand_streams_on_connections_the_server_closes_at_will(
    quick: LlamaServer, caller_of: Callable[..., Caller]
) -> None:
    """It closes a kept-alive connection after some requests, just when the next one is on its way."""
    caller = caller_of(quick)
    tokens, started = quick.metric("tokens_predicted_total"), quick.started
    left = iter(range(STREAMS))
    answers: list[str] = []

    async def reader() -> None:
        for _ in left:
            async with aclosing(caller.stream(chat("quick"))) as chunks:
                answers.append("".join([said(chunk) async for chunk in chunks]))

    await asyncio.gather(*[reader() for _ in range(8)])
    assert [len(answer) for answer in answers] == [TOKENS] * STREAMS
    quick.has_started(started + STREAMS)
    assert quick.metric("tokens_predicted_total") == tokens + STREAMS * TOKENS


def said(chunk: Any) -> str:
    return "".join(choice["delta"].get("content") or "" for choice in chunk["choices"])


# -- keys ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("key", [None, "wrong-key-7"], ids=["none", "wrong"])
async def test_a_refused_key_is_the_workers_trouble(
    locked: LlamaServer,
    caller_of: Callable[..., Caller],
    key: str | None,
    stream: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if key:
        monkeypatch.setenv("LOCKED_KEY", key)
    caller = caller_of(locked, api_key_env="LOCKED_KEY" if key else None)
    with pytest.raises(errors.BackendCredentials) as refused:
        await answer_of(caller, chat("locked"), stream)
    assert (refused.value.code, refused.value.retryable) == ("backend_credentials", False)
    assert "wrong-key" not in refused.value.message


async def test_the_right_key_opens(
    locked: LlamaServer, caller_of: Callable[..., Caller], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCKED_KEY", "right")
    caller = caller_of(locked, api_key_env="LOCKED_KEY")
    assert (await caller.call(chat("locked"))).usage.completion == TOKENS
    assert "locked" in await caller.models()


# -- servers ---------------------------------------------------------------------------------------


COMES_BACK = 45.0
"""Seconds. A server that was down again and again is left alone for up to half a minute."""


@pytest.fixture
def doomed(fragile: LlamaServer, sdk: OpenAI) -> Iterator[LlamaServer]:
    """A server to kill. It is up before and after, and K-9 has found that out."""
    wait_until(lambda: answers(sdk), "K-9 answers from it", COMES_BACK)
    yield fragile
    if not fragile.alive:
        fragile.start()


def answers(sdk: OpenAI) -> bool:
    try:
        sdk.chat.completions.create(model="fragile", messages=HELLO, max_tokens=TOKENS)
    except openai.InternalServerError:
        return False
    return True


def test_a_server_killed_amid_streams_ends_them_with_an_error(
    http: httpx.Client, sdk: OpenAI, doomed: LlamaServer
) -> None:
    body: dict[str, Any] = {"model": "fragile", "messages": HELLO, "max_tokens": 4000, "stream": True}
    seen = sdk.chat.completions.create(**body)
    assert next(seen).choices
    with http.stream("POST", "/v1/chat/completions", json=body) as reply:
        assert reply.status_code == 200
        lines = (line.removeprefix("data: ") for line in reply.iter_lines() if line.startswith("data: "))
        frames = [json.loads(next(lines)) for _ in range(5)]
        doomed.stop(signal.SIGKILL)
        frames += [json.loads(line) for line in lines if line != "[DONE]"]
    assert not [one for one in frames[:-1] if "error" in one or one["choices"][0]["finish_reason"]]
    error = frames[-1]["error"]
    assert set(error) >= {"message", "type", "param", "code"}
    assert error["code"] == "stream_truncated"
    with pytest.raises(openai.APIError) as broken:
        list(seen)
    assert broken.value.code == "stream_truncated"


@pytest.mark.timeout(180)
def test_a_server_that_is_down_is_said_to_be_and_comes_back(sdk: OpenAI, doomed: LlamaServer) -> None:
    doomed.stop(signal.SIGKILL)
    for stream in (False, True):
        with pytest.raises(openai.InternalServerError) as refused:
            sdk.chat.completions.create(model="fragile", messages=HELLO, stream=stream)
        assert refused.value.status_code in (502, 503)
        assert refused.value.code in ("backend_unreachable", "backend_unavailable", "circuit_open")
    doomed.start()
    wait_until(lambda: answers(sdk), "K-9 answers from it again", COMES_BACK)
