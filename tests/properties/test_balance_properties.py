"""What holds of every choice between instances."""

from __future__ import annotations

import string

from hypothesis import given
from hypothesis import strategies as st

from k9_broker.balance import BOUND, BOUND_SLOTS, InstanceView, choose

VIEWS = st.lists(
    st.builds(
        InstanceView,
        name=st.text(string.ascii_lowercase, min_size=1, max_size=6),
        slots=st.integers(1, 64),
        weight=st.floats(0.1, 10),
        fit=st.booleans(),
        shaken=st.booleans(),
        in_flight=st.integers(0, 80),
        foreign=st.integers(0, 80),
        pace=st.floats(1e-3, 1e3),
        loaded=st.none() | st.booleans(),
        picks=st.floats(0, 64),
    ),
    max_size=6,
    unique_by=lambda view: view.name,
)
KEYS = st.none() | st.text(max_size=8)


@given(VIEWS, KEYS)
def test_only_fit_ones_and_always_one_of_them(views: list[InstanceView], key: str | None) -> None:
    place = choose(views, key)
    assert (place is None) == (not any(view.fit for view in views))
    assert place is None or views[place].fit


@given(VIEWS, KEYS)
def test_a_full_one_only_when_those_that_have_not_failed_are_full(
    views: list[InstanceView], key: str | None
) -> None:
    place = choose(views, key)
    if place is not None and views[place].in_flight >= views[place].slots:
        free = [view for view in views if view.fit and view.in_flight < view.slots]
        assert all(view.shaken for view in free)


@given(VIEWS, KEYS)
def test_one_that_has_failed_only_when_there_is_no_other_with_room(
    views: list[InstanceView], key: str | None
) -> None:
    place = choose(views, key)
    if place is not None and views[place].shaken:
        assert all(view.shaken or view.in_flight > view.slots for view in views if view.fit)


@given(VIEWS, st.text(max_size=8))
def test_affinity_is_bounded(views: list[InstanceView], key: str) -> None:
    views = [view._replace(fit=True, shaken=False, loaded=None, in_flight=0) for view in views]
    place = choose(views, key)
    if place is not None:
        chosen, least = views[place], min(view.busy for view in views)
        size = chosen.slots * chosen.weight
        assert chosen.busy * size <= BOUND * least * size + BOUND_SLOTS + 1e-9 or chosen.busy == least


@given(VIEWS, KEYS, st.randoms())
def test_the_order_of_configuration_matters_to_equals_only(
    views: list[InstanceView], key: str | None, random: object
) -> None:
    views = [view._replace(picks=float(number)) for number, view in enumerate(views)]
    place, other = choose(views, key), choose(views[::-1], key)
    if key is not None and place is not None and other is not None:
        assert views[place] == views[::-1][other]
