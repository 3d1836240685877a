"""Which waiting jobs are late, and where it would be worth going."""

from __future__ import annotations

import pytest

from fleets import view
from k9_broker.lateness import is_late, is_worth_it
from k9_broker.requests import Kind, Priority

INTERACTIVE, BATCH = Priority.INTERACTIVE, Priority.BATCH
HERE = view("here", Kind.LOCAL, "m", slots=1, in_flight=1, service_seconds=2.0, overflow_wait=10.0)


@pytest.mark.parametrize(
    ("priority", "ahead", "waited", "left", "late"),
    [
        (INTERACTIVE, 3, 2.0, 600, False),
        (INTERACTIVE, 5, 7.0, 600, False),
        (INTERACTIVE, 5, 9.0, 600, True),  # 9 behind it, 12 before it: more than twice the mark
        (INTERACTIVE, 1, 30.0, 600, False),  # it has waited long, but it is nearly its turn
        (INTERACTIVE, 9, 1.0, 600, True),
        (INTERACTIVE, 3, 0.0, 8.5, True),  # 8 seconds before it, then a second of work
        (INTERACTIVE, 3, 0.0, 9.5, False),
        (BATCH, 900, 500.0, 86400, False),
        (BATCH, 900, 500.0, 1800, True),
    ],
)
def test_who_is_late(priority: Priority, ahead: int, waited: float, left: float, late: bool) -> None:
    assert is_late(HERE, priority, ahead=ahead, waited=waited, busy=1.0, seconds_left=left) is late


def test_without_a_mark_only_the_deadline_counts() -> None:
    here = view("here", Kind.LOCAL, "m", slots=1, in_flight=1, service_seconds=2.0, overflow_wait=None)
    assert not is_late(here, INTERACTIVE, ahead=99, waited=99, busy=1.0, seconds_left=600)
    assert is_late(here, INTERACTIVE, ahead=99, waited=99, busy=1.0, seconds_left=200)


@pytest.mark.parametrize(("waiting", "worth"), [(0, True), (3, True), (5, False)])
def test_a_move_must_halve_the_wait(waiting: int, worth: bool) -> None:
    there = view(
        "there", Kind.CLOUD, "m", slots=1, in_flight=1, service_seconds=2.0, waiting={INTERACTIVE: waiting}
    )
    assert is_worth_it(there, INTERACTIVE, 20.0) is worth
