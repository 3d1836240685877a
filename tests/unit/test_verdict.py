"""What becomes of a failed attempt: a table."""

from __future__ import annotations

import pytest

from k9_broker.errors import (
    BackendCredentials,
    BackendOverloaded,
    BackendQuotaExceeded,
    BackendRateLimited,
    BackendUnreachable,
    BadRequest,
    ContextTooLong,
    K9Error,
)
from k9_broker.requests import Priority
from k9_broker.verdict import GiveUp, Retry, Verdict, on_failure

NOW, LATER = Priority.INTERACTIVE, Priority.BATCH


@pytest.mark.parametrize(
    ("error", "priority", "attempt", "answered", "seconds_left", "verdict"),
    [
        (BackendUnreachable(), NOW, 1, False, 60, Retry(0.2)),
        (BackendUnreachable(), NOW, 2, False, 60, Retry(0.4)),
        (BackendUnreachable(), NOW, 3, False, 60, GiveUp()),
        (BackendUnreachable(), LATER, 3, False, 60, Retry(4.0)),
        (BackendUnreachable(), LATER, 5, False, 60, Retry(16.0)),
        (BackendUnreachable(), LATER, 6, False, 60, GiveUp()),
        (BackendRateLimited(retry_after=7), NOW, 1, False, 60, Retry(7)),
        (BackendRateLimited(retry_after=7), NOW, 1, False, 6, GiveUp()),
        (BackendOverloaded(), NOW, 1, True, 60, GiveUp()),
        (BackendQuotaExceeded(), NOW, 1, False, 60, GiveUp()),
        (BackendCredentials(), NOW, 1, False, 60, GiveUp()),
        (BadRequest(), LATER, 1, False, 60, GiveUp()),
        (ContextTooLong(), LATER, 1, False, 60, GiveUp()),
        (K9Error(), LATER, 1, False, 60, GiveUp()),
    ],
)
def test_verdict(
    error: K9Error,
    priority: Priority,
    attempt: int,
    answered: bool,
    seconds_left: float,
    verdict: Verdict,
) -> None:
    judged = on_failure(
        error, priority=priority, attempt=attempt, answered=answered, seconds_left=seconds_left
    )
    assert judged == verdict
