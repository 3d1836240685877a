"""Messages requests that are refused: by name, in a clear sentence, each as its version of the API has it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from k9_api.dialects.anthropic import ingress
from k9_broker.errors import BadRequest, UnsupportedParameter
from k9_broker.requests import InferenceRequest

OLD, NEW = "2023-06-01", "2026-10-21"
HELLO = [{"role": "user", "content": "hello"}]
ASK: dict[str, Any] = {"model": "m", "max_tokens": 64, "messages": HELLO}
TOOL = {"name": "look", "description": "Looks.", "input_schema": {"type": "object", "properties": {}}}
PIXEL = {"type": "base64", "media_type": "image/png", "data": "aGk="}


def parse(body: Any, version: str = OLD) -> InferenceRequest:
    return ingress.parse(json.dumps(body).encode(), [(b"anthropic-version", version.encode())], "acme")


def text(said: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": said, **more}


def assistant(*blocks: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": list(blocks)}


def block(*blocks: Any, role: str = "user") -> dict[str, Any]:
    return {"messages": [{"role": role, "content": list(blocks)}]}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"model": ""}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "secret"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": ""}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": []}]}, "messages[0].content"),
        (block({"text": "secret"}), "messages[0].content[0].type"),
        (block(text("a"), {"type": "text"}), "messages[0].content[1].text"),
        (block({"type": "image"}), "messages[0].content[0].source"),
        (block({"type": "image", "source": {"type": "base64", "data": "a"}}),
         "messages[0].content[0].source.media_type"),
        (block({"type": "tool_result"}), "messages[0].content[0].tool_use_id"),
        (block({"type": "tool_use", "id": "t", "name": "n", "input": "secret"}, role="assistant"),
         "messages[0].content[0].input"),
        ({"system": [{"type": "text"}]}, "system[0].text"),
        ({"temperature": 1.2}, "temperature"),
        ({"stream": "yes"}, "stream"),
        ({"stop_sequences": [""]}, "stop_sequences[0]"),
        ({"tools": [{"name": "look"}]}, "tools[0].input_schema"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool"}}, "tool_choice.name"),
        ({"tools": [TOOL], "tool_choice": {"type": "must"}}, "tool_choice.type"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1000}}, "thinking.budget_tokens"),
        ({"output_config": {"effort": "secret"}}, "output_config.effort"),
        ({"output_config": {"format": {"type": "json_schema"}}}, "output_config.format.schema"),
        ({"frequency_penalty": "secret"}, "frequency_penalty"),
        ({"k9": {"priority": "secret"}}, "k9.priority"),
    ],
)  # fmt: skip
def test_a_bad_field_is_named_and_its_value_is_not_repeated(fields: Any, param: str) -> None:
    body = {name: value for name, value in (ASK | fields).items() if value is not None}
    with pytest.raises(BadRequest) as caught:
        parse(body)
    assert caught.value.param == param
    assert not isinstance(caught.value, UnsupportedParameter)
    assert "secret" not in caught.value.message


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"mcp_servers": [{"url": "https://x.test"}]}, "mcp_servers"),
        ({"container": "c"}, "container"),
        ({"context_management": {"edits": [1]}}, "context_management"),
        ({"inference_geo": "us"}, "inference_geo"),
        ({"speed": "fast"}, "speed"),
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type"),
        ({"tools": [TOOL, {"type": "computer_toolset_20260801"}]}, "tools[1].type"),
        ({"tools": [TOOL | {"input_examples": [{}]}]}, "tools[0].input_examples"),
        ({"tools": [TOOL | {"defer_loading": True}]}, "tools[0].defer_loading"),
        (
            {"tools": [TOOL | {"allowed_callers": ["code_execution_20260120"]}]},
            "tools[0].allowed_callers",
        ),
        (block({"type": "search_result", "source": "x"}), "messages[0].content[0].type"),
        (block({"type": "server_tool_use", "id": "x"}, role="assistant"), "messages[0].content[0].type"),
        (block({"type": "image", "source": PIXEL}, role="assistant"), "messages[0].content[0].type"),
        (block({"type": "image", "source": PIXEL}, role="system"), "messages[0].content[0].type"),
        (block({"type": "thinking", "thinking": "x"}), "messages[0].content[0].type"),
        (
            block({"type": "image", "source": {"type": "file", "file_id": "f"}}),
            "messages[0].content[0].source.type",
        ),
        (
            block({"type": "document", "source": {"type": "url", "url": "https://x.test/a.pdf"}}),
            "messages[0].content[0].source.type",
        ),
        (
            block(
                {
                    "type": "document",
                    "source": {"type": "text", "data": "a"},
                    "citations": {"enabled": True},
                }
            ),
            "messages[0].content[0].citations",
        ),
    ],
)
def test_what_no_backend_could_be_asked_is_refused_by_name(fields: Any, param: str) -> None:
    with pytest.raises(UnsupportedParameter) as caught:
        parse(ASK | fields)
    assert caught.value.param == param
    assert f"`{param}`" in caught.value.message


DOCUMENT = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "a"}}
REMOVED: list[tuple[dict[str, Any], str]] = [
    ({"temperature": 1}, "temperature"),
    ({"top_p": 1.0}, "top_p"),
    ({"top_k": 0}, "top_k"),
    ({"messages": [*HELLO, assistant(DOCUMENT)]}, "messages[1].content[0]"),
    (block(text("a", citations=[{"type": "char_location"}])), "messages[0].content[0].citations"),
]


@pytest.mark.parametrize(("fields", "param"), REMOVED)
def test_each_version_accepts_what_it_does(fields: Any, param: str) -> None:
    assert parse(ASK | fields, OLD)
    for version in (NEW, "2027-01-01"):
        with pytest.raises(BadRequest) as caught:
            parse(ASK | fields, version)
        assert caught.value.param == param
        assert OLD in caught.value.message


def test_what_the_newer_version_keeps() -> None:
    kept = [text("a", citations=[])], [DOCUMENT]
    for blocks in kept:
        assert parse(ASK | block(*blocks), NEW)


def test_no_version_is_the_oldest_and_a_wrong_one_is_refused() -> None:
    raw = json.dumps(ASK | {"temperature": 1}).encode()
    assert ingress.parse(raw, [], "acme").body["temperature"] == 1
    with pytest.raises(BadRequest) as caught:
        parse(ASK, "secret")
    assert caught.value.param == "anthropic-version"
    assert "secret" not in caught.value.message
