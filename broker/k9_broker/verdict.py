"""What to do when an attempt fails: a pure rule, the only retry loop's only judge."""

from __future__ import annotations

from dataclasses import dataclass

from k9_broker.errors import K9Error
from k9_broker.requests import Priority

ATTEMPTS = {Priority.INTERACTIVE: 3, Priority.BATCH: 6}
"""Upstream calls one claim may cause. An interactive caller would rather hear of the failure."""
_FIRST_DELAY = {Priority.INTERACTIVE: 0.2, Priority.BATCH: 1.0}
_LONGEST_DELAY = 30.0


@dataclass(frozen=True, slots=True)
class Retry:
    """Call the same backend again after `delay` seconds."""

    delay: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The error is the job's outcome."""


Verdict = Retry | GiveUp


def on_failure(
    error: K9Error, *, priority: Priority, attempt: int, answered: bool, seconds_left: float
) -> Verdict:
    """Judge the failure of call number `attempt` (from 1).

    Never retried: what the caller got wrong, what will not heal (`retryable` is false), a stream
    that has already begun to reach the caller (`answered`), and what cannot be done before the
    deadline. The delay is the error's own `retry_after`, else it doubles from call to call.
    """
    if not error.retryable or answered or attempt >= ATTEMPTS[priority]:
        return GiveUp()
    delay = error.retry_after
    if delay is None:
        delay = min(_FIRST_DELAY[priority] * 2 ** (attempt - 1), _LONGEST_DELAY)
    return Retry(delay) if delay < seconds_left else GiveUp()
