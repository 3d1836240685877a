"""The fake's Ollama side, seen by the official client."""

from __future__ import annotations

from typing import Any

import pytest

from k9_broker.testing import FakeServer

ollama = pytest.importorskip("ollama")

SAID = [{"role": "user", "content": "What is the capital of France?"}]
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@pytest.fixture
def client(fake: FakeServer) -> Any:
    return ollama.Client(host=fake.url)


def test_chat_plain_and_streamed(client: Any) -> None:
    plain = client.chat(model="fake-chat", messages=SAID)
    assert plain.done_reason == "stop"
    assert (plain.prompt_eval_count, plain.eval_count) == (7, 16)
    parts = list(client.chat(model="fake-chat", messages=SAID, stream=True))
    assert "".join(part.message.content for part in parts) == plain.message.content
    assert [part.done for part in parts] == [False] * 16 + [True]
    cut = client.chat(model="fake-chat", messages=SAID, options={"num_predict": 3})
    assert (cut.done_reason, cut.eval_count) == ("length", 3)


def test_tools_have_objects_for_arguments(client: Any) -> None:
    said = [{"role": "user", "content": "use the tool get_weather"}]
    message = client.chat(model="fake-chat", messages=said, tools=[TOOL]).message
    call = message.tool_calls[0].function
    assert call.name == "get_weather"
    assert isinstance(call.arguments["city"], str)
    result = {"role": "tool", "content": "18 C", "tool_name": "get_weather"}
    answer = client.chat(model="fake-chat", messages=[*said, message, result], tools=[TOOL])
    assert answer.message.content
    assert not answer.message.tool_calls


def test_thinking(fake: FakeServer, client: Any) -> None:
    with pytest.raises(ollama.ResponseError, match="does not support thinking"):
        client.chat(model="fake-chat", messages=SAID, think=True)
    fake.behave(reasoning_tokens=5)
    plain = client.chat(model="fake-chat", messages=SAID, think=True)
    assert len(plain.message.thinking.split()) == 4
    assert plain.eval_count == 21
    parts = list(client.chat(model="fake-chat", messages=SAID, think=True, stream=True))
    assert "".join(part.message.thinking or "" for part in parts) == plain.message.thinking
    assert "".join(part.message.content for part in parts) == plain.message.content
    assert client.chat(model="fake-chat", messages=SAID, think=False).message.thinking is None
    assert "thinking" in client.show("fake-chat").capabilities


def test_generate_and_embed(client: Any) -> None:
    assert client.generate(model="fake-chat", prompt="x").response
    assert len(client.embed(model="fake-embed", input=["a", "b"]).embeddings) == 2


def test_inventory(client: Any) -> None:
    assert [model.model for model in client.list().models] == ["fake-chat:latest", "fake-embed:latest"]
    client.chat(model="fake-chat", messages=SAID)
    assert "fake-chat:latest" in [model.model for model in client.ps().models]


@pytest.mark.parametrize("status", [404, 500, 503])
def test_errors(fake: FakeServer, client: Any, status: int) -> None:
    model = "nope" if status == 404 else "fake-chat"
    if status != 404:
        fake.behave(fail_next=1, error_status=status)
    with pytest.raises(ollama.ResponseError) as caught:
        client.chat(model=model, messages=SAID)
    assert caught.value.status_code == status


def test_an_error_in_a_stream_is_raised(fake: FakeServer, client: Any) -> None:
    fake.behave(error_after_tokens=2)
    with pytest.raises(ollama.ResponseError, match="an error was encountered"):
        list(client.chat(model="fake-chat", messages=SAID, stream=True))
