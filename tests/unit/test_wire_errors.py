"""What a server's error means: every shape, every status, and nothing of the request in its words."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k9_broker import errors
from k9_broker.dialects.registry import DIALECTS, dialect_named
from k9_broker.dialects.wire_errors import discreet, in_band, retry_after
from k9_broker.requests import InferenceRequest, Operation

CASES: list[tuple[str, int, Any, type[errors.K9Error]]] = [
    ("openai object", 400, {"error": {"message": "bad", "type": "x", "param": "top_p"}}, errors.BadRequest),
    (
        "code words",
        400,
        {"error": {"message": "no", "code": "unsupported_parameter"}},
        errors.UnsupportedParameter,
    ),
    ("code is a number", 400, {"error": {"message": "bad", "code": 400}}, errors.BadRequest),
    (
        "context by code",
        400,
        {"error": {"message": "", "code": "context_length_exceeded"}},
        errors.ContextTooLong,
    ),
    ("context by type", 400, {"error": {"type": "exceed_context_size_error"}}, errors.ContextTooLong),
    ("context by param", 400, {"error": {"message": "long", "param": "input_tokens"}}, errors.ContextTooLong),
    (
        "flat context",
        400,
        {"object": "error", "message": "maximum context length is 9"},
        errors.ContextTooLong,
    ),
    ("text, 422", 422, {"error": "`inputs` must have less than 512 tokens"}, errors.ContextTooLong),
    (
        "anthropic",
        400,
        {"type": "error", "error": {"message": "prompt is too long: 9"}},
        errors.ContextTooLong,
    ),
    (
        "content filter",
        400,
        {"error": {"code": "content_filter", "message": "filtered"}},
        errors.ContentFiltered,
    ),
    ("content policy", 400, {"error": {"code": "content_policy_violation"}}, errors.ContentFiltered),
    ("hard limit", 429, {"error": {"code": "billing_hard_limit_reached"}}, errors.BackendQuotaExceeded),
    ("router's model", 400, {"error": {"message": "model 'x' not found", "code": 400}}, errors.ModelNotFound),
    ("no model's tool", 400, {"error": {"message": "tool of this model not found"}}, errors.BadRequest),
    ("model not for this key", 403, {"error": {"code": "model_not_found"}}, errors.ModelNotFound),
    ("model in 400", 400, {"error": {"code": "model_not_found"}}, errors.ModelNotFound),
    ("model in 404", 404, {"error": "model 'x' not found"}, errors.ModelNotFound),
    ("model by param", 404, {"error": {"message": "nope", "param": "model"}}, errors.ModelNotFound),
    ("route", 404, {"detail": "Not Found"}, errors.BadRequest),
    ("method", 405, {"detail": "Method Not Allowed"}, errors.BadRequest),
    (
        "fastapi list",
        422,
        {"detail": [{"loc": ["body", "x"], "msg": "bad", "input": "s"}]},
        errors.BadRequest,
    ),
    ("a list of nonsense", 422, {"detail": [{"loc": True, "msg": None}, 3]}, errors.BadRequest),
    ("no tools", 400, {"error": "gemma does not support tools"}, errors.UnsupportedParameter),
    ("string error", 401, {"error": "Unauthorized"}, errors.BackendCredentials),
    ("empty", 401, b"", errors.BackendCredentials),
    ("forbidden", 403, {"error": {"message": "country"}}, errors.BackendCredentials),
    ("no money", 402, {"error": {"message": "pay"}}, errors.BackendQuotaExceeded),
    ("quota", 429, {"error": {"type": "insufficient_quota"}}, errors.BackendQuotaExceeded),
    ("rate", 429, {"error": {"code": "rate_limit_exceeded"}}, errors.BackendRateLimited),
    ("rate, empty", 429, b"", errors.BackendRateLimited),
    ("tgi busy", 429, {"error": "Model is overloaded", "error_type": "overloaded"}, errors.BackendOverloaded),
    ("tei busy", 429, {"error": "busy", "error_type": "Overloaded"}, errors.BackendOverloaded),
    ("anthropic busy", 529, {"error": {"type": "overloaded_error"}}, errors.BackendOverloaded),
    ("loading", 503, {"error": {"code": 503, "type": "unavailable_error"}}, errors.BackendOverloaded),
    ("busy text", 503, b"busy", errors.BackendOverloaded),
    ("413 text", 413, b"length limit exceeded", errors.BodyTooLarge),
    ("422 text", 422, b"Failed to deserialize", errors.BadRequest),
    ("html", 502, b"<html><h1>502 Bad Gateway</h1></html>", errors.BackendError),
    ("html 404", 404, b"<html>models</html>", errors.BadRequest),
    ("edge", 524, b"", errors.BackendError),
    ("gateway timeout", 504, b"", errors.BackendTimeout),
    ("request timeout", 408, b"", errors.BackendTimeout),
    ("tgi worker", 424, {"error": "CUDA", "error_type": "generation"}, errors.BackendError),
    ("not implemented", 501, {"error": {"message": "no embeddings"}}, errors.UnsupportedParameter),
    ("redirect", 302, b"", errors.BackendError),
    ("list", 400, [{"error": {"message": "bad"}}], errors.BadRequest),
    ("null", 500, b"null", errors.BackendError),
    ("number", 500, b"17", errors.BackendError),
    ("string", 500, b'"boom"', errors.BackendError),
    ("not utf-8", 500, b"\xff\xfe", errors.BackendError),
]


@pytest.mark.parametrize(("status", "body", "kind"), [case[1:] for case in CASES], ids=[c[0] for c in CASES])
@pytest.mark.parametrize("dialect", ["openai-compatible", "ollama"])
def test_class_of_every_shape(dialect: str, status: int, body: Any, kind: type[errors.K9Error]) -> None:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    error = dialect_named(dialect).error(status, {}, raw)
    assert type(error) is kind
    assert error.message
    assert "\n" not in error.message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["error", "message", "type", "code", "param", "detail", "object", "error_type", "loc"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(
    status=st.integers(100, 999),
    body=st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()),
    header=st.text(max_size=8),
)
def test_any_body_gives_an_error(status: int, body: bytes, header: str) -> None:
    for dialect in set(DIALECTS.values()):
        error = dialect.error(status, {"Retry-After": header}, body)
        assert isinstance(error, errors.K9Error)
        assert errors.from_record(json.loads(json.dumps(error.record()))).code == error.code


@settings(max_examples=300, deadline=None)
@given(found=JSON)
def test_any_frame_is_read(found: Any) -> None:
    error = in_band(found)
    assert error is None or isinstance(error, errors.K9Error)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "2"}, 2.0),
        ({"Retry-After": "2.5"}, 2.5),
        ({"retry-after": "2", "retry-after-ms": "1200"}, 1.2),
        ({"retry-after-ms": "soon", "retry-after": "3"}, 3.0),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, None),
        ({}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


@pytest.mark.parametrize(
    ("status", "seconds"), [(429, 3.0), (503, 3.0), (529, 3.0), (500, None), (400, None), (401, None)]
)
def test_only_waiting_statuses_name_a_wait(status: int, seconds: float | None) -> None:
    for body in (b"", b'{"error":{"type":"overloaded_error"}}'):
        assert dialect_named("openai").error(status, {"retry-after": "3"}, body).retry_after == seconds


def test_no_one_is_told_to_wait_for_an_hour() -> None:
    assert dialect_named("openai").error(429, {"retry-after": "3600"}, b"").retry_after == 60.0


@pytest.mark.parametrize(
    ("frame", "kind"),
    [
        ({"error": {"message": "Internal server error", "code": 500}}, errors.BackendError),
        ({"error": {"message": "slow down", "code": 429}}, errors.BackendRateLimited),
        ({"error": {"message": "Model is overloaded", "http_status_code": 422}}, errors.BackendOverloaded),
        ({"error": {"message": "Request failed: CUDA", "http_status_code": 422}}, errors.BackendError),
        (
            {"error": {"message": "Input validation error: x", "http_status_code": 422}},
            errors.BadRequest,
        ),
        ({"error": "an error was encountered while running the model"}, errors.BackendError),
        ({"error": "Model is overloaded", "error_type": "overloaded"}, errors.BackendOverloaded),
        ({"error": {"type": "insufficient_quota", "message": ""}}, errors.BackendQuotaExceeded),
        ({"error": {"type": "invalid_request_error", "message": "bad"}}, errors.BadRequest),
        ({"object": "error", "message": "boom", "code": 500}, errors.BackendError),
        (
            {"error": {"type": "exceed_context_size_error", "message": "", "code": 400}},
            errors.ContextTooLong,
        ),
    ],
)
def test_errors_inside_a_success(frame: dict[str, Any], kind: type[errors.K9Error]) -> None:
    assert type(in_band(frame)) is kind


@pytest.mark.parametrize("frame", [{"choices": []}, {"error": None, "choices": []}, {}, [], None, 3, "x"])
def test_answers_are_no_errors(frame: Any) -> None:
    assert in_band(frame) is None


SECRET = "My patient Ada Lovelace takes 40 mg\nof something"


@pytest.mark.parametrize(
    "words",
    [
        f"Invalid input {json.dumps(SECRET)}",
        "1 validation error: {'loc': 'x', 'msg': 'bad', 'input': '" + SECRET + "'}",
        f"bad prompt: {SECRET[:20]}...",
        f"could not parse {SECRET!r} today",
        "x" * 400 + SECRET,
    ],
)
@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"role": "user", "content": SECRET}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": SECRET}]}]},
        {"prompt": SECRET},
        {"input": ["a", SECRET]},
    ],
)
def test_a_prompt_is_never_repeated(words: str, body: dict[str, Any]) -> None:
    error = dialect_named("openai").error(400, {}, json.dumps({"error": {"message": words}}).encode())
    safe = discreet(error, InferenceRequest(Operation.CHAT, "m", body))
    assert type(safe) is type(error)
    assert "Lovelace" not in safe.message
    assert "My patient" not in safe.message


def test_short_inputs_are_withheld_when_quoted_only() -> None:
    request = InferenceRequest(Operation.EMBEDDINGS, "m", {"input": "top"})
    assert "withheld" in discreet(errors.BadRequest("cannot embed 'top'"), request).message
    kept = errors.BadRequest("top_p must be below 1", param="top_p", retry_after=None)
    assert discreet(kept, request) is kept


@pytest.mark.parametrize("status", [400, 401, 403, 429, 500])
def test_a_key_is_never_repeated(status: int) -> None:
    body = json.dumps({"error": {"message": "Incorrect API key provided: sk-proj-abc*****xyz. See"}}).encode()
    assert "abc" not in dialect_named("openai").error(status, {}, body).message


def test_unknown_dialects_are_named_with_the_known_ones() -> None:
    with pytest.raises(errors.ConfigurationError, match=r"'vlm'.*embedded.*ollama.*vllm"):
        dialect_named("vlm")
