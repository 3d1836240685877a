"""The azure dialect: two surfaces, three ways to write the URL, and answers with empty beginnings."""

from __future__ import annotations

import json
from typing import Any

import pytest

from k9_broker import errors
from k9_broker.dialects.registry import dialect_named
from k9_broker.requests import InferenceRequest, Operation

AZURE = dialect_named("azure")
HOST = "https://res.openai.azure.com"
CHAT = InferenceRequest(Operation.CHAT, "gpt-4o-dep", {"messages": [{"role": "user", "content": "hi"}]})
CLASSIC = f"{HOST}/openai/deployments/gpt-4o-dep/chat/completions?api-version=2024-10-21"
V1 = f"{HOST}/openai/v1/chat/completions"


@pytest.mark.parametrize(
    ("url", "options", "expected"),
    [
        (HOST, {}, CLASSIC),
        (f"{HOST}/", {}, CLASSIC),
        (f"{HOST}/openai", {}, CLASSIC),
        (f"{HOST}/openai/", {"surface": "classic"}, CLASSIC),
        (HOST, {"api_version": "2025-04-01-preview"}, CLASSIC[:-10] + "2025-04-01-preview"),
        (HOST, {"surface": "v1"}, V1),
        (f"{HOST}/openai/v1", {}, V1),
        (f"{HOST}/openai/v1/", {"surface": "v1"}, V1),
        (f"{HOST}/openai", {"surface": "v1"}, V1),
        (f"{HOST}/openai/v1", {"api_version": "preview"}, f"{V1}?api-version=preview"),
        ("https://gate.example/team", {}, CLASSIC.replace(HOST, "https://gate.example/team")),
    ],
)
def test_where_a_chat_goes(url: str, options: dict[str, Any], expected: str) -> None:
    settled = AZURE.settle(url, options)
    wire = AZURE.build(CHAT, settled)
    assert url.rstrip("/") + wire.path == expected
    body = json.loads(wire.body)
    assert body == {"messages": CHAT.body["messages"], "model": "gpt-4o-dep"}  # no option leaks into it
    listing = AZURE.models_request(settled)
    assert (url.rstrip("/") + listing.path).startswith(expected.partition("/openai")[0] + "/openai")
    assert listing.method == "GET"
    assert listing.path.partition("?")[0].endswith("/models")


def test_other_dialects_have_nothing_to_read_in_an_address() -> None:
    for name in ("openai", "vllm", "openai-compatible", "ollama"):
        assert dialect_named(name).settle(f"{HOST}/openai/v1", {"a": 1}) == {"a": 1}


def test_other_operations_and_odd_names() -> None:
    odd = InferenceRequest(Operation.EMBEDDINGS, "a/b c?d", {"input": "x"})
    assert AZURE.build(odd, {}).path == (
        "/openai/deployments/a%2Fb%20c%3Fd/embeddings?api-version=2024-10-21"
    )
    assert AZURE.build(odd, {"surface": "v1"}).path == "/openai/v1/embeddings"
    text = InferenceRequest(Operation.COMPLETIONS, "d", {"prompt": "x"})
    assert AZURE.build(text, {}).path == "/openai/deployments/d/completions?api-version=2024-10-21"


def test_a_surface_there_is_not() -> None:
    with pytest.raises(errors.ConfigurationError, match="classic or v1"):
        AZURE.build(CHAT, {"surface": "v2"})


@pytest.mark.parametrize(
    ("key", "headers"),
    [
        ("0123abcd", {"api-key": "0123abcd"}),
        ("eyJh.eyJz.c2ln", {"authorization": "Bearer eyJh.eyJz.c2ln"}),
        ("Bearer opaque", {"authorization": "Bearer opaque"}),
        (None, {}),
        ("", {}),
    ],
)
def test_keys_and_tokens(key: str | None, headers: dict[str, str]) -> None:
    assert AZURE.headers(key) == headers


