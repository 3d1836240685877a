"""Whom admission takes, as a table: room, waits, deadlines, classes; and who, when all are past a mark."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from k9_broker.requests import InferenceRequest, Kind, Priority, Privacy
from k9_broker.saturation import Gauge
from k9_broker.strategy.admission import FULL, LATE, NO_MONEY, SLOW, WAITS, Admission, choose
from k9_broker.strategy.decision import Candidate
from walks import candidate, chat, decided

EMPTY = Gauge(0, 0, 0, 0, saturated=False)


def place(name: str, kind: Kind = Kind.LOCAL, **more: Any) -> Candidate:
    return candidate(name, kind, **{"slots": 1, "service_seconds": 2.0, "overflow_wait": 10.0, **more})


HERE, THERE, AWAY = place("here"), place("there"), place("away", Kind.CLOUD, slots=8, cost=5)


def waits(count: int, *, own: int | None = None, ahead: int | None = None, saturated: bool = False) -> Gauge:
    """A queue of so many, with its one slot taken."""
    mine, before = (count if one is None else one for one in (own, ahead))
    return Gauge(count, before, mine, 1, saturated)


def asked(**changes: Any) -> InferenceRequest:
    return replace(chat(), **changes)


BATCH = {"priority": Priority.BATCH}


def taken(request: InferenceRequest, *places: tuple[Candidate, Gauge], **decision: Any) -> Admission:
    gauges = {one.queue: gauge for one, gauge in places}
    return choose(decided(*(one for one, _ in places), **decision), request, gauges)


@pytest.mark.parametrize(
    ("request_", "places", "goes_to", "reason"),
    [
        (asked(), [(HERE, waits(3)), (AWAY, EMPTY)], "here", HERE.reason),
        (asked(), [(HERE, waits(4)), (AWAY, EMPTY)], "away", SLOW),
        (asked(), [(HERE, waits(3, saturated=True)), (AWAY, EMPTY)], "away", SLOW),  # hysteresis
        (asked(), [(HERE, waits(2, saturated=True)), (AWAY, EMPTY)], "here", HERE.reason),
        (asked(), [(HERE, waits(9, ahead=1, own=0)), (AWAY, EMPTY)], "here", HERE.reason),  # its turn is soon
        (asked(), [(HERE, waits(4)), (THERE, waits(3))], "there", SLOW),
        (asked(), [(HERE, waits(9)), (THERE, waits(7)), (AWAY, waits(99))], "there", SLOW),  # least bad
        (asked(), [(HERE, waits(7)), (THERE, waits(9)), (AWAY, waits(99))], "here", HERE.reason),
        (asked(), [(HERE, waits(100))], None, FULL),
        (asked(), [(place("here", overflow_at=2), waits(2)), (AWAY, EMPTY)], "away", FULL),
        (asked(), [(place("here", overflow_at=2), waits(2))], "here", HERE.reason),
        (asked(deadline=6.0), [(HERE, waits(2)), (AWAY, EMPTY)], "here", HERE.reason),
        (asked(deadline=5.9), [(HERE, waits(2)), (AWAY, EMPTY)], "away", LATE),
        (asked(deadline=6.0), [(place("here", seconds=0.1), waits(2)), (AWAY, EMPTY)], "away", LATE),
        (asked(deadline=5.9), [(HERE, waits(2))], None, LATE),
        (asked(deadline=5.9), [(place("here", seconds=9.0), EMPTY), (AWAY, EMPTY)], "away", LATE),
        (asked(deadline=5.9), [(place("here", seconds=9.0), EMPTY)], "here", HERE.reason),  # it can but try
        (asked(deadline=5.9, patient=True), [(HERE, waits(2))], "here", HERE.reason),
        (asked(deadline=5.9, patient=True), [(HERE, waits(100))], None, LATE),
        (asked(deadline=5.9), [(HERE, waits(2)), (THERE, waits(2)), (AWAY, waits(2))], "away", LATE),
        (asked(**BATCH), [(HERE, waits(99)), (AWAY, EMPTY)], "here", HERE.reason),  # it waits rather than pay
        (asked(**BATCH), [(HERE, waits(99)), (THERE, waits(3)), (AWAY, EMPTY)], "there", SLOW),
        (asked(**BATCH), [(HERE, waits(99)), (AWAY, EMPTY), (THERE, waits(90))], "there", SLOW),
        (asked(**BATCH), [(place("here", overflow_at=2), waits(3)), (THERE, EMPTY)], "here", HERE.reason),
        (asked(**BATCH), [(HERE, waits(100)), (AWAY, EMPTY)], None, FULL),  # it waits rather than pay
        (asked(**BATCH), [(HERE, waits(100)), (THERE, waits(0)), (AWAY, EMPTY)], "there", FULL),
        (asked(**BATCH), [(AWAY, EMPTY), (HERE, EMPTY)], "away", AWAY.reason),
        (asked(**BATCH, deadline=60.0), [(HERE, waits(40)), (AWAY, EMPTY)], "away", LATE),
        (asked(**BATCH, deadline=60.0), [(HERE, waits(100)), (AWAY, EMPTY)], "away", LATE),
        (asked(**BATCH, deadline=60.0), [(HERE, waits(40)), (THERE, waits(35))], "there", LATE),
        (asked(), [(place("here", least_wait=12.0), EMPTY), (AWAY, EMPTY)], "away", SLOW),
        (asked(), [(place("here", overflow_wait=0.0), EMPTY), (AWAY, EMPTY)], "here", HERE.reason),  # at once
        (asked(), [(place("here", overflow_at=0), EMPTY), (AWAY, EMPTY)], "here", HERE.reason),
        (asked(), [(place("here", overflow_wait=0.0), waits(0)), (AWAY, EMPTY)], "away", SLOW),
        (asked(), [(place("here", overflow_at=0), waits(0)), (AWAY, EMPTY)], "away", FULL),
    ],
)
def test_who_gets_it(
    request_: InferenceRequest, places: list[tuple[Candidate, Gauge]], goes_to: str | None, reason: str
) -> None:
    found = taken(request_, *places)
    assert (found.candidate and found.candidate.backend, found.reason) == (goes_to, reason)


def test_a_batch_that_would_miss_its_deadline_stays_where_policy_and_money_end() -> None:
    places = [(HERE, waits(40)), (AWAY, EMPTY)]
    request = asked(**BATCH, deadline=60.0)
    for refused, why in (({"budget": 4}, NO_MONEY), ({"privacy": Privacy.LOCAL_ONLY}, "privacy:local-only")):
        found = taken(request, *places, **refused)
        assert found.candidate == HERE
        assert [reason for _, reason in found.passed] == [why]


def test_what_is_passed_over_says_so_and_the_shortest_wait_is_told() -> None:
    found = taken(asked(**BATCH), (HERE, waits(100)), (AWAY, EMPTY), (THERE, waits(100)))
    assert [(one.backend, why) for one, why in found.passed] == [
        ("here", FULL), ("away", WAITS), ("there", FULL)
    ]  # fmt: skip
    assert found.wait == 202.0


def test_several_tenants_leave_each_other_room() -> None:
    crowded = waits(76, own=76)
    assert taken(asked(), (place("here", overflow_wait=None), crowded), shared=True).candidate is None
    assert taken(asked(), (place("here", overflow_wait=None), crowded), shared=False).candidate
    light = waits(76, own=2)
    assert taken(asked(), (place("here", overflow_wait=None), light), shared=True).candidate


def test_patient_callers_shut_nobody_out() -> None:
    """They have the room of a batch; those who would not wait so long have theirs beside them."""
    crowded = Gauge(120, 1, 0, 1, saturated=False, patient=110)
    here = place("here", overflow_wait=None)
    assert taken(asked(), (here, crowded), shared=True).candidate == here
    assert taken(asked(patient=True), (here, crowded)).candidate is None
    assert taken(asked(patient=True), (here._replace(max_waiting=1000), crowded)).candidate is not None
