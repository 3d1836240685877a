"""Anthropic's answers, errors, models and limits."""

from __future__ import annotations

import json
from typing import Any

import pytest

from anthropic_events import CHAT
from k9_broker import errors
from k9_broker.dialects.anthropic.dialect import Anthropic
from k9_broker.dialects.registry import dialect_named
from k9_broker.limits import Limit, RateLimits
from k9_broker.models import ModelCard
from k9_broker.requests import Operation

DIALECT = Anthropic()
SIGNED = {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}
REDACTED = {"type": "redacted_thinking", "data": "xyz"}


def message(*content: dict[str, Any], **more: Any) -> bytes:
    usage = {"input_tokens": 8, "output_tokens": 21}
    given = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x", "usage": usage}
    return json.dumps({**given, "content": content, "stop_reason": "end_turn", **more}).encode()


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def choice(body: bytes) -> dict[str, Any]:
    made = DIALECT.parse(CHAT, body).body
    assert made is not None
    (only,) = made["choices"]
    return dict(only)


def test_it_is_known_by_its_name_and_does_chat() -> None:
    assert isinstance(dialect_named("anthropic"), Anthropic)
    assert DIALECT.operations == {Operation.CHAT}


@pytest.mark.parametrize(
    ("key", "headers"),
    [
        (None, {}),
        ("sk-ant-api03-x", {"x-api-key": "sk-ant-api03-x"}),
        ("Bearer sk-ant-api03-x", {"authorization": "Bearer sk-ant-api03-x"}),
        ("sk-ant-oat01-x", {"authorization": "Bearer sk-ant-oat01-x"}),
    ],
)
def test_the_key_goes_in_one_header(key: str | None, headers: dict[str, str]) -> None:
    assert DIALECT.headers(key) == headers


def test_a_plain_answer_in_full() -> None:
    made = DIALECT.parse(CHAT, message(text("Hi "), text("there.")))
    assert made.model == "claude-x"
    assert made.body is not None
    assert made.body["created"] > 1_700_000_000
    assert {**made.body, "created": 0} == {
        "id": "msg_1",
        "object": "chat.completion",
        "created": 0,
        "model": "claude-x",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hi there.", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": made.usage.openai(),
    }
    assert (made.usage.prompt, made.usage.completion) == (8, 21)


def test_thinking_and_parallel_tools() -> None:
    calls = [
        {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"city": "Zürich"}},
        {"type": "tool_use", "id": "toolu_2", "name": "g", "input": {}},
    ]
    made = choice(message(SIGNED, REDACTED, *calls, stop_reason="tool_use"))
    assert made["finish_reason"] == "tool_calls"
    assert made["message"] == {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "reasoning": "Hm.",
        "thinking_blocks": [SIGNED, REDACTED],
        "tool_calls": [
            {
                "id": "toolu_1",
                "type": "function",
                "function": {"name": "f", "arguments": '{"city":"Zürich"}'},
            },
            {"id": "toolu_2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
        ],
    }


@pytest.mark.parametrize(
    ("said", "ending"),
    [
        ({"stop_reason": "end_turn"}, ("stop", None)),
        ({"stop_reason": "stop_sequence", "stop_sequence": "END"}, ("stop", "END")),
        ({"stop_reason": "pause_turn"}, ("stop", None)),
        ({"stop_reason": "max_tokens"}, ("length", None)),
        ({"stop_reason": "model_context_window_exceeded"}, ("length", None)),
        ({"stop_reason": "refusal"}, ("content_filter", None)),
        ({"stop_reason": None}, ("stop", None)),
    ],
)
def test_why_it_stopped(said: dict[str, Any], ending: tuple[str, str | None]) -> None:
    made = choice(message(text("a"), **said))
    assert (made["finish_reason"], made.get("stop_reason")) == ending


def test_a_refusal_says_why() -> None:
    details = {"type": "refusal", "category": "bio", "explanation": "Not that."}
    made = choice(message(stop_reason="refusal", stop_details=details))
    assert made["finish_reason"] == "content_filter"
    assert made["message"] == {"role": "assistant", "content": "", "refusal": "Not that."}


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        (
            {
                "input_tokens": 3,
                "cache_creation_input_tokens": 418,
                "cache_read_input_tokens": 1111,
                "output_tokens": 33,
                "output_tokens_details": {"thinking_tokens": 12},
            },
            (1532, 33, 1111, 12, 418),
        ),
        (
            {"input_tokens": 5, "cache_read_input_tokens": None, "output_tokens": 2},
            (5, 2, 0, 0, 0),
        ),
        ({"input_tokens": "x", "output_tokens": -3, "output_tokens_details": 4}, (0, 0, 0, 0, 0)),
        (None, (0, 0, 0, 0, 0)),
    ],
)
def test_tokens(usage: Any, counts: tuple[int, ...]) -> None:
    made = DIALECT.parse(CHAT, message(text("a"), usage=usage)).usage
    assert (made.prompt, made.completion, made.cached, made.reasoning, made.written) == counts


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"{}", b'{"content": "x"}', b'{"content": [5]}', b'{"choices": []}']
)
def test_what_is_no_answer(body: bytes) -> None:
    with pytest.raises(errors.BackendError, match="URL and dialect"):
        DIALECT.parse(CHAT, body)


