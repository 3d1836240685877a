"""Storms over a whole K-9 under steady load: nothing accepted is lost, recorded twice, or paid for twice.

A few seconds of each among the other tests; `make chaos` lets each rage for longer, and prints the table:

    K9_CHAOS_SECONDS=60 pytest tests/chaos/test_storms.py -s
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from itertools import cycle

import pytest

from chaos.storm_clients import Clients
from chaos.storm_stack import MODEL, Stormy
from chaos.storm_table import LOST_SPAN, STORMS, Storm, Weather
from chaos.storm_tally import Tally, count, excused, missing, paid_again, table, untidy, wait_for_quiet
from stack import ask
from stand import wait_until

SECONDS = float(os.environ.get("K9_CHAOS_SECONDS", "2.5"))
SEED = int(os.environ.get("K9_CHAOS_SEED", "0")) or random.randrange(1, 10**6)
SOON = 30.0
"""Seconds until all is well again: a lease, a sweep, a circuit that is tried again, on a busy machine."""


class Place:
    """Where the storms fall: one stack for all, until one breaks it."""

    def __init__(self, folders: pytest.TempPathFactory) -> None:
        self._folders = folders
        self._stack: Stormy | None = None

    def stack(self) -> Stormy:
        if self._stack is None:
            self._stack = Stormy.raised(self._folders.mktemp("storm"))
        return self._stack

    def leave(self) -> None:
        if self._stack is not None:
            self._stack.stop()
            self._stack = None


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    found = Place(tmp_path_factory)
    yield found
    found.leave()


@pytest.fixture(scope="module")
def rows() -> Iterator[list[Tally]]:
    rows: list[Tally] = []
    yield rows
    print(f"\n{SECONDS:g} s of each storm, K9_CHAOS_SEED={SEED}\n\n{table(rows)}")


@pytest.mark.timeout(SECONDS * 2 + 240)
@pytest.mark.parametrize("storm", STORMS, ids=[storm.name.replace(" ", "-") for storm in STORMS])
def test_storm(place: Place, rows: list[Tally], storm: Storm) -> None:
    stack = place.stack()
    try:
        stack.as_usual(disguised=storm.disguises)
        weather(stack, storm, rows)
    except BaseException:
        place.leave()
        raise


def weather(stack: Stormy, storm: Storm, rows: list[Tally]) -> None:
    with Clients(stack.urls) as clients:
        wait_until(lambda: sum(one.fate == "answered" for one in clients.tries) >= 5, "all is well")
        storm.disturb(Weather(stack, SECONDS, random.Random(SEED)))
        recovery = seconds_until_answered(stack)
    wait_for_quiet(stack)
    tally = count(storm.name, stack, clients, recovery)
    rows.append(tally)
    assert clients.wrong == []
    assert stack.done, "the storm did nothing"
    assert tally.answered >= 10
    assert [one for one in clients.tries if not one.fate] == [], "somebody waits still"
    assert [one for one in missing(clients) if one.job not in stack.forgotten] == []
    assert storm.forgets or tally.lost_by_redis == 0
    assert [one for one in missing(clients) if not just_before(stack.power_cuts, one.accepted)] == []
    assert tally.recorded_twice == 0
    assert [pair for pair in paid_again(stack.gates.calls) if not excused(pair, stack.excuses)] == []
    assert storm.repeats or tally.paid_twice == 0
    told = [one for one in clients.tries if one.fate == "told"]
    assert storm.tells or told == []
    assert [one for one in told if one.kind == "job"] == [], "a job that nobody waits for has no excuse"
    assert {one.why for one in clients.tries if one.fate == "cut"} <= set(storm.breaks)
    assert stack.fell == []
    assert set(untidy(stack)) <= set(storm.leaves)


def just_before(cuts: list[float], accepted: float | None) -> bool:
    """Whether something was accepted within the span that `everysec` may lose, with a second of grace."""
    return accepted is not None and any(cut - LOST_SPAN - 1 < accepted < cut + 1 for cut in cuts)


def seconds_until_answered(stack: Stormy) -> float:
    """From now until a job that is accepted after now has been answered."""
    began = time.monotonic()
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Is it over?"}]}
    urls = cycle(stack.urls)
    wait_until(
        lambda: ask(f"{next(urls)}/v1/chat/completions", body)[0] == 200, "a job is answered again", SOON
    )
    return time.monotonic() - began
