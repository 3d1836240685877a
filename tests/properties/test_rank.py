"""Ranking, over arbitrary fleets."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from k9_broker.backends import Kind
from k9_broker.requests import InferenceRequest, Operation, Priority
from k9_broker.snapshot import BackendView, Snapshot, retry_after
from k9_broker.strategy.engine import rank

MODELS = ("a", "b", "c")
views = st.builds(
    BackendView,
    name=st.uuids().map(lambda u: f"n{u.hex[:8]}"),
    kind=st.sampled_from(Kind),
    dialect=st.just("fake"),
    models=st.frozensets(st.sampled_from(MODELS)),
    operations=st.frozensets(st.sampled_from(Operation)),
    order=st.integers(0, 9),
    slots=st.integers(0, 64),
    max_waiting=st.fixed_dictionaries({priority: st.integers(0, 100) for priority in Priority}),
    workers=st.integers(0, 3),
    waiting=st.fixed_dictionaries({priority: st.integers(0, 1000) for priority in Priority}),
    in_flight=st.integers(0, 100),
    service_seconds=st.floats(0, 1e4),
)
snapshots = st.lists(views, max_size=8, unique_by=lambda view: view.name).map(lambda v: Snapshot(tuple(v)))
requests = st.builds(
    InferenceRequest,
    operation=st.sampled_from(Operation),
    model=st.sampled_from(MODELS),
    body=st.just({}),
    priority=st.sampled_from(Priority),
)


@given(requests, snapshots)
def test_each_backend_is_a_candidate_or_has_a_reason(request: InferenceRequest, snapshot: Snapshot) -> None:
    decision = rank(request, snapshot)
    named = [one.backend for one in (*decision.candidates, *decision.removals)]
    assert sorted(named) == sorted(view.name for view in snapshot.backends)
    assert all(one.reason for one in (*decision.candidates, *decision.removals))


@given(requests, snapshots)
def test_candidates_are_alive_able_and_in_order(request: InferenceRequest, snapshot: Snapshot) -> None:
    by_name = {view.name: view for view in snapshot.backends}
    decision = rank(request, snapshot)
    for candidate in decision.candidates:
        view = by_name[candidate.backend]
        assert view.workers
        assert request.model in view.models
        assert request.operation in view.operations
        assert candidate.queue == f"k9.{view.kind}.{view.name}.{request.priority}"
    order = [view.name for view in snapshot.backends]
    places = [order.index(candidate.backend) for candidate in decision.candidates]
    assert places == sorted(places)


@given(requests, snapshots)
def test_the_same_inputs_give_the_same_decision(request: InferenceRequest, snapshot: Snapshot) -> None:
    assert rank(request, snapshot) == rank(request, snapshot)


@given(views, st.sampled_from(Priority))
def test_an_estimated_wait_can_be_told_to_a_caller(view: BackendView, priority: Priority) -> None:
    assert 1 <= retry_after(view.estimated_wait(priority)) <= 60
