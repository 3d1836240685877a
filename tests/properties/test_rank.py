"""Decisions, over arbitrary fleets, policies and requests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k9_broker.errors import BadRequest, K9Error
from k9_broker.models import Latency, ModelCard
from k9_broker.policy import CloudModel, Policy, PrivacyPolicy, Strategy, TenantPolicy
from k9_broker.requests import InferenceRequest, Kind, Operation, Priority, Privacy, TaskType
from k9_broker.snapshot import BackendView, Snapshot, retry_after
from k9_broker.strategy import filters
from k9_broker.strategy.admission import choose
from k9_broker.strategy.decision import Decision
from k9_broker.strategy.engine import Router
from k9_broker.strategy.places import models_of
from k9_broker.strategy.refusal import refusal
from walks import gauges

MODELS = ("a", "b", "c")
NAMED = ("task-type", "cost-first", "quality-first", "latency-first", "own")
ALIASES = {"few": ("b", "a"), "one": ("c",), "gone": ("nowhere",)}
EMAIL = "write to jane.doe@northwind-trading.com"
share = st.floats(0, 1)
truth = st.none() | st.booleans()
dollars = st.none() | st.floats(0, 1000)
cards = st.builds(
    ModelCard,
    operations=st.lists(st.sampled_from(Operation), max_size=2).map(tuple),
    context_window=st.none() | st.integers(1, 200),
    max_output=st.none() | st.integers(1, 200),
    tools=truth,
    json_schema=truth,
    streaming=truth,
    vision=truth,
    dimensions=st.lists(st.sampled_from([8, 16]), max_size=2).map(tuple),
    quality=st.none() | share,
    tags=st.lists(st.sampled_from(["small", "large", "code", "embedding"]), max_size=2).map(tuple),
    input_usd=dollars,
    output_usd=dollars,
)
latencies = st.builds(Latency, ttft=st.floats(0, 1e3), tpot=st.floats(0, 10))
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
    cards=st.dictionaries(st.sampled_from(MODELS), cards),
    latencies=st.dictionaries(st.sampled_from(MODELS), latencies),
    slot_usd_per_hour=st.floats(0, 100),
)
snapshots = st.lists(views, max_size=8, unique_by=lambda view: view.name).map(lambda v: Snapshot(tuple(v)))
prompts = st.sampled_from(["hi", "word " * 100, EMAIL, "Prove it, and design a distributed database."])
bodies = st.fixed_dictionaries(
    {},
    optional={
        "messages": prompts.map(lambda text: [{"role": "user", "content": text}]),
        "prompt": prompts,
        "input": prompts | st.lists(prompts, min_size=1, max_size=3),
        "stream": st.booleans(),
        "max_tokens": st.integers(1, 300),
        "tools": st.just([{"type": "function", "function": {"name": "f"}}]),
        "response_format": st.just({"type": "json_schema", "json_schema": {"name": "s", "schema": {}}}),
        "dimensions": st.sampled_from([8, 32]),
    },
)
requests = st.builds(
    InferenceRequest,
    operation=st.sampled_from(Operation),
    model=st.sampled_from([*MODELS, *ALIASES, "auto", "auto:cost", "auto:own", "nowhere"]),
    body=bodies,
    tenant=st.sampled_from(["acme", "default"]),
    priority=st.sampled_from(Priority),
    task_type=st.none() | st.sampled_from([one for one in TaskType if one is not TaskType.EMBEDDINGS]),
    strategy=st.none() | st.sampled_from([*NAMED, "cost"]),
    privacy=st.sampled_from(Privacy),
    kind=st.none() | st.sampled_from(Kind),
)
SCORERS = ("preference", "adequacy", "cost", "quality", "latency", "load")
weights = st.dictionaries(st.sampled_from(SCORERS), st.floats(0.01, 100), min_size=1)
policies = st.builds(
    lambda own, near, privacy, tenant, strong, **more: Policy(
        strategies=(Strategy(name="own", weights=own, near=near),),
        privacy=PrivacyPolicy(default=privacy),
        tenants={"acme": tenant},
        aliases=ALIASES,
        strong_quality=strong,
        **more,
    ),
    weights,
    st.none() | share,
    st.sampled_from(Privacy),
    st.builds(
        TenantPolicy,
        privacy=st.none() | st.sampled_from(Privacy),
        strategy=st.none() | st.sampled_from(NAMED),
        budget_usd_per_day=st.none() | st.floats(0, 10),
    ),
    share,
    strategy=st.sampled_from(NAMED),
    strong_above=share,
    compare_with=st.none() | st.just(CloudModel(model="x", input_usd=1, output_usd=2)),
)
routers = policies.map(Router)


def named(view: BackendView, request: InferenceRequest) -> set[str]:
    """The models of a backend that are what the caller asked for, by name."""
    wanted = MODELS if request.model.startswith("auto") else ALIASES.get(request.model, (request.model,))
    return set(view.models.intersection(wanted))


@given(routers, requests, snapshots)
def test_every_place_is_a_candidate_or_has_a_reason(
    router: Router, request: InferenceRequest, snapshot: Snapshot
) -> None:
    decision = router.decide(request, snapshot)
    told = [(one.backend, one.model) for one in (*decision.candidates, *decision.removals)]
    expected = [(view.name, model) for view in snapshot.backends for model in named(view, request) or {""}]
    assert sorted(told) == sorted(expected)
    assert all(one.reason for one in (*decision.candidates, *decision.removals))


@given(routers, requests, snapshots)
def test_candidates_are_alive_able_and_allowed(
    router: Router, request: InferenceRequest, snapshot: Snapshot
) -> None:
    by_name = {view.name: view for view in snapshot.backends}
    decision = router.decide(request, snapshot)
    for candidate in decision.candidates:
        view = by_name[candidate.backend]
        assert view.workers
        assert candidate.model in named(view, request).intersection(models_of(view, request.operation))
        assert candidate.kind is view.kind
        assert candidate.queue == f"k9.{view.kind}.{view.name}.{request.priority}"
        assert candidate.max_waiting == view.max_waiting[request.priority]
        assert request.kind in (None, candidate.kind)
        assert candidate.cost is None or candidate.cost >= 0
    local_only = request.privacy is Privacy.LOCAL_ONLY or EMAIL in str(request.body)
    if local_only or decision.privacy is Privacy.LOCAL_ONLY:
        assert decision.privacy is Privacy.LOCAL_ONLY
        assert decision.privacy_by
        assert all(candidate.kind is Kind.LOCAL for candidate in decision.candidates)


@given(routers, requests, snapshots)
def test_candidates_stand_in_the_order_of_their_scores(
    router: Router, request: InferenceRequest, snapshot: Snapshot
) -> None:
    decision = router.decide(request, snapshot)
    scores = [candidate.score for candidate in decision.candidates]
    near = router.strategies[decision.strategy].near or 0.0
    for place, score in enumerate(scores):
        assert 0 <= score <= 1
        assert all(0 <= one <= 1 for one in decision.candidates[place].scores.values())
        # Whoever comes later is no better, or a near-equal of the best that was left.
        assert score >= max(scores[place:]) * (1 - near) - 1e-12
    if not near:
        order = [view.name for view in snapshot.backends]
        places = [
            (-one.score, order.index(one.backend), one.cost is None, one.cost or 0, one.model)
            for one in decision.candidates
        ]
        assert places == sorted(places)


@given(routers, requests, snapshots)
def test_a_named_model_is_the_only_one_and_embeddings_have_one(
    router: Router, request: InferenceRequest, snapshot: Snapshot
) -> None:
    decision = router.decide(request, snapshot)
    models = {candidate.model for candidate in decision.candidates}
    if request.model in MODELS:
        assert models <= {request.model}
    if request.operation is Operation.EMBEDDINGS:
        assert len(models) <= 1


@given(routers, st.sampled_from(["auto", "auto:latency"]), snapshots, st.data())
def test_neither_load_nor_speed_changes_the_model_that_auto_embeds_with(
    router: Router, model: str, snapshot: Snapshot, data: st.DataObject
) -> None:
    request = InferenceRequest(Operation.EMBEDDINGS, model, {"input": "hi"})
    busy = Snapshot(
        tuple(
            replace(
                view,
                waiting=dict.fromkeys(Priority, data.draw(st.integers(0, 99))),
                latencies={one: data.draw(latencies) for one in view.models},
                workers=data.draw(st.integers(0, 1)),
            )
            for view in snapshot.backends
        )
    )
    now, then = router.decide(request, snapshot), router.decide(request, busy)
    assert len({one.model for one in (*now.candidates, *then.candidates)}) <= 1


@given(policies, requests, snapshots, st.randoms(use_true_random=False))
def test_the_same_inputs_give_the_same_decision_however_their_tables_are_ordered(
    policy: Policy, request: InferenceRequest, snapshot: Snapshot, rng: Any
) -> None:
    def shuffled(table: Mapping[Any, Any]) -> dict[Any, Any]:
        items = list(table.items())
        rng.shuffle(items)
        return dict(items)

    decision = Router(policy).decide(request, snapshot)
    assert Router(policy).decide(request, snapshot) == decision
    other = Snapshot(
        tuple(
            replace(
                view,
                models=frozenset(rng.sample(sorted(view.models), len(view.models))),
                max_waiting=shuffled(view.max_waiting),
                waiting=shuffled(view.waiting),
                cards=shuffled(view.cards),
                latencies=shuffled(view.latencies),
            )
            for view in snapshot.backends
        )
    )
    tables = {"aliases": shuffled(policy.aliases), "tenants": shuffled(policy.tenants)}
    assert Router(policy.model_copy(update=tables)).decide(request, other) == decision


@given(routers, requests, snapshots)
def test_whoever_nobody_may_take_is_told_why(
    router: Router, request: InferenceRequest, snapshot: Snapshot
) -> None:
    decision = router.decide(request, snapshot)
    if not decision.candidates:
        error = refusal(request, decision)
        assert type(error) is not K9Error
        assert EMAIL not in error.message
        if filters.NO_WORKER in {removal.reason for removal in decision.removals}:
            assert error.status == 503


@given(routers, requests, snapshots, st.integers(0, 10**10))
def test_a_dry_run_takes_the_first_that_nothing_stands_against(
    router: Router, request: InferenceRequest, snapshot: Snapshot, spent: int
) -> None:
    decision: Decision = router.decide(request, snapshot)
    taken = choose(decision, request, gauges(snapshot, decision, request.priority), spent)
    passed = [candidate for candidate, _ in taken.passed]
    ahead = list(decision.candidates[: len(passed) + (taken.candidate is not None)])
    if taken.candidate is not None:
        ahead.remove(taken.candidate)  # the last of them, unless all are past a mark
    assert passed == ahead
    assert taken.reason
    if taken.candidate is None:
        assert len(passed) == len(decision.candidates)
    elif decision.budget is not None:
        cost = taken.candidate.cost
        assert cost is not None
        assert cost == 0 or spent + cost <= decision.budget


@given(routers, requests, snapshots, st.sampled_from(["best", "auto:best", "auto:"]))
@settings(max_examples=20)
def test_an_unknown_strategy_is_the_callers_mistake(
    router: Router, request: InferenceRequest, snapshot: Snapshot, name: str
) -> None:
    in_model = name.startswith("auto")
    wrong = replace(request, model=name, strategy=None) if in_model else replace(request, strategy=name)
    with pytest.raises(BadRequest):
        router.decide(wrong, snapshot)


@given(views, st.sampled_from(Priority))
def test_an_estimated_wait_can_be_told_to_a_caller(view: BackendView, priority: Priority) -> None:
    assert 1 <= retry_after(view.estimated_wait(priority)) <= 60
