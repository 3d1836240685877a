"""OpenAI's requests in the words of Anthropic's Messages API; what has none is refused by name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from k9_broker import errors
from k9_broker.dialects.anthropic.dialect import Anthropic
from k9_broker.requests import InferenceRequest, Operation

DIALECT = Anthropic()
USER = {"role": "user", "content": "hi"}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
CLOSED = {**SCHEMA, "additionalProperties": False}
WEATHER = {"type": "function", "function": {"name": "weather", "description": "It.", "parameters": SCHEMA}}
TOOL = {"name": "weather", "description": "It.", "input_schema": SCHEMA}


def chat(**body: Any) -> InferenceRequest:
    return InferenceRequest(Operation.CHAT, "claude", {"model": "alias", "messages": [USER], **body})


def sent(request: InferenceRequest, **options: Any) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(DIALECT.build(request, options).body)
    return body


def asked(options: dict[str, Any] | None = None, **body: Any) -> dict[str, Any]:
    """What a request adds to the simplest one."""
    plain = {"model": "claude", "messages": [{"role": "user", "content": [text("hi")]}], "max_tokens": 4096}
    made = sent(chat(**body), **(options or {}))
    return {name: value for name, value in made.items() if plain.get(name) != value}


def text(words: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": words, **more}


def test_the_simplest_request_in_full() -> None:
    wire = DIALECT.build(chat(), {})
    assert (wire.method, wire.path) == ("POST", "/v1/messages")
    assert wire.headers == {"content-type": "application/json", "anthropic-version": "2023-06-01"}
    assert json.loads(wire.body) == {
        "model": "claude",
        "messages": [{"role": "user", "content": [text("hi")]}],
        "max_tokens": 4096,
    }


@pytest.mark.parametrize(
    ("body", "made"),
    [
        ({"max_tokens": 5}, {"max_tokens": 5}),
        ({"max_tokens": 5, "max_completion_tokens": 6}, {"max_tokens": 6}),
        ({"stream": True}, {"stream": True}),
        ({"stream": False}, {}),
        ({"max_tokens": 21_333}, {"max_tokens": 21_333}),
        ({"max_tokens": 21_334}, {"max_tokens": 21_334, "stream": True}),
        ({"temperature": 0.3, "top_k": 5}, {"temperature": 0.3, "top_k": 5}),
        ({"temperature": 1.2}, {"temperature": 1}),
        ({"temperature": 0, "top_p": 0.5}, {"temperature": 0, "top_p": 0.5}),
        ({"stop": "X"}, {"stop_sequences": ["X"]}),
        ({"stop": ["X", "\nY"]}, {"stop_sequences": ["X", "\nY"]}),
        ({"stop": []}, {}),
        ({"user": "u"}, {"metadata": {"user_id": "u"}}),
        ({"safety_identifier": "s"}, {"metadata": {"user_id": "s"}}),
        ({"user": "u", "safety_identifier": "s"}, {"metadata": {"user_id": "u"}}),
        ({"service_tier": "auto"}, {"service_tier": "auto"}),
        ({"service_tier": "default"}, {"service_tier": "standard_only"}),
        ({"service_tier": "flex"}, {}),
        ({"cache_control": {"type": "ephemeral"}}, {"cache_control": {"type": "ephemeral"}}),
        ({"top_k": 0}, {}),
        ({"prediction": {"type": "content", "content": "x"}, "verbosity": "medium"}, {}),
        ({"metadata": {"a": "b"}, "store": True, "prompt_cache_key": "k"}, {}),
        ({"n": 1, "logprobs": False, "logit_bias": {}, "modalities": ["text"]}, {}),
        ({"presence_penalty": 0, "frequency_penalty": 0.0, "repetition_penalty": 1.0, "min_p": 0}, {}),
        ({"seed": None, "stop": None, "tools": None, "audio": None}, {}),
        ({"response_format": {"type": "text"}}, {}),
    ],
)
def test_parameters(body: dict[str, Any], made: dict[str, Any]) -> None:
    assert asked(**body) == made


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n", 2),
        ("logprobs", True),
        ("top_logprobs", 3),
        ("seed", 7),
        ("logit_bias", {"5": 1}),
        ("presence_penalty", 0.5),
        ("frequency_penalty", -1),
        ("modalities", ["text", "audio"]),
        ("audio", {"voice": "v"}),
        ("functions", [{"name": "f"}]),
        ("function_call", "auto"),
        ("verbosity", "low"),
        ("guided_json", {}),
        ("response_format", {"type": "json_object"}),
        ("response_format", {"type": "grammar"}),
        ("reasoning_effort", "huge"),
        ("tool_choice", {"type": "allowed_tools"}),
        ("stop", "\n"),
        ("stop", ["X", " "]),
    ],
)
def test_what_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(errors.UnsupportedParameter) as caught:
        DIALECT.build(chat(**{"tools": [WEATHER], name: value}), {})
    assert caught.value.param == name
    assert name in caught.value.message or name in ("response_format", "stop")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"role": "system", "content": "s"}]}, "messages"),
        ({"messages": [USER, 5]}, "messages[1]"),
        ({"messages": [{"role": "user", "content": ""}]}, "messages[0]"),
        ({"messages": [{"role": "function", "content": "x"}]}, "messages[0].role"),
        ({"messages": [USER, {"role": "tool", "content": "x"}]}, "messages[1].tool_call_id"),
        ({"max_tokens": "5"}, "max_tokens"),
        ({"thinking": "much"}, "thinking"),
        ({"tool_choice": "required"}, "tools"),
        ({"tools": [{"type": "custom", "custom": {}}]}, "tools[0].type"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {}}},
            "response_format.json_schema.schema",
        ),
    ],
)
def test_what_is_not_valid_names_its_place(body: dict[str, Any], param: str) -> None:
    with pytest.raises(errors.BadRequest) as caught:
        DIALECT.build(chat(**body), {})
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("body", "made"),
    [
        ({}, {"tools": [TOOL]}),
        ({"tool_choice": "auto"}, {"tools": [TOOL]}),
        ({"tool_choice": "none"}, {"tools": [TOOL], "tool_choice": {"type": "none"}}),
        ({"tool_choice": "required"}, {"tools": [TOOL], "tool_choice": {"type": "any"}}),
        (
            {"tool_choice": {"type": "function", "function": {"name": "weather"}}},
            {"tools": [TOOL], "tool_choice": {"type": "tool", "name": "weather"}},
        ),
        (
            {"parallel_tool_calls": False},
            {"tools": [TOOL], "tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
        ),
        (
            {"parallel_tool_calls": False, "tool_choice": "required"},
            {"tools": [TOOL], "tool_choice": {"type": "any", "disable_parallel_tool_use": True}},
        ),
        (
            {"parallel_tool_calls": False, "tool_choice": "none"},
            {"tools": [TOOL], "tool_choice": {"type": "none"}},
        ),
        ({"parallel_tool_calls": True}, {"tools": [TOOL]}),
    ],
)
def test_tools_and_their_choice(body: dict[str, Any], made: dict[str, Any]) -> None:
    assert asked(tools=[WEATHER], **body) == made


@pytest.mark.parametrize(
    ("tool", "made"),
    [
        ({"name": "f"}, {"name": "f", "input_schema": {"type": "object", "properties": {}}}),
        (
            {"name": "f", "parameters": {"properties": {"a": {}}}, "strict": True},
            {"name": "f", "input_schema": {"type": "object", "properties": {"a": {}}}, "strict": True},
        ),
        (
            {"name": "f", "parameters": SCHEMA, "strict": False},
            {"name": "f", "input_schema": SCHEMA},
        ),
    ],
)
def test_one_tool(tool: dict[str, Any], made: dict[str, Any]) -> None:
    assert asked(tools=[{"type": "function", "function": tool}]) == {"tools": [made]}


def test_tools_are_needed_for_what_speaks_of_them() -> None:
    assert asked(tool_choice="none", parallel_tool_calls=False) == {}
    marked = {**WEATHER, "cache_control": {"type": "ephemeral"}}
    assert asked(tools=[marked]) == {"tools": [{**TOOL, "cache_control": {"type": "ephemeral"}}]}


def test_a_schema_is_closed_where_it_says_nothing() -> None:
    nested = {
        "type": "object",
        "properties": {
            "type": {"type": "string", "enum": ["object"], "default": {"type": "object"}},
            "open": {"type": "object", "additionalProperties": {"type": "string"}},
            "rows": {"type": "array", "items": SCHEMA},
        },
        "$defs": {"either": {"anyOf": [SCHEMA, {"type": "null"}]}},
    }
    made = asked(response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": nested}})
    assert made == {
        "output_config": {
            "format": {
                "type": "json_schema",
                "schema": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {**nested["properties"], "rows": {"type": "array", "items": CLOSED}},
                    "$defs": {"either": {"anyOf": [CLOSED, {"type": "null"}]}},
                },
            }
        }
    }
    assert asked(response_format={"type": "json_object", "schema": SCHEMA}) == {
        "output_config": {"format": {"type": "json_schema", "schema": CLOSED}}
    }


@pytest.mark.parametrize(
    ("body", "made"),
    [
        ({"temperature": 1.2}, {}),
        ({"temperature": 1, "top_p": 1}, {}),
        ({"temperature": 0.5}, "temperature"),
        ({"top_p": 0.9}, "top_p"),
        ({"top_k": 1}, "top_k"),
    ],
)
def test_the_version_without_sampling_parameters(body: dict[str, Any], made: Any) -> None:
    options = {"version": "2026-10-21"}
    if isinstance(made, dict):
        assert asked(options, **body) == made
        return
    with pytest.raises(errors.UnsupportedParameter, match="2026-10-21") as caught:
        DIALECT.build(chat(**body), options)
    assert caught.value.param == made


def test_backend_options() -> None:
    options = {"version": "2026-10-21", "beta": ["a", "b"], "max_tokens": 99}
    wire = DIALECT.build(chat(), {**options, "inference_geo": "us"})
    assert wire.headers["anthropic-version"] == "2026-10-21"
    assert wire.headers["anthropic-beta"] == "a,b"
    body = json.loads(wire.body)
    assert (body["max_tokens"], body["inference_geo"]) == (99, "us")
    assert not {"version", "beta", "budget_models"} & body.keys()
