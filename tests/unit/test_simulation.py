"""A simulated world against what is known of queues: Erlang, fair shares, kept slots; what policies cost."""

from __future__ import annotations

from collections import defaultdict
from itertools import groupby
from math import factorial
from random import Random
from typing import Any

import pytest

from k9_broker.policy import Policy, TenantPolicy
from k9_broker.requests import Kind, Priority
from k9_broker.simulation.calls import Call
from k9_broker.simulation.policies import PolicyName
from k9_broker.simulation.report import Report
from k9_broker.simulation.run import simulate
from k9_broker.simulation.scenario import Machine, Scenario, Traffic
from k9_broker.simulation.world import World

ENDLESS = {"max_waiting": 10**9, "max_waiting_batch": 10**9, "overflow_wait": None}
"""Marks that no queue passes."""


def machine(slots: int = 2, seconds: float = 1.0, **more: Any) -> Machine:
    """Serves an answer of 1,001 tokens in so many seconds."""
    return Machine(slots=slots, first=0.0, per_token=seconds / 1000, **more)


def poisson(rate: float, **more: Any) -> Traffic:
    fields = {"output_tokens": 1000, "prompt_tokens": 100, "seconds": 60, **more}
    return Traffic(arrivals="poisson", rate=rate, **fields)


def watched(scenario: Scenario) -> tuple[Report, list[Call]]:
    calls: list[Call] = []
    return World(scenario, calls.append).run().report(), calls


def erlang_c(servers: int, load: float) -> float:
    """The share of jobs that wait in M/M/c; `load` in Erlang."""
    waits = load**servers / factorial(servers) * servers / (servers - load)
    return waits / (sum(load**k / factorial(k) for k in range(servers)) + waits)


@pytest.mark.parametrize(("slots", "busy"), [(1, 0.6), (4, 0.8), (16, 0.85)])
def test_waits_are_what_erlang_says(slots: int, busy: float) -> None:
    """Exponential times between arrivals and of service, first come, first served."""
    rate = busy * slots
    scenario = Scenario(
        backends={"gpu": machine(slots, **ENDLESS)},
        traffic={"all": poisson(rate, lengths="exponential", seconds=40_000 / rate, deadline=10**6)},
    )
    mean = erlang_c(slots, rate) / (slots - rate)
    found = simulate(scenario).total
    assert found.wait_mean == pytest.approx(mean, rel=0.1)
    assert (found.refused, found.expired) == (0, 0)


@pytest.mark.parametrize("weight", [1.0, 3.0])
def test_backlogged_tenants_share_by_their_weights(weight: float) -> None:
    """One sends seven times as much; what they get differs by no more than the jobs that are under way."""
    slots, ends = 4, 100.0
    scenario = Scenario(
        backends={"gpu": machine(slots, 12.5, **ENDLESS)},
        traffic={
            "heavy": poisson(40, tenant="heavy", seconds=ends, output_tokens=80),
            "light": poisson(6, tenant="light", seconds=ends, output_tokens=80),
        },
        routing=Policy(tenants={"light": TenantPolicy(weight=weight)}, strategy="cost-first"),
    )
    _, calls = watched(scenario)
    for until in (20.0, 50.0, ends):
        done = defaultdict[str, float](float)
        for call in calls:
            if call.began is not None and 5.0 <= call.began < until:
                done[call.tenant] += call.free_at - call.began
        assert done["light"] / weight == pytest.approx(done["heavy"], abs=2 * slots)


def long_lines(**more: Any) -> Traffic:
    fields = {"requests": 600, "window": 200, "output_tokens": 5000, "tenant": "b", **more}
    return Traffic(arrivals="feeder", priority=Priority.BATCH, **fields)


