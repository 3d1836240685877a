"""What the fake sends on the wires of Anthropic, Azure, vLLM, TGI and TEI fits their schemas and examples.

Left out is what the schemas are known to have wrong: Azure's first chunk and bare errors, the
names of TEI's flat errors, nulls that services send all the same.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from k9_broker.testing import FakeServer

pytestmark = pytest.mark.contracts

SAID = [{"role": "user", "content": "use the tool act"}]
OPENAI_TOOLS = [
    {"type": "function", "function": {"name": "act", "parameters": {"type": "object", "properties": {}}}}
]
CHAT: dict[str, Any] = {"model": "fake-chat", "messages": SAID}
COUNTED = {"stream": True, "stream_options": {"include_usage": True}}
TOOLS = [{"name": "act", "input_schema": {"type": "object", "properties": {}}}]
MESSAGE: dict[str, Any] = {"model": "fake-chat", "max_tokens": 2000, "messages": SAID}
THINKING = {"thinking": {"type": "enabled", "budget_tokens": 1024}}
OLDER, NEWER = "anthropic-2023-06-01.derived.openapi.json", "anthropic-2026-10-21.derived.openapi.json"
AZURE, AZURE_V1 = "azure-openai-2024-10-21.inference.openapi.json", "azure-openai-v1.openapi.json"
GENERATE, POOLING = "vllm-0.33.0.generate.openapi.json", "vllm-0.33.0.pooling.openapi.json"
DEPLOYED = "/openai/deployments/fake-chat/chat/completions?api-version=2024-10-21"


@pytest.fixture(scope="module")
def running() -> Iterator[FakeServer]:
    with FakeServer() as server:
        yield server


@pytest.fixture
def fake(running: FakeServer) -> FakeServer:
    running.reset()
    return running


@pytest.fixture(scope="module")
def check(contracts: Path) -> Any:
    documents: dict[str, Any] = {}

    def _check(document: str, schema: str, value: Any) -> None:
        if document not in documents:
            documents[document] = nullable(json.loads((contracts / document).read_text()))
        root = {**documents[document], "$ref": f"#/components/schemas/{schema}"}
        jsonschema.Draft202012Validator(root).validate(value)

    return _check


def nullable(schema: Any) -> Any:
    """`nullable` of OpenAPI 3.0, which JSON Schema does not know, as an alternative."""
    if isinstance(schema, list):
        return [nullable(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: nullable(value) for key, value in schema.items()}
    if schema.pop("nullable", False) is True:
        return {"anyOf": [schema, {"type": "null"}]}
    return schema


def ask(fake: FakeServer, path: str, body: Any = None, version: str | None = None) -> bytes:
    headers = {"anthropic-version": version} if version else {}
    data = None if body is None else json.dumps(body).encode()
    try:
        request = urllib.request.Request(fake.url + path, data, headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        return bytes(error.read())


def frames(data: bytes) -> list[Any]:
    """The JSON of every event."""
    lines = [line.removeprefix(b"data: ") for line in data.splitlines() if line.startswith(b"data: ")]
    return [json.loads(line) for line in lines if line != b"[DONE]"]


@pytest.mark.parametrize(("document", "version"), [(OLDER, "2023-06-01"), (NEWER, "2026-10-21")])
@pytest.mark.parametrize(
    ("path", "body", "schema"),
    [
        ("/v1/messages", MESSAGE, "Message"),
        ("/v1/messages", {**MESSAGE, "tools": TOOLS}, "Message"),
        ("/v1/messages", {**MESSAGE, **THINKING}, "Message"),
        ("/v1/messages", {**MESSAGE, "model": "nope"}, "ErrorResponse"),
        ("/v1/messages/count_tokens", MESSAGE, "MessageTokensCount"),
        ("/v1/models/fake-chat", None, "ModelInfo"),
    ],
)
def test_anthropic_bodies(
    fake: FakeServer, check: Any, document: str, version: str, path: str, body: Any, schema: str
) -> None:
    check(document, schema, json.loads(ask(fake, path, body, version)))


@pytest.mark.parametrize(("document", "version"), [(OLDER, "2023-06-01"), (NEWER, "2026-10-21")])
@pytest.mark.parametrize("more", [{}, {"tools": TOOLS}, THINKING])
def test_anthropic_events(fake: FakeServer, check: Any, document: str, version: str, more: Any) -> None:
    events = frames(ask(fake, "/v1/messages", {**MESSAGE, **more, "stream": True}, version))
    assert len(events) > 5
    for event in events:
        if event["type"] != "ping":  # of which the schema knows nothing
            check(document, "K9_RawMessageStreamEvent", event)


@pytest.mark.parametrize("more", [{}, {"tools": OPENAI_TOOLS}])
def test_azure(fake: FakeServer, check: Any, more: Any) -> None:
    answer = json.loads(ask(fake, DEPLOYED, {**CHAT, **more}))
    check(AZURE, "createChatCompletionResponse", answer)
    first, *rest = frames(ask(fake, DEPLOYED, {**CHAT, **more, "stream": True}))
    assert first["choices"] == []
    for chunk in rest:
        check(AZURE, "createChatCompletionStreamResponse", chunk)


@pytest.mark.parametrize(
    ("document", "path", "body", "schema"),
    [
        (GENERATE, "/v1/chat/completions", CHAT, "ChatCompletionResponse"),
        (GENERATE, "/v1/chat/completions", {**CHAT, "tools": OPENAI_TOOLS}, "ChatCompletionResponse"),
        (GENERATE, "/v1/completions", {"model": "fake-chat", "prompt": "x"}, "CompletionResponse"),
        (GENERATE, "/v1/chat/completions", {**CHAT, "model": "nope"}, "ErrorResponse"),
        (GENERATE, "/v1/models", None, "ModelList"),
        (POOLING, "/v1/embeddings", {"model": "fake-embed", "input": ["a", "b"]}, "EmbeddingResponse"),
    ],
)
def test_vllm(fake: FakeServer, check: Any, document: str, path: str, body: Any, schema: str) -> None:
    fake.behave(flavour="vllm", reasoning_tokens=4)
    check(document, schema, json.loads(ask(fake, path, body)))


@pytest.mark.parametrize("more", [{}, {"tools": OPENAI_TOOLS}])
def test_vllm_frames(fake: FakeServer, check: Any, more: Any) -> None:
    fake.behave(flavour="vllm", reasoning_tokens=4)
    for chunk in frames(ask(fake, "/v1/chat/completions", {**CHAT, **more, **COUNTED})):
        check(GENERATE, "ChatCompletionStreamResponse", chunk)
    for chunk in frames(ask(fake, "/v1/completions", {"model": "fake-chat", "prompt": "x", **COUNTED})):
        check(GENERATE, "CompletionStreamResponse", chunk)


@pytest.mark.parametrize(
    ("path", "body", "schema"),
    [
        ("/generate", {"inputs": "x"}, "GenerateResponse"),
        ("/generate", {"inputs": "x", "parameters": {"details": True}}, "GenerateResponse"),
        ("/generate", {"inputs": ""}, "ErrorResponse"),
        ("/info", None, "Info"),
        ("/v1/chat/completions", CHAT, "ChatCompletion"),
        ("/v1/completions", {"prompt": "x"}, "CompletionFinal"),
    ],
)
def test_tgi(fake: FakeServer, check: Any, path: str, body: Any, schema: str) -> None:
    fake.behave(flavour="tgi")
    check("tgi.openapi.json", schema, json.loads(ask(fake, path, body)))


def test_tgi_frames(fake: FakeServer, check: Any) -> None:
    fake.behave(flavour="tgi")
    for chunk in frames(ask(fake, "/generate_stream", {"inputs": "x"})):
        check("tgi.openapi.json", "StreamResponse", chunk)
    for chunk in frames(ask(fake, "/v1/chat/completions", {**CHAT, **COUNTED})):
        if chunk.get("usage"):
            chunk["usage"] = {name: value for name, value in chunk["usage"].items() if value is not None}
        check("tgi.openapi.json", "ChatCompletionChunk", chunk)


@pytest.mark.parametrize(
    ("path", "body", "schema"),
    [
        ("/embed", {"inputs": ["a", "b"]}, "EmbedResponse"),
        ("/embed", {"inputs": ["a"] * 33}, "ErrorResponse"),
        ("/v1/embeddings", {"input": ["a", "b"]}, "OpenAICompatResponse"),
        ("/info", None, "Info"),
    ],
)
def test_tei(fake: FakeServer, check: Any, path: str, body: Any, schema: str) -> None:
    fake.behave(flavour="tei")
    check("tei.openapi.json", schema, json.loads(ask(fake, path, body)))