def test_models() -> None:
    wire = DIALECT.models_request({"beta": "b"})
    assert (wire.method, wire.path) == ("GET", "/v1/models?limit=1000")
    assert wire.headers == {"anthropic-version": "2023-06-01", "anthropic-beta": "b"}
    can = {"image_input": {"supported": True}, "structured_outputs": {"supported": False}}
    listed = [
        {"type": "model", "id": "a", "max_input_tokens": 200_000, "max_tokens": 64_000, "capabilities": can},
        {"type": "model", "id": "b", "max_input_tokens": 0, "max_tokens": None, "capabilities": None},
        {"type": "model", "id": "gone", "lifecycle": "retired"},
        {"type": "model"},
        5,
    ]
    assert DIALECT.parse_models(json.dumps({"data": listed}).encode()) == {
        "a": ModelCard(context_window=200_000, max_output=64_000, vision=True, json_schema=False),
        "b": ModelCard(),
    }
    with pytest.raises(errors.BackendError):
        DIALECT.parse_models(b"{}")


def told(of: str, limit: Any, remaining: Any, reset: str) -> dict[str, str]:
    given = {"limit": str(limit), "remaining": str(remaining), "reset": reset}
    return {f"Anthropic-RateLimit-{of}-{name}": value for name, value in given.items()}


SOON = "2025-08-21T12:41:20Z"
NOW = 1_755_780_060.0  # 20 seconds before
REQUESTS = told("Requests", 1000, 999, "2025-08-21T14:41:00+02:00")


@pytest.mark.parametrize(
    ("headers", "limits"),
    [
        ({}, None),
        ({"retry-after": "5"}, None),
        (REQUESTS, RateLimits(Limit(1000, 999, 0.0))),
        (
            told("tokens", 96_000, 0, SOON) | told("input-tokens", 80_000, 5, SOON),
            RateLimits(tokens=Limit(96_000, 0, 20.0)),
        ),
        (told("input-tokens", 80_000, 5, SOON), RateLimits(tokens=Limit(80_000, 5, 20.0))),
        (told("tokens", 0, 0, SOON), None),
        (told("tokens", -1, -1, SOON), None),
        (told("tokens", 100, -1, "soon"), RateLimits(tokens=Limit(100))),
        (told("tokens", "many", 1, SOON), None),
    ],
)
def test_limits(headers: dict[str, str], limits: RateLimits | None) -> None:
    assert DIALECT.limits(headers, NOW) == limits
