"""Anthropic's format on both sides: as callers read it, and as its service insists on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anthropic
import pytest

from k9_broker.backends import Backend
from k9_broker.errors import UnsupportedParameter
from k9_broker.requests import InferenceRequest, Operation
from k9_broker.testing import FakeServer
from k9_workers.callers import build_caller
from menagerie import CLIENT_KEY, HELLO, TOOLS, USE_BOTH, Menagerie, only
from sdk_targets import run_client, sdk_folder

WIRES = ("openai", "ollama", "vllm", "tgi", "anthropic")
OLD = "0.125.0"
AS_ANTHROPIC: list[Any] = [
    {"name": one["function"]["name"], "input_schema": one["function"]["parameters"]} for one in TOOLS
]
THINK = {"type": "enabled", "budget_tokens": 1024}
THINKING = ("vllm", "ollama", "anthropic")
"""Servers that show what they thought."""


def events(text: str) -> list[dict[str, Any]]:
    """Anthropic's events, each of which names itself twice."""
    found = []
    for block in text.removesuffix("\n\n").split("\n\n"):
        head, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert head == f"event: {event['type']}"
        found.append(event)
    return [one for one in found if one["type"] != "ping"]


@pytest.mark.parametrize(
    ("name", "ask"),
    [
        *((name, ask) for name in WIRES for ask in ("text", "tools")),
        *((name, "thinking") for name in THINKING),
    ],
)
def test_trap_07_anthropic_stream_is_in_order(k9: Menagerie, breaks: Any, name: str, ask: str) -> None:
    """A gap in the indices is an IndexError in the SDK, absent usage an AttributeError."""
    body: dict[str, Any] = {"model": only(name), "max_tokens": 2000, "messages": HELLO, "stream": True}
    if ask == "tools":
        body |= {"messages": USE_BOTH, "tools": AS_ANTHROPIC}
    elif ask == "thinking":
        breaks(name, reasoning_tokens=6)
        body["thinking"] = THINK
    reply = k9.http.post("/v1/messages", json=body)
    assert reply.status_code == 200, reply.text
    assert "[DONE]" not in reply.text
    first, *blocks, delta, stop = events(reply.text)
    assert first["type"] == "message_start"
    assert first["message"]["content"] == []
    assert {"input_tokens", "output_tokens"} <= set(first["message"]["usage"])
    assert (delta["type"], stop["type"]) == ("message_delta", "message_stop")
    assert delta["usage"]["output_tokens"] > 0
    assert delta["delta"]["stop_reason"] == ("tool_use" if ask == "tools" else "end_turn")
    begun = [one["index"] for one in blocks if one["type"] == "content_block_start"]
    assert begun == list(range(len(begun)))
    open_now: int | None = None
    for one in blocks:
        if one["type"] == "content_block_start":
            assert open_now is None
            open_now = one["index"]
        assert one["index"] == open_now
        if one["type"] == "content_block_stop":
            open_now = None
    assert open_now is None
    kinds = [one["content_block"]["type"] for one in blocks if one["type"] == "content_block_start"]
    if ask == "tools":
        assert kinds.count("tool_use") == (1 if name == "tgi" else 2)
    else:
        assert kinds == (["thinking", "text"] if ask == "thinking" else ["text"])


@pytest.mark.parametrize("name", WIRES)
def test_trap_07_anthropic_stream_ends_as_the_whole_message(k9: Menagerie, name: str) -> None:
    """Two parallel tools, one of them without arguments, through the official helper."""
    asked: Any = {"model": only(name), "max_tokens": 2000}
    with anthropic.Anthropic(base_url=k9.url, api_key=CLIENT_KEY, max_retries=0) as client:
        for more in ({"messages": HELLO}, {"messages": USE_BOTH, "tools": AS_ANTHROPIC}):
            whole = client.messages.create(**asked, **more).to_dict()
            with client.messages.stream(**asked, **more) as stream:
                final = stream.get_final_message().to_dict()
            for message in (whole, final):
                del message["id"]
                message.pop("stop_details", None)  # of a whole message alone, and null
                blocks: Any = message["content"]
                for block in blocks:
                    block.pop("id", None)
            assert final == whole


def test_trap_07_anthropic_stream_is_read_by_an_old_sdk(k9: Menagerie) -> None:
    path = sdk_folder(f"anthropic-{OLD}")
    said = run_client("anthropic_streams.py", k9.url, CLIENT_KEY, *map(only, WIRES), path=path)
    assert said.pop("version") == OLD
    assert set(said) == set(map(only, WIRES))
    for told in said.values():
        assert told["text"]["stop_reason"] == "end_turn"
        assert told["tools"]["stop_reason"] == "tool_use"
        called = [block for block in told["tools"]["content"] if block["type"] == "tool_use"]
        assert called[0]["input"]["city"]


# -- towards the service ---------------------------------------------------------------------------

WARM: dict[str, Any] = {"model": "fake-chat", "messages": HELLO, "temperature": 1.2}


async def _sent(fake: FakeServer, body: dict[str, Any], **options: Any) -> dict[str, Any]:
    backend = Backend(name="claude", dialect="anthropic", url=fake.url, options=options)
    caller = build_caller(backend, Path())
    try:
        await caller.call(InferenceRequest(Operation.CHAT, "fake-chat", body))
    finally:
        await caller.close()
    return dict(fake.requests()[-1])


async def test_trap_11_sampling_parameters_are_clamped_for_the_older_version(fake: FakeServer) -> None:
    seen = await _sent(fake, WARM)
    assert seen["headers"]["anthropic-version"] == "2023-06-01"
    assert seen["body"]["temperature"] == 1
    assert seen["body"]["max_tokens"] > 0


async def test_trap_11_sampling_parameters_are_refused_by_the_newer_version(fake: FakeServer) -> None:
    """Its service answers 400 even to defaults: those are left out, the rest is refused by name."""
    for param, value in (("temperature", 0.5), ("top_p", 0.5), ("top_k", 40)):
        body = {"model": "fake-chat", "messages": HELLO, param: value}
        with pytest.raises(UnsupportedParameter) as refused:
            await _sent(fake, body, version="2026-10-21")
        assert refused.value.param == param
    assert fake.stats()["inferences"] == 0
    # 1 is what it does anyway, and nothing above is to be had.
    seen = await _sent(fake, {**WARM, "top_p": 1}, version="2026-10-21")
    assert seen["headers"]["anthropic-version"] == "2026-10-21"
    assert {"temperature", "top_p", "top_k"}.isdisjoint(seen["body"])


@pytest.fixture(scope="module")
def server() -> Any:
    with FakeServer() as running:
        yield running


@pytest.fixture
def fake(server: FakeServer) -> FakeServer:
    server.reset()
    return server
