"""Messages and tools in TGI's words."""

from __future__ import annotations

import json
from typing import Any

import pytest

from k9_broker.dialects.tgi.dialect import Tgi
from k9_broker.dialects.tgi.messages import messages
from k9_broker.errors import UnsupportedParameter
from k9_broker.requests import InferenceRequest, Operation

DIALECT = Tgi()
USER = {"role": "user", "content": "hi"}
PNG = "data:image/png;base64,aGk="
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": SCHEMA}}
BARE = {"type": "object", "properties": {}}


def chat(**body: Any) -> InferenceRequest:
    return InferenceRequest(Operation.CHAT, "org/m", {"model": "alias", "messages": [USER], **body})


def sent(request: InferenceRequest, **options: Any) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(DIALECT.build(request, options).body)
    return body


def call(**function: Any) -> dict[str, Any]:
    return {"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": function}]}


@pytest.mark.parametrize(
    ("choice", "made"),
    [
        ({}, {"tools": [TOOL], "tool_choice": "auto"}),
        ({"tool_choice": "required"}, {"tools": [TOOL], "tool_choice": "required"}),
        ({"tool_choice": "none"}, {}),
        (
            {"tool_choice": {"type": "function", "function": {"name": "f"}}},
            {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}}},
        ),
    ],
)
def test_tools(choice: dict[str, Any], made: dict[str, Any]) -> None:
    assert sent(chat(tools=[TOOL], **choice)) == {**sent(chat()), **made}


def test_tools_have_parameters_and_nothing_foreign() -> None:
    tool = {
        "type": "function",
        "cache_control": {},
        "function": {"name": "g", "description": "d", "strict": True},
    }
    assert sent(chat(tools=[tool]))["tools"] == [
        {"type": "function", "function": {"name": "g", "description": "d", "parameters": BARE}}
    ]


def test_a_conversation() -> None:
    image = {"type": "image_url", "image_url": {"url": PNG, "detail": "low"}}
    cached = {"cache_control": {"type": "ephemeral"}}
    messages = [
        {"role": "developer", "content": [{"type": "text", "text": "rules", **cached}]},
        {"role": "user", "name": "ann", "content": [{"type": "text", "text": "a"}, image]},
        {
            **call(name="f", arguments={"x": 1}),
            "content": "let me see",
            "reasoning": "hm",
            "thinking_blocks": [{"type": "thinking"}],
        },
        {"role": "tool", "tool_call_id": "c", "content": "42", "is_error": True},
        {**call(name="g", arguments=""), "content": None},
        {"role": "tool", "tool_call_id": "lost", "content": [{"type": "text", "text": "43"}]},
        {"role": "assistant", "content": None},
    ]

    def made(name: str, arguments: str) -> list[dict[str, Any]]:
        return [{"id": "c", "type": "function", "function": {"name": name, "arguments": arguments}}]

    assert sent(chat(messages=messages))["messages"] == [
        {"role": "system", "content": [{"type": "text", "text": "rules"}]},
        {
            "role": "user",
            "name": "ann",
            "content": [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": PNG}}],
        },
        {"role": "assistant", "content": "let me see"},
        {"role": "assistant", "tool_calls": made("f", '{"x":1}')},
        {"role": "tool", "tool_call_id": "c", "name": "f", "content": "42"},
        {"role": "assistant", "tool_calls": made("g", "{}")},
        {"role": "tool", "tool_call_id": "lost", "content": [{"type": "text", "text": "43"}]},
        {"role": "assistant", "content": ""},
    ]


def test_a_server_fetches_images_only_where_its_operator_allows_it() -> None:
    part = {"type": "image_url", "image_url": {"url": "https://example.org/cat.png"}}
    given = [{"role": "user", "content": [part]}]
    with pytest.raises(UnsupportedParameter) as refused:
        messages(given)
    assert refused.value.param == "messages[0].content[0].image_url"
    assert messages(given, fetches=True)[0]["content"] == [part]
