"""What holds in every simulated world: each request ends once, slots and order are kept, privacy too."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from k9_broker.policy import Policy, TenantPolicy
from k9_broker.requests import Kind, Priority
from k9_broker.simulation.calls import Call, End
from k9_broker.simulation.policies import PolicyName
from k9_broker.simulation.report import Report
from k9_broker.simulation.scenario import Machine, Scenario, Traffic
from k9_broker.simulation.world import World


def watched(scenario: Scenario) -> tuple[Report, list[Call]]:
    calls: list[Call] = []
    return World(scenario, calls.append).run().report(), calls


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    """Small fleets under any load, with everything that can end a request otherwise than well."""
    few = st.integers(0, 4)
    backends = {
        f"b{number}": Machine(
            slots=draw(st.integers(1, 4)), per_token=draw(st.sampled_from((0.0, 0.0005, 0.003))),
            first=draw(st.sampled_from((0.0, 0.05))), instances=draw(st.integers(1, 2)),
            kind=draw(st.sampled_from(Kind)), jitter=0.3, batching=0.5,
            input_usd=draw(st.sampled_from((0.0, 1.0))), output_usd=2.0, max_waiting=draw(few),
            max_waiting_batch=draw(st.integers(1, 9)), overflow_at=draw(st.none() | few),
            overflow_wait=draw(st.sampled_from((None, 0.2, 5.0))), reserved_slots=draw(st.none() | few),
        )
        for number in range(draw(st.integers(1, 3)))
    }  # fmt: skip
    traffic = {
        f"t{number}": Traffic(
            arrivals="poisson", rate=draw(st.sampled_from((1.0, 6.0))), seconds=20,
            lengths="exponential", output_tokens=400,
            tenant=draw(st.sampled_from("ab")), priority=draw(st.sampled_from(Priority)),
            deadline=draw(st.sampled_from((None, 0.3, 2.0, 8.0))), patient=draw(st.booleans()),
            privacy=draw(st.sampled_from(("any", "local-only"))), tells_output=draw(st.booleans()),
        )
        for number in range(draw(st.integers(1, 3)))
    }  # fmt: skip
    if draw(st.booleans()):
        traffic["lines"] = Traffic(
            arrivals="feeder", requests=40, window=draw(st.integers(1, 20)), priority=Priority.BATCH,
            tenant="a", output_tokens=300, begins=3.0,
        )  # fmt: skip
    tenants = {
        "a": TenantPolicy(
            weight=draw(st.sampled_from((0.5, 1, 4))), max_in_flight=draw(st.none() | st.integers(1, 3)),
            budget_usd_per_day=draw(st.sampled_from((None, 0.001, 1.0))),
        )
    }  # fmt: skip
    strategy = draw(st.sampled_from(("cost-first", "task-type", "latency-first")))
    return Scenario(
        seed=draw(st.integers(0, 99)), policy=draw(st.sampled_from(PolicyName)), backends=backends,
        traffic=traffic, routing=Policy(strategy=strategy, tenants=tenants, shared=draw(st.booleans())),
        own_queue=draw(few),
    )  # fmt: skip


def over_commits(scenario: Scenario, calls: list[Call]) -> list[str]:
    """Servers with more calls at once than slots."""
    changes = defaultdict[str, list[tuple[float, int]]](list)
    for call in calls:
        if call.began is not None:
            ended = min(call.free_at, call.deadline_at)
            changes[call.backend] += [(call.began, 1), (ended, -1)]
    found = []
    for name, steps in changes.items():
        whole = scenario.backends.get(name)
        slots = whole.capacity if whole else scenario.backends[name.rpartition("-")[0]].slots
        running = 0
        for _, step in sorted(steps):
            running += step
            if running > slots:
                found.append(name)
    return found


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(scenarios())
def test_every_request_ends_once_within_the_slots_there_are(scenario: Scenario) -> None:
    report, calls = watched(scenario)
    total = report.total
    assert len(set(map(id, calls))) == len(calls) == total.requests
    assert total.served + total.refused + total.expired == total.requests
    assert total.requests == sum(row.requests for row in report.traffic)
    assert not over_commits(scenario, calls)
    for call in calls:
        if call.end is End.SERVED:
            assert call.began is not None
            assert call.arrived <= call.began <= call.free_at <= call.deadline_at
    lines = [one for one in calls if one.traffic == "lines"]
    if "lines" in scenario.traffic and scenario.policy is PolicyName.K9:
        assert len(lines) == 40


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(scenarios())
def test_what_must_stay_here_stays(scenario: Scenario) -> None:
    if scenario.policy is PolicyName.FALLBACK:
        return
    _, calls = watched(scenario)
    for call in calls:
        if call.began is not None and scenario.backends[call.backend].kind is Kind.CLOUD:
            assert scenario.traffic[call.traffic].privacy == "any"


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(scenarios())
def test_a_tenant_has_its_jobs_in_order(scenario: Scenario) -> None:
    """Within a queue, but for those that came late to it from another."""
    _, calls = watched(scenario)
    last: dict[tuple[str, str, Priority], float] = {}
    for call in sorted((one for one in calls if one.began is not None), key=lambda one: one.place):
        if call.reason == "overflow:late" or scenario.policy is PolicyName.FALLBACK:
            continue
        where = call.backend, call.tenant, call.request.priority
        assert call.began is not None
        assert call.began >= last.get(where, 0.0)
        last[where] = call.began
