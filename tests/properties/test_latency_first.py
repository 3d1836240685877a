"""`latency-first` over minutes of virtual time: it follows the backends, and does not herd."""

from __future__ import annotations

import pytest

from fleet_simulation import Server, Simulation
from k9_broker.policy import Policy, Strategy

SLOWS, RECOVERS, ENDS = 60.0, 120.0, 180.0
RATE = 30.0


def slow(now: float) -> float:
    return 5.0 if SLOWS <= now < RECOVERS else 1.0


def fleet() -> list[Server]:
    return [Server("a", slots=12, slowness=slow), Server("b", slots=12), Server("c", slots=12)]


@pytest.fixture(scope="module", params=[1, 2, 3])
def seen(request: pytest.FixtureRequest) -> Simulation:
    simulation = Simulation(fleet(), RATE, seed=request.param)
    simulation.run(ENDS)
    return simulation


def test_a_backend_that_slows_down_five_times_is_left_within_seconds(seen: Simulation) -> None:
    assert seen.share("a", SLOWS - 20, SLOWS) > 0.2
    assert seen.share("a", SLOWS + 3, SLOWS + 10) < 0.05


def test_while_it_is_slow_it_is_tried_seldom_and_nobody_else_suffers(seen: Simulation) -> None:
    assert seen.share("a", SLOWS + 3, RECOVERS) < 0.08
    assert seen.mean_wait(SLOWS + 10, RECOVERS) < 1.5 * seen.mean_wait(20, SLOWS)


def test_it_comes_back_when_it_has_recovered(seen: Simulation) -> None:
    assert seen.share("a", RECOVERS + 30, ENDS) > 0.2


def test_equals_share_the_work(seen: Simulation) -> None:
    assert seen.longest_run(20, SLOWS) <= 12
    for name in "abc":
        assert 0.2 < seen.share(name, 20, SLOWS) < 0.47


def test_without_near_equals_it_would_herd() -> None:
    """What the test above would see if the engine always took the fastest of a moment ago."""
    greedy = Policy(strategies=(Strategy(name="latency-first", extends="latency-first", near=0),))
    simulation = Simulation(fleet(), RATE, policy=greedy, own_counted=False)
    simulation.run(SLOWS)
    assert simulation.longest_run(20, SLOWS) > 12