def test_a_batch_leaves_slots_to_interactive_jobs_and_has_them_all_alone() -> None:
    backends = {"gpu": machine(20, **ENDLESS)}
    chat = poisson(2, output_tokens=500, seconds=140)
    alone = simulate(Scenario(backends=backends, traffic={"lines": long_lines()}))
    assert alone.seconds == pytest.approx(600 * 5 / 20, rel=0.02)
    both = simulate(Scenario(backends=backends, traffic={"lines": long_lines(), "chat": chat}))
    waits = {row.traffic: row.wait["p95"] for row in both.traffic}
    assert waits["chat"] < 0.1
    unkept = {"gpu": machine(20, **ENDLESS, reserved_slots=0)}
    greedy = simulate(Scenario(backends=unkept, traffic={"lines": long_lines(), "chat": chat}))
    assert {row.traffic: row.wait["p95"] for row in greedy.traffic}["chat"] > 0.2


def test_a_batch_waits_here_until_its_own_deadline_would_be_missed() -> None:
    backends = {
        "gpu": machine(4, max_waiting_batch=50),
        "cloud": machine(50, kind=Kind.CLOUD, input_usd=1.0, output_usd=1.0),
    }
    at_leisure = long_lines(requests=100, output_tokens=1000)
    report = simulate(Scenario(backends=backends, traffic={"lines": at_leisure}))
    assert (report.total.served, report.total.cloud) == (100, 0.0)
    pressed = at_leisure.model_copy(update={"deadline": 6.0})
    assert simulate(Scenario(backends=backends, traffic={"lines": pressed})).total.cloud > 0.3


def test_a_mark_once_passed_holds_until_the_queue_is_well_below_it() -> None:
    """The longest run of requests that go one way grows when the way back is further than the way in."""
    backends = {
        "gpu": machine(4, max_waiting=100, overflow_at=20, overflow_wait=None),
        "cloud": machine(90, kind=Kind.CLOUD, output_usd=1.0),
    }
    traffic = {"all": poisson(12, seconds=240, lengths="exponential")}
    _, calls = watched(Scenario(backends=backends, traffic=traffic))
    ways = [one.backend for one in sorted(calls, key=lambda one: one.arrived)]
    runs = [len(list(run)) for way, run in groupby(ways) if way == "cloud"]
    # From 20 down below 15 waiting are six ends, one each quarter of a second; three requests come with each.
    assert sum(runs) / len(runs) > 12


def test_late_jobs_move_on() -> None:
    """A stuck queue: nothing came from it while it was judged by how fast it had been."""
    backends = {
        "gpu": machine(4, overflow_wait=3.0),
        "cloud": machine(50, kind=Kind.CLOUD, input_usd=1.0, output_usd=1.0),
    }
    traffic = {
        "quick": poisson(6, seconds=30, output_tokens=500),
        "slow": poisson(2, begins=30, output_tokens=20_000, seconds=40),
    }
    report = simulate(Scenario(backends=backends, traffic=traffic))
    assert report.total.reasons["overflow:late"] > 0
    assert report.total.served == report.total.requests


def test_the_same_scenario_gives_the_same_report() -> None:
    def report(seed: int) -> Report:
        jittery = {"gpu": machine(3, jitter=0.5), "cloud": machine(9, kind=Kind.CLOUD, output_usd=1.0)}
        traffic = {"all": Traffic(rate=4, seconds=200), "more": poisson(1, tenant="b")}
        return simulate(Scenario(seed=seed, backends=jittery, traffic=traffic))

    assert report(1).told() == report(1).told()
    assert report(1).told() != report(2).told()


def test_remembered_decisions_come_to_what_exact_ones_do() -> None:
    backends = {
        "gpu": machine(6, 20.0, per_prompt_token=0.0001, overflow_wait=2.0),
        "cloud": machine(64, 10.0, kind=Kind.CLOUD, input_usd=0.4, output_usd=1.6),
    }
    scenario = Scenario(backends=backends, traffic={"azure": Traffic(rate=3, seconds=1200)})
    quick = simulate(scenario).total
    exact = simulate(scenario.model_copy(update={"exact": True})).total
    assert 0.1 < exact.cloud < 0.9
    assert quick.cloud == pytest.approx(exact.cloud, abs=0.03)
    assert quick.wait_mean == pytest.approx(exact.wait_mean, rel=0.15)
    assert quick.cloud_usd == pytest.approx(exact.cloud_usd, rel=0.1)


