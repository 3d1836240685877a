"""What Anthropic's errors mean, and which of them another way of asking may avoid."""

from __future__ import annotations

import json
from typing import Any

import pytest

from anthropic_events import CHAT, DIALECT
from k9_broker import errors
from k9_broker.requests import InferenceRequest, Operation


def envelope(kind: str, words: str, **more: Any) -> bytes:
    return json.dumps({"type": "error", "error": {"type": kind, "message": words, **more}}).encode()


def test_an_error_inside_a_success() -> None:
    with pytest.raises(errors.BackendOverloaded):
        DIALECT.parse(CHAT, envelope("overloaded_error", "Overloaded"))


INVALID = "invalid_request_error"


@pytest.mark.parametrize(
    ("status", "kind", "words", "expected", "param"),
    [
        (400, INVALID, "messages.0.content: Field required", errors.BadRequest, "messages.0.content"),
        (
            400,
            INVALID,
            "prompt is too long: 208310 tokens > 200000 maximum",
            errors.ContextTooLong,
            None,
        ),
        (
            400,
            INVALID,
            "input length and `max_tokens` exceed context limit: 199000 + 4096 > 200000",
            errors.ContextTooLong,
            None,
        ),
        (
            400,
            INVALID,
            "temperature: Extra inputs are not permitted",
            errors.UnsupportedParameter,
            "temperature",
        ),
        (
            400,
            INVALID,
            "`temperature` is deprecated for this model.",
            errors.UnsupportedParameter,
            "temperature",
        ),
        (
            400,
            INVALID,
            "`temperature` and `top_p` cannot both be specified for this model. Please use only one.",
            errors.UnsupportedParameter,
            "temperature",
        ),
        (
            400,
            INVALID,
            "This model does not support effort level 'xhigh'. Supported levels: high, low.",
            errors.UnsupportedParameter,
            "reasoning_effort",
        ),
        (
            400,
            INVALID,
            "adaptive thinking is not supported on this model",
            errors.UnsupportedParameter,
            "reasoning_effort",
        ),
        (400, INVALID, "stop_sequences: each must hold something", errors.BadRequest, "stop"),
        (400, INVALID, "Your credit balance is too low.", errors.BackendQuotaExceeded, None),
        (
            400,
            INVALID,
            "You have reached your specified API usage limits.",
            errors.BackendQuotaExceeded,
            None,
        ),
        (401, "authentication_error", "invalid x-api-key", errors.BackendCredentials, None),
        (402, "billing_error", "Pay.", errors.BackendQuotaExceeded, None),
        (403, "permission_error", "Not yours.", errors.BackendCredentials, None),
        (404, "not_found_error", "model: claude-sonet", errors.ModelNotFound, "model"),
        (404, "not_found_error", "Not Found", errors.BadRequest, None),
        (409, "conflict_error", "Again.", errors.BackendError, None),
        (413, "request_too_large", "Too large", errors.BodyTooLarge, None),
        (429, "rate_limit_error", "Slow down.", errors.BackendQuotaExceeded, None),
        (500, "api_error", "Internal server error", errors.BackendError, None),
        (504, "timeout_error", "Request timed out", errors.BackendTimeout, None),
        (529, "overloaded_error", "Overloaded", errors.BackendOverloaded, None),
    ],
)
def test_errors(status: int, kind: str, words: str, expected: type, param: str | None) -> None:
    error = DIALECT.error(status, {}, envelope(kind, words))
    assert (type(error), error.param) == (expected, param)


def test_a_rate_limit_is_waited_for_and_a_spending_limit_is_not() -> None:
    limited = envelope("rate_limit_error", "Slow down.")
    spent = envelope("rate_limit_error", "Slow down.", details={"error_code": "spend_limit"})
    monthly = envelope("rate_limit_error", "This would exceed your account's monthly spend limit.")
    wait = {"Retry-After": "21"}
    error = DIALECT.error(429, wait, limited)
    assert (type(error), error.retry_after) == (errors.BackendRateLimited, 21.0)
    assert type(DIALECT.error(429, {"retry-after": "Wed, 21 Oct"}, limited)) is errors.BackendRateLimited
    assert type(DIALECT.error(429, wait, spent)) is errors.BackendQuotaExceeded
    assert type(DIALECT.error(429, wait, monthly)) is errors.BackendQuotaExceeded
    for body in (b"<html>Too many", b"", b'{"error": "slow"}'):  # a gateway's, not the account's
        assert type(DIALECT.error(429, {}, body)) is errors.BackendRateLimited


@pytest.mark.parametrize(
    "body", [b"", b"null", b"\xff", b'{"type":"error"}', b'{"type":"error","error":"x"}']
)
@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 529, 302])
def test_any_body_gives_an_error(status: int, body: bytes) -> None:
    assert isinstance(DIALECT.error(status, {}, body), errors.K9Error)


def effort(**body: Any) -> InferenceRequest:
    return InferenceRequest(Operation.CHAT, "old", {"messages": [], "reasoning_effort": "low", **body})


@pytest.mark.parametrize(
    "words",
    ["adaptive thinking is not supported on this model", "This model does not support the effort parameter."],
)
def test_a_model_without_effort_gets_a_budget_from_then_on(words: str) -> None:
    error = DIALECT.error(400, {}, envelope(INVALID, words))
    options = DIALECT.relax(effort(), error, {"beta": ["b"], "budget_models": ["older"]})
    assert options == {"beta": ["b"], "budget_models": ("older", "old")}
    assert DIALECT.relax(effort(), error, options) is None
    assert DIALECT.relax(effort(thinking={"type": "adaptive"}), error, {}) is None
    assert DIALECT.relax(CHAT, error, {}) is None
    asked = effort(messages=[{"role": "user", "content": "hi"}])
    body = json.loads(DIALECT.build(asked, options).body)
    assert body["thinking"] == {"type": "enabled", "budget_tokens": 2048}
    assert "output_config" not in body


def test_other_refusals_stay() -> None:
    for words in ("This model does not support effort level 'xhigh'.", "messages: wrong"):
        assert DIALECT.relax(effort(), DIALECT.error(400, {}, envelope(INVALID, words)), {}) is None
    assert DIALECT.relax(effort(), errors.BackendError("adaptive thinking"), {}) is None
