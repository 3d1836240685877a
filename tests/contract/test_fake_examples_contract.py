"""What the fake sends has the keys of recorded answers, and the very words of recorded errors."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from k9_broker.testing import FakeServer

pytestmark = pytest.mark.contracts

SAID = [{"role": "user", "content": "use the tool act"}]
OPENAI_TOOLS = [
    {"type": "function", "function": {"name": "act", "parameters": {"type": "object", "properties": {}}}}
]
CHAT: dict[str, Any] = {"model": "fake-chat", "messages": SAID}
MESSAGE: dict[str, Any] = {"model": "fake-chat", "max_tokens": 2000, "messages": SAID}
DEPLOYED = "/openai/deployments/fake-chat/chat/completions?api-version=2024-10-21"
VERSION = "2023-06-01"


@pytest.fixture(scope="module")
def running() -> Iterator[FakeServer]:
    with FakeServer() as server:
        yield server


@pytest.fixture
def fake(running: FakeServer) -> FakeServer:
    running.reset()
    return running


def ask(fake: FakeServer, path: str, body: Any = None, version: str | None = None) -> bytes:
    headers = {"anthropic-version": version} if version else {}
    data = None if body is None else json.dumps(body).encode()
    try:
        request = urllib.request.Request(fake.url + path, data, headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        return bytes(error.read())


@pytest.mark.parametrize(
    ("example", "flavour", "path", "body"),
    [
        ("anthropic-message", "plain", "/v1/messages", MESSAGE),
        ("anthropic-error-404-model", "plain", "/v1/messages", {**MESSAGE, "model": "nope"}),
        ("anthropic-error-400-sampling-removed", "plain", "/v1/messages", {**MESSAGE, "temperature": 1.2}),
        ("anthropic-models", "plain", "/v1/models", None),
        ("anthropic-count-tokens", "plain", "/v1/messages/count_tokens", MESSAGE),
        ("azure-chat", "plain", DEPLOYED, CHAT),
        ("azure-models", "plain", "/openai/models?api-version=2024-10-21", None),
        ("azure-error-404-deployment", "plain", DEPLOYED.replace("fake-chat", "nope"), CHAT),
        ("azure-error-404-resource", "plain", "/openai/nothing", CHAT),
        ("vllm-chat", "vllm", "/v1/chat/completions", CHAT),
        ("vllm-chat-tools", "vllm", "/v1/chat/completions", {**CHAT, "tools": OPENAI_TOOLS}),
        ("vllm-completions", "vllm", "/v1/completions", {"model": "fake-chat", "prompt": "x"}),
        ("vllm-embeddings", "vllm", "/v1/embeddings", {"model": "fake-embed", "input": ["a"]}),
        ("vllm-models", "vllm", "/v1/models", None),
        ("vllm-error-404-model", "vllm", "/v1/chat/completions", {**CHAT, "model": "nope"}),
        ("vllm-error-404-route", "vllm", "/v1/nothing", None),
        ("vllm-version", "vllm", "/version", None),
        ("vllm-load", "vllm", "/load", None),
        ("tgi-chat", "tgi", "/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]}),
        ("tgi-chat-tools", "tgi", "/v1/chat/completions", {**CHAT, "tools": OPENAI_TOOLS}),
        ("tgi-completions", "tgi", "/v1/completions", {"prompt": "x"}),
        ("tgi-generate", "tgi", "/generate", {"inputs": "x", "parameters": {"details": True}}),
        ("tgi-root-generate", "tgi", "/", {"inputs": "x"}),
        ("tgi-info", "tgi", "/info", None),
        ("tgi-models", "tgi", "/v1/models", None),
        ("tgi-error-422-validation", "tgi", "/generate", {"inputs": ""}),
        ("tei-embed", "tei", "/embed", {"inputs": ["a"]}),
        ("tei-v1-embeddings", "tei", "/v1/embeddings", {"input": ["a"]}),
        ("tei-v1-error-422-batch-size", "tei", "/v1/embeddings", {"input": ["a"] * 33}),
        ("llamacpp-models", "llamacpp", "/v1/models", None),
        ("llamacpp-slots", "llamacpp", "/slots", None),
        ("llamacpp-health", "llamacpp", "/health", None),
    ],
)
def test_it_has_exactly_the_keys_of_the_real_answer(
    fake: FakeServer, contracts: Path, example: str, flavour: str, path: str, body: Any
) -> None:
    """And more only where newer servers send more than when the example was taken."""
    fake.behave(flavour=flavour)
    real = json.loads((contracts / "examples" / f"{example}.json").read_text())["response"]["json"]
    version = VERSION if example.startswith("anthropic") else None
    sent = json.loads(ask(fake, path, body, version))
    assert keys(real) - keys(sent) == set()
    assert keys(sent) - keys(real) <= MORE


MORE = {
    ".data[].lifecycle",
    ".system_fingerprint",
    ".choices[].logprobs",
    ".choices[].message.annotations",
    ".choices[].message.refusal",
    *(f".usage.{kind}_tokens_details" for kind in ("prompt", "completion")),
    *(f".usage.{kind}_tokens_details.audio_tokens" for kind in ("prompt", "completion")),
    ".usage.prompt_tokens_details.cached_tokens",
    *(
        f".usage.completion_tokens_details.{name}_tokens"
        for name in ("reasoning", "accepted_prediction", "rejected_prediction")
    ),
}


def keys(value: Any, at: str = "") -> set[str]:
    """The paths of all keys, except those inside tool arguments."""
    if isinstance(value, dict) and not at.endswith("arguments"):
        return {f"{at}.{key}" for key in value} | {
            path for key, inner in value.items() for path in keys(inner, f"{at}.{key}")
        }
    if isinstance(value, list):
        return {path for inner in value for path in keys(inner, f"{at}[]")}
    return set()


@pytest.mark.parametrize(
    ("example", "flavour", "path", "body", "faults"),
    [
        ("anthropic-error-401", "plain", "/v1/messages", MESSAGE, {"api_key": "k"}),
        ("anthropic-error-429", "plain", "/v1/messages", MESSAGE, {"error_status": 429}),
        ("anthropic-error-500", "plain", "/v1/messages", MESSAGE, {"error_status": 500}),
        ("anthropic-error-529", "plain", "/v1/messages", MESSAGE, {"error_status": 529}),
        ("anthropic-error-402", "plain", "/v1/messages", MESSAGE, {"error_status": 402}),
        ("azure-error-401", "plain", DEPLOYED, CHAT, {"api_key": "k"}),
        ("azure-error-400-content-filter", "plain", DEPLOYED, CHAT,
         {"error_status": 400, "error_code": "content_filter"}),
        ("openai-error-401", "openai", "/v1/chat/completions", CHAT, {"api_key": "k"}),
        ("openai-error-503", "openai", "/v1/chat/completions", CHAT, {"error_status": 503}),
        ("vllm-error-401", "vllm", "/v1/chat/completions", CHAT, {"api_key": "k"}),
        ("vllm-error-500", "vllm", "/v1/chat/completions", CHAT, {"error_status": 500}),
        ("vllm-error-503-queue", "vllm", "/v1/chat/completions", CHAT, {"error_status": 503}),
        ("tgi-error-401", "tgi", "/v1/chat/completions", CHAT, {"api_key": "k"}),
        ("tgi-error-429", "tgi", "/v1/chat/completions", CHAT, {"error_status": 429}),
        ("tgi-error-500", "tgi", "/v1/chat/completions", CHAT, {"error_status": 500}),
        ("tei-error-429", "tei", "/embed", {"inputs": "a"}, {"error_status": 429}),
        ("llamacpp-error-401", "llamacpp", "/v1/chat/completions", CHAT, {"api_key": "k"}),
    ],
)  # fmt: skip
def test_errors_are_those_of_the_examples(
    fake: FakeServer, contracts: Path, example: str, flavour: str, path: str, body: Any, faults: Any
) -> None:
    """Word for word, but for what names the request, the organisation or the key."""
    fake.behave(flavour=flavour, fail_next=0 if "api_key" in faults else 1, **faults)
    expected = json.loads((contracts / "examples" / f"{example}.json").read_text())["response"]
    data = ask(fake, path, body, VERSION if path == "/v1/messages" else None)
    if not data:
        assert expected["text"] == ""
        return
    sent, real = json.loads(data), expected["json"]
    for each in (sent, real):
        each.pop("request_id", None)
        if isinstance(each["error"], dict) and example.split("-")[-1] in ("429", "401"):
            each["error"]["message"] = each["error"]["message"].split(" ")[0]
    assert sent == real


def test_streams_of_errors_are_those_of_the_examples(fake: FakeServer, contracts: Path) -> None:
    fake.behave(flavour="tgi", fail_next=2, error_status=429)
    for example, path, body in (
        ("tgi-stream-error-overloaded", "/generate_stream", {"inputs": "x"}),
        ("tgi-chat-stream-error-overloaded", "/v1/chat/completions", {**CHAT, "stream": True}),
    ):
        assert ask(fake, path, body) == (contracts / "examples" / f"{example}.sse").read_bytes()
    fake.behave(flavour="vllm", error_after_tokens=1)
    real = (contracts / "examples" / "vllm-stream-error-mid.sse").read_bytes().split(b"\n\n")[-3:]
    sent = ask(fake, "/v1/chat/completions", {**CHAT, "stream": True}).split(b"\n\n")[-3:]
    assert sent == real
