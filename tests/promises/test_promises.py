"""The promises of the design, each with a test of its own that is also seen to fail.

A promise is played in scenes. `test_promise_…` plays them all; `test_promise_…_needs` plays one of them
while a mechanism the promise stands on is switched off, and wants its complaint.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from promises.p1_recorded import P1
from promises.p2_once import P2
from promises.p4_bounded import P4
from promises.p5_honest_money import P5
from promises.p8_stopped import P8
from promises.p9_tidy import P9
from promises.stage import House, Promise

PROMISES = (P1, P2, P4, P5, P8, P9)


def each(promise: Promise) -> Callable[[Any], Any]:
    return pytest.mark.parametrize("mechanism", sorted(promise.mechanisms))


async def test_promise_p1_recorded(house: House) -> None:
    await P1.holds(house)


@each(P1)
async def test_promise_p1_needs(mechanism: str, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    await P1.breaks_without(mechanism, house, monkeypatch)


async def test_promise_p2_once(house: House) -> None:
    await P2.holds(house)


@each(P2)
async def test_promise_p2_needs(mechanism: str, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    await P2.breaks_without(mechanism, house, monkeypatch)


async def test_promise_p4_bounded(house: House) -> None:
    await P4.holds(house)


@each(P4)
async def test_promise_p4_needs(mechanism: str, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    await P4.breaks_without(mechanism, house, monkeypatch)


async def test_promise_p5_honest_money(house: House) -> None:
    await P5.holds(house)


@each(P5)
async def test_promise_p5_needs(mechanism: str, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    await P5.breaks_without(mechanism, house, monkeypatch)


async def test_promise_p8_cancelled_means_stopped(house: House) -> None:
    await P8.holds(house)


@each(P8)
async def test_promise_p8_needs(mechanism: str, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    await P8.breaks_without(mechanism, house, monkeypatch)


async def test_promise_p9_tidy(house: House) -> None:
    await P9.holds(house)


@each(P9)
async def test_promise_p9_needs(mechanism: str, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    await P9.breaks_without(mechanism, house, monkeypatch)


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.name)
def test_every_promise_has_its_test_and_its_mechanisms(promise: Promise) -> None:
    number = promise.name.partition("_")[0]
    assert f"test_promise_{promise.name}" in globals()
    assert f"test_promise_{number}_needs" in globals()
    assert len(promise.mechanisms) >= 2


def test_all_six_are_there() -> None:
    numbers = [promise.name.partition("_")[0] for promise in PROMISES]
    assert numbers == ["p1", "p2", "p4", "p5", "p8", "p9"]
