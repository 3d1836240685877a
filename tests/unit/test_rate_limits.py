"""Rate limits in headers: OpenAI's Go durations, Azure's bare seconds, and nonsense."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k9_broker.dialects.openai.rate_limits import read_limits
from k9_broker.dialects.registry import dialect_named
from k9_broker.limits import Limit, RateLimits

NOW = 1_790_000_000.0

OPENAI = {
    "content-type": "application/json",
    "x-ratelimit-limit-requests": "500",
    "x-ratelimit-limit-tokens": "200000",
    "x-ratelimit-remaining-requests": "499",
    "x-ratelimit-remaining-tokens": "0",
    "x-ratelimit-reset-requests": "120ms",
    "x-ratelimit-reset-tokens": "6m0s",
}
AZURE = {
    "x-ratelimit-limit-tokens": "10000",
    "x-ratelimit-remaining-tokens": "0",
    "x-ratelimit-remaining-requests": "119",
    "x-ratelimit-reset-tokens": "37",
}


@pytest.mark.parametrize(
    ("headers", "limits"),
    [
        (OPENAI, RateLimits(Limit(500, 499, 0.12), Limit(200000, 0, 360.0))),
        (
            {name.title(): value for name, value in OPENAI.items()},
            RateLimits(Limit(500, 499, 0.12), Limit(200000, 0, 360.0)),
        ),
        (AZURE, RateLimits(Limit(None, 119, None), Limit(10000, 0, 37.0))),
        ({"x-ratelimit-limit-tokens": "-1", "x-ratelimit-remaining-tokens": "0"}, None),
        ({"x-ratelimit-limit-tokens": "0", "x-ratelimit-remaining-tokens": "-1"}, None),
        ({"x-ratelimit-reset-tokens": "0s"}, None),
        ({"x-ratelimit-limit-requests": "1.5"}, None),
        ({"x-ratelimit-limit-requests": " 60 "}, RateLimits(Limit(60))),
        ({"x-ratelimit-limit-requests": "60, 60;w=60"}, None),
        ({"x-ratelimit-reset": "5"}, None),
        ({"retry-after": "5"}, None),
        ({}, None),
    ],
)
def test_headers(headers: dict[str, str], limits: RateLimits | None) -> None:
    assert read_limits(headers, NOW) == limits
    for dialect in ("openai", "azure", "openai-compatible", "vllm"):
        assert dialect_named(dialect).limits(headers, NOW) == limits


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2ms", 0.002),
        ("120ms", 0.12),
        ("1s", 1.0),
        ("6m0s", 360.0),
        ("1h2m3.5s", 3723.5),
        ("2m59.56s", 179.56),
        ("250µs", 0.00025),
        ("250us", 0.00025),
        ("0s", None),
        ("37", 37.0),
        ("0", None),
        ("-3", None),
        ("-1s", None),
        ("nan", None),
        ("inf", None),
        ("", None),
        ("soon", None),
        ("1d", None),
        ("1s2", None),
        ("1790000012", 12.0),
        ("1790000012500", 12.5),
        ("1789999999", None),
        ("9" * 60 + "s", None),
    ],
)
def test_resets(text: str, seconds: float | None) -> None:
    found = read_limits({"x-ratelimit-limit-tokens": "1", "x-ratelimit-reset-tokens": text}, NOW)
    assert found is not None
    assert found.tokens.reset_seconds == (None if seconds is None else pytest.approx(seconds))


@given(
    st.dictionaries(
        st.sampled_from([*OPENAI, "x-ratelimit-", "X-RATELIMIT-LIMIT-TOKENS"]), st.text(max_size=50)
    )
)
def test_any_headers_are_read(headers: dict[str, str]) -> None:
    found = read_limits(headers, NOW)
    for limit in (found.requests, found.tokens) if found else ():
        assert limit.per_minute is None or limit.per_minute > 0
        assert limit.remaining is None or limit.remaining >= 0
        assert limit.reset_seconds is None or limit.reset_seconds > 0
