"""What to do when an attempt fails: a pure rule, the only retry loop's only judge."""

from __future__ import annotations

import math
from dataclasses import dataclass

from k9_broker.errors import (
    BackendCredentials,
    BackendError,
    BackendQuotaExceeded,
    CircuitOpen,
    K9Error,
    ModelNotFound,
    UnsupportedParameter,
)
from k9_broker.requests import Priority

PATIENCE = {Priority.INTERACTIVE: 10.0, Priority.BATCH: math.inf}
"""Seconds a job may wait, in all, for its backend to be called again. An interactive caller would rather
hear of the failure; a batch waits until its deadline."""
_FIRST_DELAY = {Priority.INTERACTIVE: 0.2, Priority.BATCH: 1.0}
_SHORTEST_DELAY, _LONGEST_DELAY = 0.05, 30.0
_UNFIT = (UnsupportedParameter, ModelNotFound, BackendQuotaExceeded, BackendCredentials)
"""What this backend will not do however often it is asked, and another might."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Call the same backend again after `delay` seconds."""

    delay: float


@dataclass(frozen=True, slots=True)
class Reroute:
    """Give the job to the next candidate."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The error is the job's outcome."""


Verdict = Retry | Reroute | GiveUp


def concerns_backend(error: K9Error) -> bool:
    """Whether another backend might do what this one did not."""
    return isinstance(error, _UNFIT) or (isinstance(error, BackendError) and error.retryable)


def is_dead_letter(error: K9Error) -> bool:
    """Whether a job that failed with it may be run again as it is: its caller is not to blame."""
    return concerns_backend(error) or isinstance(error, BackendError) or type(error) is K9Error


def on_failure(
    error: K9Error,
    *,
    priority: Priority,
    calls: int,
    most_calls: int,
    answered: bool,
    seconds_left: float,
    waited: float = 0.0,
    another: bool = False,
    elsewhere: bool = False,
) -> Verdict:
    """Judge a failure after `calls` upstream calls for the job, of `most_calls` it may cause.

    `another`: a further instance of the same backend is fit. `elsewhere`: the job has a candidate
    that has not failed it. Never tried again: what the caller got wrong, a stream that has already
    begun to reach the caller (`answered`), and what cannot be done before the deadline. Else another
    instance is tried at once, then another backend; only where there is neither is the same one called
    again, after the error's own `retry_after` or a delay that doubles from call to call. `waited`: seconds
    of such delays so far.
    """
    if answered or calls >= most_calls or not concerns_backend(error):
        return GiveUp()
    if another and error.retryable and not isinstance(error, CircuitOpen):
        return Retry(0.0)
    if elsewhere:
        return Reroute()
    if not error.retryable or (isinstance(error, CircuitOpen) and error.retry_after is None):
        return GiveUp()  # waiting does not mend it
    delay = error.retry_after
    if delay is None:
        delay = min(_FIRST_DELAY[priority] * 2 ** max(0, calls - 1), _LONGEST_DELAY)
    delay = max(delay, _SHORTEST_DELAY)
    return Retry(delay) if delay < min(seconds_left, PATIENCE[priority] - waited) else GiveUp()
