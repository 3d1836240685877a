"""What the contract examples of OpenAI's family say beside answers: models, load, limits, requests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from k9_broker.dialects.registry import dialect_named
from k9_broker.health import Load
from k9_broker.limits import Limit, RateLimits
from k9_broker.requests import InferenceRequest, Operation

pytestmark = pytest.mark.contracts

NOW = 1_790_000_000.0


def example(contracts: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((contracts / "examples" / f"{name}.json").read_text("utf-8"))
    return found


def answered(contracts: Path, name: str) -> bytes:
    response = example(contracts, name)["response"]
    return json.dumps(response["json"]).encode() if "json" in response else str(response["text"]).encode()


def test_models_with_what_the_servers_say_of_them(contracts: Path) -> None:
    windows = {
        dialect: [
            card.context_window
            for card in dialect_named(dialect).parse_models(answered(contracts, name)).values()
        ]
        for dialect, name in (("vllm", "vllm-models"), ("llama.cpp", "llamacpp-models"))
    }
    assert windows == {"vllm": [8192], "llama.cpp": [131072]}
    listed = dialect_named("openai").parse_models(answered(contracts, "openai-models"))
    assert len(listed) > 1
    assert {card.context_window for card in listed.values()} == {None}
    assert dialect_named("azure").parse_models(answered(contracts, "azure-models")) == {}


def test_load(contracts: Path) -> None:
    loads = {
        dialect: dialect_named(dialect).parse_load(answered(contracts, name))
        for dialect, name in (("vllm", "vllm-metrics"), ("llama.cpp", "llamacpp-slots"))
    }
    assert loads == {
        "vllm": Load(running=4, waiting=2, saturation=0.3711),
        "llama.cpp": Load(running=1, slots=2),
    }


@pytest.mark.parametrize(
    ("name", "dialect", "limits"),
    [
        (
            "openai-error-429-rate-limit",
            "openai",
            RateLimits(Limit(500, 499, 0.12), Limit(200000, 0, 360.0)),
        ),
        ("azure-error-429", "azure", RateLimits(tokens=Limit(10000, 0, 37.0))),
        ("azure-chat", "azure", RateLimits(Limit(remaining=119), Limit(remaining=119410))),
        ("openai-chat", "openai", None),
        ("vllm-chat", "vllm", None),
    ],
)
def test_limits(contracts: Path, name: str, dialect: str, limits: RateLimits | None) -> None:
    headers = example(contracts, name)["response"]["headers"]
    assert dialect_named(dialect).limits(headers, NOW) == limits


@pytest.mark.parametrize(
    ("name", "dialect"),
    [
        ("openai-chat", "openai"),
        ("openai-chat-stream-tool-call", "openai"),
        ("azure-chat", "azure"),
        ("azure-embeddings", "azure"),
        ("vllm-chat-tools", "vllm"),
        ("vllm-completions", "vllm"),
        ("vllm-embeddings", "vllm"),
    ],
)
def test_requests_go_where_the_examples_went(contracts: Path, name: str, dialect: str) -> None:
    sent = example(contracts, name)["request"]
    operation = Operation(name.split("-")[1])
    model = sent["json"].get("model") or sent["path"].partition("/deployments/")[2].partition("/")[0]
    wire = dialect_named(dialect).build(InferenceRequest(operation, model, sent["json"]), {})
    assert (wire.method, wire.path) == (sent["method"], sent["path"])
    body = json.loads(wire.body)
    for field in ("messages", "prompt", "input", "tools", "tool_choice"):
        assert body.get(field) == sent["json"].get(field), field


@pytest.mark.parametrize("dialect", ["openai", "azure", "vllm", "llama.cpp", "openai-compatible"])
def test_clients_requests_are_understood(contracts: Path, dialect: str) -> None:
    """What the official clients really send can be built for every server of the family."""
    names = ("openai-chat", "openai-chat-stream", "azure-chat", "azure-v1-chat", "langchain-chat", "hf-chat")
    for name in names:
        body = example(contracts, f"client-{name}")["request"]["json"]
        wire = dialect_named(dialect).build(InferenceRequest(Operation.CHAT, "m", body), {})
        made = json.loads(wire.body)
        assert made["messages"] == body["messages"], name
        assert ("stream" in made) == (body.get("stream") is True or dialect == "llama.cpp"), name
