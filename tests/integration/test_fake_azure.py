"""The fake's Azure side, by the official SDK and by the bytes."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from fake_calls import SAID, ask
from k9_broker.testing import FakeServer

AT = "/openai/deployments/fake-chat/chat/completions?api-version=2024-10-21"
BODY: dict[str, Any] = {"messages": SAID}


@pytest.fixture(scope="module")
def sdk(fake_server: FakeServer) -> Iterator[openai.AzureOpenAI]:
    with openai.AzureOpenAI(
        azure_endpoint=fake_server.url, api_key="az", api_version="2024-10-21", max_retries=0
    ) as client:
        yield client


@pytest.fixture(scope="module")
def v1(fake_server: FakeServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{fake_server.url}/openai/v1/", api_key="az", max_retries=0) as client:
        yield client


def test_a_deployment_is_in_the_path(fake: FakeServer, sdk: openai.AzureOpenAI) -> None:
    answer = sdk.chat.completions.create(model="fake-chat", messages=SAID)
    assert answer.choices[0].finish_reason == "stop"
    raw = answer.to_dict()
    assert raw["prompt_filter_results"][0]["content_filter_results"]["hate"]["filtered"] is False
    assert raw["choices"][0]["content_filter_results"]["violence"]["severity"] == "safe"
    seen = fake.requests()[-1]
    assert seen["path"] == "/openai/deployments/fake-chat/chat/completions"
    assert seen["query"] == "api-version=2024-10-21"
    assert seen["headers"]["api-key"] == "***"
    status, headers, data = ask(fake, (AT, BODY))  # the body needs no model
    assert (status, json.loads(data)["model"]) == (200, "fake-chat")
    assert headers["apim-request-id"]
    assert "x-request-id" not in headers


def test_the_first_chunk_is_empty(fake: FakeServer, sdk: openai.AzureOpenAI) -> None:
    plain = sdk.chat.completions.create(model="fake-chat", messages=SAID)
    options: Any = {"include_usage": True}
    stream = sdk.chat.completions.create(
        model="fake-chat", messages=SAID, stream=True, stream_options=options
    )
    chunks = [chunk.to_dict() for chunk in stream]
    assert chunks[0]["choices"] == []
    assert [chunks[0][name] for name in ("id", "model", "object", "created")] == ["", "", "", 0]
    assert chunks[0]["prompt_filter_results"][0]["prompt_index"] == 0
    assert {chunk["id"] for chunk in chunks[1:]} == {plain.id}
    told = [chunk["choices"][0] for chunk in chunks[1:-1]]
    assert all("content_filter_results" in choice for choice in told)
    text = "".join(choice["delta"].get("content") or "" for choice in told)
    assert text == plain.choices[0].message.content
    assert chunks[-1]["usage"]["total_tokens"] == plain.usage.total_tokens


def test_tools_are_as_openai_has_them(fake: FakeServer, sdk: openai.AzureOpenAI) -> None:
    tools: Any = [{"type": "function", "function": {"name": "act", "parameters": {"type": "object"}}}]
    with sdk.chat.completions.stream(
        model="fake-chat", messages=SAID, tools=tools, tool_choice="required"
    ) as stream:
        final = stream.get_final_completion().choices[0]
    assert final.finish_reason == "tool_calls"
    assert final.message.tool_calls[0].function.name == "act"


def test_embeddings_and_completions(fake: FakeServer, sdk: openai.AzureOpenAI) -> None:
    assert len(sdk.embeddings.create(model="fake-embed", input=["a", "b"]).data) == 2
    assert sdk.completions.create(model="fake-chat", prompt="x", max_tokens=3).usage.completion_tokens == 3


def test_v1_takes_the_deployment_as_the_model(fake: FakeServer, v1: openai.OpenAI) -> None:
    assert v1.chat.completions.create(model="fake-chat", messages=SAID).model == "fake-chat"
    assert fake.requests()[-1]["headers"]["authorization"] == "***"
    assert len(v1.embeddings.create(model="fake-embed", input="a").data) == 1
    with pytest.raises(openai.NotFoundError) as caught:
        v1.chat.completions.create(model="nope", messages=SAID)
    assert caught.value.code == "DeploymentNotFound"


def test_an_unknown_deployment(fake: FakeServer, sdk: openai.AzureOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        sdk.chat.completions.create(model="nope", messages=SAID)
    assert caught.value.code == "DeploymentNotFound"
    assert set(caught.value.body) == {"code", "message"}


@pytest.mark.parametrize(
    "path",
    [
        "/openai/deployments/fake-chat/chat/completions",
        "/openai/deployments/fake-chat/chat/completion?api-version=2024-10-21",
        "/openai/v1/nothing",
        "/openai/nothing?api-version=2024-10-21",
    ],
)
def test_a_wrong_path_or_no_version(fake: FakeServer, path: str) -> None:
    status, _, data = ask(fake, (path, BODY))
    assert (status, json.loads(data)) == (404, {"error": {"code": "404", "message": "Resource not found"}})


def test_models_are_those_of_the_region(fake: FakeServer) -> None:
    link = http.client.HTTPConnection("127.0.0.1", fake.port, timeout=10)
    link.request("GET", "/openai/models?api-version=2024-10-21")
    data = json.loads(link.getresponse().read())["data"]
    link.close()
    assert "fake-chat" not in [model["id"] for model in data]
    assert all(model["capabilities"]["inference"] and model["lifecycle_status"] for model in data)


@pytest.mark.parametrize(("status", "code"), [(401, "401"), (429, "429"), (500, "500"), (503, "503")])
def test_errors_have_a_string_for_a_code(fake: FakeServer, status: int, code: str) -> None:
    fake.behave(fail_next=1, error_status=status, retry_after=2)
    got, headers, data = ask(fake, (AT, BODY))
    error = json.loads(data)["error"]
    assert (got, error["code"], set(error)) == (status, code, {"code", "message"})
    assert (headers["retry-after"], headers["retry-after-ms"]) == ("2", "2000")


def test_the_content_filter(fake: FakeServer) -> None:
    fake.behave(fail_next=1, error_status=400, error_code="content_filter")
    status, _, data = ask(fake, (AT, BODY))
    error = json.loads(data)["error"]
    assert (status, error["code"], error["type"]) == (400, "content_filter", None)
    assert error["innererror"]["content_filter_result"]["violence"]["filtered"] is True
