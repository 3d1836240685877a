"""Rate limits of a backend, as its answers tell them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit. `None`: not told. What is not positive counts as not told: some services say -1 or 0."""

    per_minute: int | None = None
    remaining: int | None = None
    """How much of it is left now."""
    reset_seconds: float | None = None
    """Seconds until all of it is there again."""


@dataclass(frozen=True, slots=True)
class RateLimits:
    """What the headers of one answer say."""

    requests: Limit = Limit()
    tokens: Limit = Limit()
