"""What becomes of a failed attempt: a table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k9_broker.errors import (
    BackendCredentials,
    BackendOverloaded,
    BackendQuotaExceeded,
    BackendRateLimited,
    BackendUnreachable,
    BadRequest,
    CircuitOpen,
    ContextTooLong,
    K9Error,
    ModelNotFound,
    UnsupportedParameter,
)
from k9_broker.requests import Priority
from k9_broker.verdict import GiveUp, Reroute, Retry, Verdict, on_failure

NOW, LATER = Priority.INTERACTIVE, Priority.BATCH


@pytest.mark.parametrize(
    ("error", "priority", "calls", "answered", "seconds_left", "verdict"),
    [
        (BackendUnreachable(), NOW, 1, False, 60, Retry(0.2)),
        (BackendUnreachable(), NOW, 2, False, 60, Retry(0.4)),
        (BackendUnreachable(), NOW, 3, False, 60, GiveUp()),
        (BackendUnreachable(), LATER, 3, False, 60, Retry(4.0)),
        (BackendUnreachable(), LATER, 5, False, 60, Retry(16.0)),
        (BackendUnreachable(), LATER, 6, False, 60, GiveUp()),
        (BackendRateLimited(retry_after=7), NOW, 1, False, 60, Retry(7)),
        (BackendRateLimited(retry_after=7), NOW, 1, False, 6, GiveUp()),
        (BackendRateLimited(retry_after=11), NOW, 1, False, 60, GiveUp()),
        (BackendRateLimited(retry_after=11), LATER, 1, False, 60, Retry(11)),
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
    calls: int,
    answered: bool,
    seconds_left: float,
    verdict: Verdict,
) -> None:
    judged = on_failure(
        error,
        priority=priority,
        calls=calls,
        most_calls=3 if priority is NOW else 6,
        answered=answered,
        seconds_left=seconds_left,
    )
    assert judged == verdict


@pytest.mark.parametrize(
    ("error", "another", "elsewhere", "verdict"),
    [
        (BackendUnreachable(), True, True, Retry(0.0)),
        (BackendUnreachable(), False, True, Reroute()),
        (BackendOverloaded(retry_after=30), False, True, Reroute()),
        (BackendOverloaded(retry_after=30), False, False, GiveUp()),
        (BackendRateLimited(retry_after=2), False, True, Reroute()),
        (CircuitOpen(retry_after=3), False, True, Reroute()),
        (CircuitOpen(retry_after=3), True, False, Retry(3)),
        (CircuitOpen(retry_after=0), False, False, Retry(0.05)),
        (CircuitOpen(retry_after=30), False, False, GiveUp()),
        (CircuitOpen(), False, False, GiveUp()),
        (CircuitOpen(), False, True, Reroute()),
        (BackendQuotaExceeded(), True, True, Reroute()),
        (BackendCredentials(), True, False, GiveUp()),
        (UnsupportedParameter(), True, True, Reroute()),
        (ModelNotFound(), False, True, Reroute()),
        (ModelNotFound(), False, False, GiveUp()),
        (ContextTooLong(), True, True, GiveUp()),
        (BadRequest(), True, True, GiveUp()),
        (K9Error(), True, True, GiveUp()),
    ],
)
def test_another_instance_comes_first_and_then_another_backend(
    error: K9Error, another: bool, elsewhere: bool, verdict: Verdict
) -> None:
    judged = on_failure(
        error, priority=NOW, calls=1, most_calls=3, answered=False, seconds_left=60,
        another=another, elsewhere=elsewhere,
    )  # fmt: skip
    assert judged == verdict


@given(
    calls=st.integers(0, 9),
    most=st.integers(1, 9),
    another=st.booleans(),
    elsewhere=st.booleans(),
    answered=st.booleans(),
)
def test_no_call_is_made_beyond_the_budget_or_after_a_byte(
    calls: int, most: int, another: bool, elsewhere: bool, answered: bool
) -> None:
    judged = on_failure(
        BackendUnreachable(), priority=NOW, calls=calls, most_calls=most, answered=answered,
        seconds_left=60, another=another, elsewhere=elsewhere,
    )  # fmt: skip
    if answered or calls >= most:
        assert judged == GiveUp()
    elif another or elsewhere:
        assert judged != GiveUp()


@pytest.mark.parametrize(
    ("priority", "waited", "verdict"),
    [(NOW, 0.0, Retry(4)), (NOW, 5.9, Retry(4)), (NOW, 6.0, GiveUp()), (LATER, 3600.0, Retry(4))],
)
def test_an_interactive_caller_waits_only_so_long_in_all(
    priority: Priority, waited: float, verdict: Verdict
) -> None:
    judged = on_failure(
        CircuitOpen(retry_after=4), priority=priority, calls=0, most_calls=3, answered=False,
        seconds_left=600, waited=waited,
    )  # fmt: skip
    assert judged == verdict
