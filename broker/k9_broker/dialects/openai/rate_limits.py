"""Rate limits in `x-ratelimit-*` headers, as OpenAI and Azure write them and many gateways copy them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from k9_broker.limits import Limit, RateLimits

_PREFIX = "x-ratelimit-"
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ns": 1e-9}
"""Seconds; the two signs for micro look alike."""
_STEP = r"(\d+(?:\.\d*)?|\.\d+)(h|ms|m|s|us|µs|μs|ns)"
_DURATION = re.compile(f"(?:{_STEP})+")
_UNIX_SECONDS = 1e9
"""From here on a number is an instant, not a duration; a thousand times as much is one in milliseconds."""


def read_limits(headers: Mapping[str, str], now: float) -> RateLimits | None:
    """What the headers of one answer say; `None` when they say nothing. `now`: Unix seconds.

    Total. A number that is not positive counts as not told, since Azure has been seen to send -1 and 0
    where it has no limit; that nothing remains is believed only beside a limit.
    """
    found = {
        name[len(_PREFIX) :].lower(): value
        for name, value in headers.items()
        if name[: len(_PREFIX)].lower() == _PREFIX
    }
    if not found:
        return None
    limits = RateLimits(_limit(found, "requests", now), _limit(found, "tokens", now))
    return None if limits == RateLimits() else limits


def _limit(found: Mapping[str, str], what: str, now: float) -> Limit:
    most = _count(found.get(f"limit-{what}"))
    left = _count(found.get(f"remaining-{what}"))
    told = most is not None and most > 0
    return Limit(
        per_minute=most if told else None,
        remaining=left if left is not None and (left > 0 or (told and left == 0)) else None,
        reset_seconds=_seconds(found.get(f"reset-{what}"), now),
    )


def _count(text: str | None) -> int | None:
    """A whole number of at most 18 digits."""
    text = (text or "").strip()
    return int(text) if re.fullmatch(r"-?[0-9]{1,18}", text) else None


def _seconds(text: str | None, now: float) -> float | None:
    """Go's durations (`6m0s`, `120ms`), bare seconds, or an instant in Unix time."""
    text = (text or "").strip()
    if len(text) > 40:
        return None
    if _DURATION.fullmatch(text):
        seconds = sum(float(number) * _UNITS[unit] for number, unit in re.findall(_STEP, text))
    else:
        try:
            seconds = float(text)
        except ValueError:
            return None
        if seconds >= 1000 * _UNIX_SECONDS:
            seconds = seconds / 1000 - now
        elif seconds >= _UNIX_SECONDS:
            seconds -= now
    return seconds if math.isfinite(seconds) and seconds > 0 else None
