"""What the fake sends fits the published schemas of the wires it speaks."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contract_schemas import checker
from k9_broker.testing import FakeServer

pytestmark = pytest.mark.contracts

SAID = [{"role": "user", "content": "use the tool act"}]
TOOLS = [
    {"type": "function", "function": {"name": "act", "parameters": {"type": "object", "properties": {}}}}
]
CHAT = {"model": "fake-chat", "messages": SAID}
STREAM = {**CHAT, "stream": True}


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeServer]:
    with FakeServer() as server:
        yield server


@pytest.fixture(scope="module")
def check(contracts: Path) -> Any:
    return checker(contracts)


def ask(fake: FakeServer, path: str, body: Any = None) -> bytes:
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(fake.url + path, data), timeout=10) as answer:
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        return bytes(error.read())


@pytest.mark.parametrize(
    ("path", "body", "schema"),
    [
        ("/v1/chat/completions", CHAT, "CreateChatCompletionResponse"),
        ("/v1/chat/completions", {**CHAT, "tools": TOOLS}, "CreateChatCompletionResponse"),
        ("/v1/chat/completions", {**CHAT, "max_tokens": 2, "n": 2}, "CreateChatCompletionResponse"),
        ("/v1/completions", {"model": "fake-chat", "prompt": "x"}, "CreateCompletionResponse"),
        ("/v1/embeddings", {"model": "fake-embed", "input": ["x", "y"]}, "CreateEmbeddingResponse"),
        ("/v1/models", None, "ListModelsResponse"),
        ("/v1/models/fake-chat", None, "Model"),
        ("/v1/chat/completions", {**CHAT, "model": "nope"}, "ErrorResponse"),
        ("/v1/embeddings", {"model": "fake-embed", "input": ""}, "ErrorResponse"),
        ("/v1/nothing", {}, "ErrorResponse"),
    ],
)
def test_openai_bodies(fake: FakeServer, check: Any, path: str, body: Any, schema: str) -> None:
    check("openai.openapi.json", schema, json.loads(ask(fake, path, body)))


@pytest.mark.parametrize("body", [STREAM, {**STREAM, "tools": TOOLS}, {**STREAM, "n": 2, "max_tokens": 2}])
@pytest.mark.parametrize("counted", [False, True])
def test_openai_frames(fake: FakeServer, check: Any, body: Any, counted: bool) -> None:
    body = {**body, "stream_options": {"include_usage": counted}}
    *frames, done = ask(fake, "/v1/chat/completions", body).removesuffix(b"\n\n").split(b"\n\n")
    assert done == b"data: [DONE]"
    for frame in frames:
        chunk = json.loads(frame.removeprefix(b"data: "))
        if chunk.get("usage", 0) is None:
            del chunk["usage"]  # the service sends null, its schema does not know it
        check("openai.openapi.json", "CreateChatCompletionStreamResponse", chunk)


@pytest.mark.parametrize(
    ("path", "body", "schema"),
    [
        ("/api/chat", {**CHAT, "stream": False}, "ChatResponse"),
        ("/api/chat", {**CHAT, "stream": False, "tools": TOOLS}, "ChatResponse"),
        ("/api/chat", {"model": "fake-chat", "messages": []}, "ChatResponse"),
        ("/api/generate", {"model": "fake-chat", "prompt": "x", "stream": False}, "GenerateResponse"),
        ("/api/embed", {"model": "fake-embed", "input": ["x", "y"]}, "EmbedResponse"),
        ("/api/tags", None, "ListResponse"),
        ("/api/ps", None, "PsResponse"),
        ("/api/version", None, "VersionResponse"),
        ("/api/show", {"model": "fake-chat"}, "ShowResponse"),
        ("/api/chat", {**CHAT, "model": "nope"}, "ErrorResponse"),
    ],
)
def test_ollama_bodies(fake: FakeServer, check: Any, path: str, body: Any, schema: str) -> None:
    check("ollama.openapi.json", schema, json.loads(ask(fake, path, body)))


@pytest.mark.parametrize(
    ("path", "body", "schema"),
    [
        ("/api/chat", CHAT, "ChatStreamEvent"),
        ("/api/chat", {**CHAT, "tools": TOOLS}, "ChatStreamEvent"),
        ("/api/generate", {"model": "fake-chat", "prompt": "x"}, "GenerateStreamEvent"),
    ],
)
def test_ollama_lines(fake: FakeServer, check: Any, path: str, body: Any, schema: str) -> None:
    for line in ask(fake, path, body).splitlines():
        check("ollama.openapi.json", schema, json.loads(line))


@pytest.mark.parametrize(
    ("example", "path", "body"),
    [
        ("openai-chat", "/v1/chat/completions", CHAT),
        ("openai-chat-tool-call", "/v1/chat/completions", {**CHAT, "tools": TOOLS}),
        ("openai-completions", "/v1/completions", {"model": "fake-chat", "prompt": "x"}),
        ("openai-embeddings-float", "/v1/embeddings", {"model": "fake-embed", "input": ["x"]}),
        ("openai-error-404-model", "/v1/chat/completions", {**CHAT, "model": "nope"}),
        ("ollama-chat", "/api/chat", {**CHAT, "stream": False}),
        ("ollama-chat-tools-ids", "/api/chat", {**CHAT, "stream": False, "tools": TOOLS}),
        ("ollama-embed", "/api/embed", {"model": "fake-embed", "input": ["x"]}),
        ("ollama-tags", "/api/tags", None),
        ("ollama-ps", "/api/ps", None),
        ("ollama-error-404-model", "/api/chat", {**CHAT, "model": "nope"}),
    ],
)
def test_no_key_of_the_real_answer_is_missing(
    fake: FakeServer, contracts: Path, example: str, path: str, body: Any
) -> None:
    """Apart from those that real servers leave out as well."""
    real = json.loads((contracts / "examples" / f"{example}.json").read_text())["response"]["json"]
    assert keys(real) - keys(json.loads(ask(fake, path, body))) <= {".data[].shutdown_date"}


def keys(value: Any, at: str = "") -> set[str]:
    """The paths of all keys, except those inside tool arguments."""
    if isinstance(value, dict) and not at.endswith("arguments"):
        return {f"{at}.{key}" for key in value} | {
            path for key, inner in value.items() for path in keys(inner, f"{at}.{key}")
        }
    if isinstance(value, list):
        return {path for inner in value for path in keys(inner, f"{at}[]")}
    return set()
