"""Limits of rate in OpenAI's words: headers with Go's durations, and the refusal."""

from __future__ import annotations

from collections.abc import Iterator

from k9_broker.fake.allowance import Breach, Level, Levels
from k9_broker.fake.openai_asks import error
from k9_broker.fake.script import Headers, Reply

_UNITS = {"requests": "requests per min (RPM)", "tokens": "tokens per min (TPM)"}


def go_duration(seconds: float) -> str:
    """As Go writes durations: `120ms`, `1.2s`, `6m0s`, `0s`."""
    milliseconds = round(seconds * 1000)
    if milliseconds < 1000:
        return f"{milliseconds}ms" if milliseconds else "0s"
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes}m{rest / 1000:g}s" if minutes else f"{rest / 1000:g}s"


def levels_told(levels: Levels) -> Headers:
    """`x-ratelimit-{limit,remaining,reset}-{requests,tokens}`."""

    def told(kind: str, level: Level | None) -> Iterator[tuple[str, str]]:
        if level is not None:
            yield f"x-ratelimit-limit-{kind}", str(level.limit)
            yield f"x-ratelimit-remaining-{kind}", str(level.left)
            yield f"x-ratelimit-reset-{kind}", go_duration(level.full_in)

    return (*told("requests", levels.requests), *told("tokens", levels.tokens))


def over_limit(breach: Breach, model: str) -> Reply:
    """The 429 of a request too many."""
    level = breach.levels.requests if breach.kind == "requests" else breach.levels.tokens
    used = breach.limit - (level.left if level else 0)
    message = (
        f"Rate limit reached for {model} in organization org-fake on {_UNITS[breach.kind]}: "
        f"Limit {breach.limit}, Used {used}, Requested {breach.asked}. "
        f"Please try again in {go_duration(breach.wait)}."
    )
    headers = (("retry-after", str(breach.seconds)), ("retry-after-ms", str(breach.milliseconds)))
    return error(429, message, kind=breach.kind, code="rate_limit_exceeded", headers=headers)
