"""The llama.cpp dialect: named tools, contexts, slots, and errors with the wrong status."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k9_broker import errors
from k9_broker.dialects.registry import dialect_named
from k9_broker.health import Load
from k9_broker.requests import InferenceRequest, Operation

LLAMA = dialect_named("llama.cpp")
TOOLS = [{"type": "function", "function": {"name": name}} for name in ("f", "g")]


def sent(body: dict[str, Any], operation: Operation = Operation.CHAT) -> dict[str, Any]:
    request = InferenceRequest(operation, "m", {"messages": [], **body})
    made: dict[str, Any] = json.loads(LLAMA.build(request, {}).body)
    return made


def test_a_named_tool_is_the_only_one_it_gets() -> None:
    named = {"type": "function", "function": {"name": "g"}}
    made = sent({"tools": TOOLS, "tool_choice": named})
    assert (made["tools"], made["tool_choice"]) == ([TOOLS[1]], "required")
    for choice in ("auto", "none", "required"):
        made = sent({"tools": TOOLS, "tool_choice": choice})
        assert (made["tools"], made["tool_choice"]) == (TOOLS, choice)


@pytest.mark.parametrize(
    "asked",
    [
        {"tool_choice": {"type": "function", "function": {"name": "x"}}, "tools": TOOLS},
        {"tool_choice": {"type": "function", "function": {"name": "f"}}},
        {"tool_choice": {"type": "allowed_tools"}, "tools": TOOLS},
        {"tool_choice": {"function": {"name": None}}, "tools": [{"type": "web_search"}, 3]},
    ],
)
def test_a_tool_that_is_not_there(asked: dict[str, Any]) -> None:
    with pytest.raises(errors.BadRequest) as caught:
        sent(asked)
    assert caught.value.param == "tool_choice"


@pytest.mark.parametrize(
    "asked",
    [{"response_format": {"type": "json_object"}}, {"suffix": "x"}, {"echo": True}, {"best_of": 2}],
)
def test_what_its_completions_cannot(asked: dict[str, Any]) -> None:
    with pytest.raises(errors.UnsupportedParameter) as caught:
        sent(asked, Operation.COMPLETIONS)
    assert caught.value.param == next(iter(asked))
    assert "echo" not in sent({"echo": False, "suffix": ""}, Operation.COMPLETIONS)


def test_its_own_samplers_and_grammars_pass() -> None:
    asked = {
        "grammar": "root ::= x",
        "mirostat": 2,
        "samplers": ["top_k"],
        "cache_prompt": True,
        "n_predict": 3,
    }
    assert {name: sent(asked)[name] for name in asked} == asked


@pytest.mark.parametrize(
    ("entry", "window", "vision"),
    [
        ({"meta": {"n_ctx": 4096, "n_ctx_train": 131072}}, 4096, None),
        ({"meta": {"n_ctx_train": 131072}}, 131072, None),
        ({"meta": {"n_ctx": 0, "n_ctx_train": 512}}, 512, None),
        ({"meta": None}, None, None),
        ({"meta": {"n_ctx": True}}, None, None),
        ({"status": {"value": "unloaded"}}, None, None),
        ({"architecture": {"input_modalities": ["text"]}}, None, False),
        ({"architecture": {"input_modalities": ["text", "image"]}}, None, True),
        ({"architecture": []}, None, None),
    ],
)
def test_models(entry: dict[str, Any], window: int | None, vision: bool | None) -> None:
    body = json.dumps({"object": "list", "data": [{"id": "../models/a b.gguf", **entry}]}).encode()
    ((name, card),) = LLAMA.parse_models(body).items()
    assert (name, card.context_window, card.vision) == ("../models/a b.gguf", window, vision)


@pytest.mark.parametrize(
    ("slots", "load"),
    [
        ([{"id": 0, "is_processing": True}, {"id": 1, "is_processing": False}], Load(running=1, slots=2)),
        ([{"id": 0, "is_processing": False}], Load(running=0, slots=1)),
        ([{"id": 0}, {"id": 1, "is_processing": True}], Load()),
        ([], Load()),
        ({"error": {"code": 501}}, Load()),
        (None, Load()),
    ],
)
def test_load(slots: Any, load: Load) -> None:
    assert LLAMA.parse_load(json.dumps(slots).encode()) == load


@given(st.binary(max_size=60))
def test_any_slots_are_read(body: bytes) -> None:
    assert isinstance(LLAMA.parse_load(body), Load)


def test_how_load_is_asked_for() -> None:
    asked = LLAMA.load_request({})
    assert asked is not None
    assert (asked.method, asked.path) == ("GET", "/slots")
    assert LLAMA.load_request({"load": False}) is None


@pytest.mark.parametrize(
    ("status", "kind", "message", "expected"),
    [
        (400, "invalid_request_error", "model 'nope' not found", errors.ModelNotFound),
        (400, "invalid_request_error", "model is not loaded", errors.ModelNotFound),
        (404, "not_found_error", "model is not found", errors.ModelNotFound),
        (404, "not_found_error", "File Not Found", errors.BadRequest),
        (400, "exceed_context_size_error", "the request exceeds the context size", errors.ContextTooLong),
        (400, "invalid_request_error", "Expected 'messages' to be an array", errors.BadRequest),
        (400, "invalid_request_error", "no model parameter found in the tool", errors.BadRequest),
        (501, "not_supported_error", "This server does not support chat", errors.UnsupportedParameter),
        (500, "server_error", "image input is not supported - hint: mmproj", errors.UnsupportedParameter),
        (500, "server_error", "tools param requires --jinja flag", errors.UnsupportedParameter),
        (500, "server_error", "Unsupported param: suffix", errors.UnsupportedParameter),
        (500, "server_error", "Failed to parse messages: Missing tool call type: {}", errors.BadRequest),
        (500, "server_error", "Failed to parse tools: Unsupported tool type: {}", errors.BadRequest),
        (500, "server_error", "Failed to parse tool call arguments as JSON: [json.e", errors.BadRequest),
        (
            500,
            "server_error",
            "the current context does not support logits computation. skipping",
            errors.UnsupportedParameter,
        ),
        (500, "server_error", "Failed to load", errors.BackendError),
        (503, "unavailable_error", "Loading model", errors.BackendOverloaded),
        (401, "authentication_error", "Invalid API Key", errors.BackendCredentials),
    ],
)
def test_errors(status: int, kind: str, message: str, expected: type[errors.K9Error]) -> None:
    body = {"error": {"code": status, "message": message, "type": kind}}
    error = LLAMA.error(status, {}, json.dumps(body).encode())
    assert type(error) is expected
    assert error.message


def test_answers_with_timings() -> None:
    request = InferenceRequest(Operation.CHAT, "m", {"messages": []})
    message = {"role": "assistant", "content": "a", "reasoning_content": "hm"}
    raw = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "timings": {"x": 1}}
    body = LLAMA.parse(request, json.dumps(raw).encode()).body
    assert body is not None
    assert body["choices"][0]["message"] == {
        "role": "assistant",
        "content": "a",
        "refusal": None,
        "reasoning": "hm",
    }