def test_fields_of_azure_alone() -> None:
    sources = [{"type": "azure_search"}]
    request = InferenceRequest(Operation.CHAT, "d", {"messages": [], "data_sources": sources})
    assert json.loads(AZURE.build(request, {}).body)["data_sources"] == sources
    with pytest.raises(errors.UnsupportedParameter):
        dialect_named("openai").build(request, {})


def test_base_models_are_not_deployments() -> None:
    assert AZURE.parse_models(b'{"object":"list","data":[{"id":"curie"}]}') == {}
    with pytest.raises(errors.BackendError):
        AZURE.parse_models(b"<html>")


def error(status: int, body: Any) -> errors.K9Error:
    return AZURE.error(status, {}, json.dumps({"error": body}).encode())


def test_errors() -> None:
    missing = error(404, {"code": "DeploymentNotFound", "message": "The API deployment does not exist."})
    assert type(missing) is errors.ModelNotFound
    assert "deployment" in missing.message
    wrong = error(404, {"code": "404", "message": "Resource not found"})
    assert type(wrong) is errors.BadRequest
    assert "api_version" in wrong.message
    filtered = error(
        400,
        {
            "code": "content_filter",
            "type": None,
            "param": "prompt",
            "message": "The response was filtered due to the prompt.",
            "innererror": {"code": "ResponsibleAIPolicyViolation"},
        },
    )
    assert type(filtered) is errors.ContentFiltered
    assert (filtered.code, filtered.status, filtered.retryable) == ("content_filter", 400, False)
    assert "filtered" in filtered.message
    assert type(error(401, {"code": "401", "message": "Access denied"})) is errors.BackendCredentials
    assert type(error(429, {"code": "429", "message": "slow down"})) is errors.BackendRateLimited


# -- answers --------------------------------------------------------------------------------------

FILTER = {"hate": {"filtered": False, "severity": "safe"}}


def replay(*frames: dict[str, Any]) -> list[dict[str, Any]]:
    parser = AZURE.parser(CHAT)
    raw = "".join(f"data: {json.dumps(frame)}\n\n" for frame in frames) + "data: [DONE]\n\n"
    return [dict(chunk) for chunk in [*parser.feed(raw.encode()), *parser.close()]]


def test_an_empty_beginning_and_a_filters_end() -> None:
    head = {"id": "c1", "object": "chat.completion.chunk", "created": 5, "model": "gpt-4o-2024-08-06"}
    nameless = {"id": "", "object": "", "created": 0, "model": ""}
    delta = {"role": "assistant", "content": "Ahoy"}
    noted = {
        "finish_reason": None,
        "index": 0,
        "content_filter_offsets": {"check_offset": 4},
        "content_filter_results": FILTER,
    }
    chunks = replay(
        {**nameless, "choices": [], "prompt_filter_results": [{"prompt_index": 0}]},
        {
            **head,
            "choices": [{"index": 0, "delta": delta, "finish_reason": None, "content_filter_results": {}}],
        },
        {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        {**nameless, "choices": [noted]},
    )
    assert [{name: chunk[name] for name in head} for chunk in chunks] == [head] * 4
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]] == [None, "stop", None]
    assert chunks[2]["choices"][0]["delta"] == {}
    assert chunks[-1]["choices"] == []


def test_an_answer_the_filter_cut() -> None:
    answer = {
        "id": "c",
        "model": "gpt-4o-2024-08-06",
        "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": FILTER}],
        "choices": [
            {
                "index": 0,
                "finish_reason": "content_filter",
                "message": {"role": "assistant"},
                "content_filter_results": FILTER,
            }
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
    }
    result = AZURE.parse(CHAT, json.dumps(answer).encode())
    assert result.body is not None
    assert result.body["choices"][0]["finish_reason"] == "content_filter"
    assert result.body["choices"][0]["message"]["content"] is None
    assert (result.model, result.usage.total) == ("gpt-4o-2024-08-06", 4)
