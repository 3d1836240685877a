"""Callers built from configuration, on the fake backend's real port, in both of its wire formats."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from k9_broker import errors
from k9_broker.backends import Backend
from k9_broker.ports import Caller
from k9_broker.requests import InferenceRequest, Operation
from k9_broker.testing import FakeServer
from k9_workers.callers import build_caller

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeServer]:
    with FakeServer() as server:
        yield server


@pytest.fixture(params=["fake", "ollama"])
async def caller(request: pytest.FixtureRequest, fake: FakeServer, tmp_path: Path) -> AsyncIterator[Caller]:
    fake.reset()
    backend = Backend(name="b", dialect=request.param, url=fake.url, max_inputs=3)
    made = build_caller(backend, tmp_path)
    yield made
    await made.close()


def chat(said: str = "hello there", **more: Any) -> InferenceRequest:
    body = {"messages": [{"role": "user", "content": said}], **more}
    return InferenceRequest(Operation.CHAT, "fake-chat", body)


async def test_a_stream_says_what_the_whole_answer_says(caller: Caller) -> None:
    result = await caller.call(chat())
    assert result.body is not None
    chunks = [chunk async for chunk in caller.stream(chat())]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks[:-1]]
    text = "".join(delta.get("content") or "" for delta in deltas)
    assert text == result.body["choices"][0]["message"]["content"] != ""
    assert chunks[-1]["usage"] == result.usage.openai()
    assert result.usage.prompt > 0


async def test_tools(caller: Caller) -> None:
    asked = chat("please use the tool f", tools=[TOOL])
    result = await caller.call(asked)
    assert result.body is not None
    choice = result.body["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["tool_calls"][0]["function"]["name"] == "f"
    assert isinstance(json.loads(choice["message"]["tool_calls"][0]["function"]["arguments"]), dict)
    reasons = [
        chunk["choices"][0]["finish_reason"] async for chunk in caller.stream(asked) if chunk["choices"]
    ]
    assert [reason for reason in reasons if reason] == ["tool_calls"]


async def test_completions(caller: Caller) -> None:
    request = InferenceRequest(Operation.COMPLETIONS, "fake-chat", {"prompt": "hello"})
    result = await caller.call(request)
    assert result.body is not None
    chunks = [chunk async for chunk in caller.stream(request)]
    text = "".join(chunk["choices"][0]["text"] for chunk in chunks[:-1])
    assert text == result.body["choices"][0]["text"] != ""


async def test_embeddings_in_parts_equal_those_one_by_one(caller: Caller) -> None:
    texts = [f"text {number}" for number in range(8)]
    model = "fake-embed"
    whole = (await caller.call(InferenceRequest(Operation.EMBEDDINGS, model, {"input": texts}))).vectors
    assert whole is not None
    assert whole.count == 8
    for index, text in enumerate(texts):
        one = (await caller.call(InferenceRequest(Operation.EMBEDDINGS, model, {"input": text}))).vectors
        assert one is not None
        assert one.row(0) == whole.row(index)


async def test_models_and_unknown_models(caller: Caller) -> None:
    assert "fake-chat" in await caller.models()
    with pytest.raises(errors.ModelNotFound):
        await caller.call(InferenceRequest(Operation.CHAT, "nope", chat().body))


def test_an_unknown_dialect_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(errors.ConfigurationError, match="openai-compatible"):
        build_caller(Backend(name="b", dialect="telepathy", url="http://127.0.0.1:1"), tmp_path)