@pytest.mark.parametrize("strategy", ["latency-first", "cost-first"])
def test_equal_backends_share_the_load_only_where_the_strategy_looks_at_it(strategy: str) -> None:
    backends = {name: machine(8, overflow_wait=5.0) for name in ("first", "second")}
    routing = Policy(strategy=strategy)
    report = simulate(Scenario(backends=backends, traffic={"all": poisson(5)}, routing=routing))
    assert (report.backends.get("second", 0) > report.total.served / 4) == (strategy == "latency-first")


def test_more_slots_overflow_less_and_the_policies_cost_what_they_say() -> None:
    def run(slots: int = 6, policy: PolicyName = PolicyName.K9) -> Report:
        backends = {
            "gpu": machine(slots, 10.0, usd_per_hour=2.0, overflow_wait=2.0, max_waiting=10_000),
            "cloud": machine(64, 10.0, kind=Kind.CLOUD, output_usd=1.6),
        }
        traffic = {"azure": Traffic(rate=3, seconds=900)}
        return simulate(Scenario(policy=policy, backends=backends, traffic=traffic))

    shares = [run(slots).total.overflowed for slots in (3, 6, 12)]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > shares[2] + 0.1
    local, cloud, ours = run(policy=PolicyName.ALL_LOCAL), run(policy=PolicyName.ALL_CLOUD), run()
    assert (local.total.cloud, cloud.total.cloud) == (0, 1)
    assert cloud.server_usd == local.total.cloud_usd == 0
    assert local.server_usd == pytest.approx(2.0 * local.seconds / 3600)
    assert ours.total.cloud_usd < cloud.total.cloud_usd
    assert ours.total.wait["p95"] < local.total.wait["p95"]
    fallback = run(policy=PolicyName.FALLBACK)
    assert fallback.total.served == fallback.total.requests
    assert set(fallback.backends) == {"gpu-1", "cloud"}


def test_a_cap_holds_and_leaves_the_slots_to_others() -> None:
    scenario = Scenario(
        backends={"gpu": machine(8, **ENDLESS)},
        traffic={"capped": poisson(10, tenant="capped"), "other": poisson(3, tenant="other")},
        routing=Policy(tenants={"capped": TenantPolicy(max_in_flight=2)}),
    )
    _, calls = watched(scenario)
    steps = [
        step
        for call in calls
        if call.tenant == "capped" and call.began is not None
        for step in ((call.began, 1), (min(call.free_at, call.deadline_at), -1))
    ]
    running, most = 0, 0
    for _, step in sorted(steps):
        running += step
        most = max(most, running)
    assert most == 2
    waits = [call.began - call.arrived for call in calls if call.tenant == "other" and call.began is not None]
    assert sum(waits) / len(waits) < 0.5


def test_a_budget_is_not_passed_by_more_than_one_call() -> None:
    backends = {
        "gpu": machine(2, 12.5, overflow_at=1, overflow_wait=None),
        "cloud": machine(50, 12.5, kind=Kind.CLOUD, output_usd=200.0),
    }
    routing = Policy(tenants={"poor": TenantPolicy(budget_usd_per_day=1.0)})
    traffic = {"all": poisson(4, tenant="poor", output_tokens=80)}
    free = simulate(Scenario(backends=backends, traffic=traffic)).total
    held = simulate(Scenario(backends=backends, traffic=traffic, routing=routing)).total
    assert free.cloud_usd > 1.1
    assert 0.9 < held.cloud_usd <= 1.0 + 80 * 200 / 1e6


def test_chance_is_drawn_from_the_seed_alone() -> None:
    """What else draws numbers in the process changes nothing."""
    scenario = Scenario(backends={"gpu": machine(2, jitter=0.4)}, traffic={"all": poisson(1)})
    before = simulate(scenario).told()
    Random(3).random()
    assert simulate(scenario).told() == before
