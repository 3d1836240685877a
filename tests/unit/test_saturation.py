"""How long a queue makes one wait, and when it is too full."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k9_broker.saturation import RESUME, past, share, wait_behind


@pytest.mark.parametrize(
    ("ahead", "in_flight", "slots", "seconds", "middle"),
    [
        (0, 0, 4, 2.0, 0.0),
        (0, 3, 4, 2.0, 0.0),
        (0, 4, 4, 2.0, 0.5),
        (3, 4, 4, 2.0, 2.0),
        (3, 0, 4, 2.0, 0.0),
        (4, 0, 4, 2.0, 0.5),
        (7, 4, 4, 2.0, 4.0),
        (0, 1, 1, 30.0, 30.0),
        (2, 9, 4, 2.0, 1.5),  # more in flight than slots, for a moment
    ],
)
def test_a_wait_is_the_ends_it_takes(
    ahead: int, in_flight: int, slots: int, seconds: float, middle: float
) -> None:
    found = wait_behind(ahead, in_flight, slots, seconds)
    assert found == (middle, middle)


def test_nine_of_ten_wait_longer_than_the_half_and_less_so_the_longer_the_queue() -> None:
    waits = [wait_behind(ahead, 4, 4, 1.0, 1.0) for ahead in (0, 3, 15, 63, 255)]
    assert all(one.p90 > one.p50 for one in waits)
    assert all(a.p90 / a.p50 > b.p90 / b.p50 for a, b in pairwise(waits))
    assert waits[-1].p90 == pytest.approx(64 * (1 + 1.2816 / 16), rel=1e-6)


@given(st.floats(0.1, 100), st.lists(st.floats(0, 200), max_size=50))
def test_a_mark_is_passed_at_it_and_left_well_below(mark: float, values: list[float]) -> None:
    is_past = False
    for value in values:
        is_past = past(mark, value, before=is_past)
        assert is_past or value < mark
        assert not is_past or value >= RESUME * mark


def test_without_a_mark_none_is_passed() -> None:
    assert not past(None, 1e9, before=True)


@given(st.integers(1, 500), st.integers(1, 8))
def test_there_is_always_a_place_for_one_more_tenant(mark: int, tenants: int) -> None:
    """However greedy those are that came before, as long as the queue is long enough for so many."""
    held = [0] * tenants
    for who in range(tenants):
        while sum(held) < mark and held[who] < share(mark, sum(held)):
            held[who] += 1
    assert sum(held) <= mark
    if mark >= 4**tenants:
        assert all(held)
        assert sum(held) < mark
