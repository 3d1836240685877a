"""What each strategy makes of a request: the order of places, and why each stands where it does."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from fleets import (
    CARDS,
    CODE,
    EASY,
    HARD,
    LARGE,
    MINI,
    SMALL,
    chat,
    decide,
    first,
    fleet,
    order,
    speeds,
    view,
)
from k9_broker.errors import BadRequest
from k9_broker.policy import CloudModel, Policy
from k9_broker.requests import InferenceRequest, Kind, Operation, Privacy, TaskType
from k9_broker.snapshot import Snapshot
from k9_broker.strategy.engine import Router

ALL = ("local-small", "local-code", "cloud-large", "cloud-mini")


@pytest.mark.parametrize(
    ("task_type", "strong", "expected", "reason"),
    [
        ("qa", EASY, ["local-small", "local-code", "cloud-mini", "cloud-large"], "local small"),
        ("qa", HARD, ["cloud-large", "cloud-mini", "local-small", "local-code"], "cloud large"),
        ("chat", EASY, ["local-small", "local-code", "cloud-mini", "cloud-large"], "local small"),
        ("chat", HARD, ["local-small", "local-code", "cloud-mini", "cloud-large"], "local small"),
        ("summarization", EASY, ["local-small", "local-code", "cloud-mini", "cloud-large"], "local small"),
        ("translation", EASY, ["local-small", "local-code", "cloud-mini", "cloud-large"], "local small"),
        (
            "extraction_classification",
            EASY,
            ["local-small", "local-code", "cloud-mini", "cloud-large"],
            "local small",
        ),
        ("code_generation", EASY, ["local-code", "local-small", "cloud-large", "cloud-mini"], "local code"),
        ("code_completion", EASY, ["local-code", "local-small", "cloud-large", "cloud-mini"], "local code"),
        ("code_completion", HARD, ["local-code", "local-small", "cloud-large", "cloud-mini"], "local code"),
        (
            "code_refactor_review",
            EASY,
            ["cloud-large", "cloud-mini", "local-small", "local-code"],
            "cloud large",
        ),
        ("reasoning", HARD, ["cloud-large", "cloud-mini", "local-small", "local-code"], "cloud large"),
        ("reasoning", EASY, ["local-small", "local-code", "cloud-mini", "cloud-large"], "local"),
        ("creative_writing", EASY, ["cloud-large", "cloud-mini", "local-small", "local-code"], "cloud"),
    ],
)
def test_the_table_of_task_types(
    task_type: str, strong: dict[str, Any], expected: list[str], reason: str
) -> None:
    decision = decide(chat(task_type=TaskType(task_type)), **strong)
    assert order(decision) == expected
    assert decision.candidates[0].reason == f"task-type:{reason}"
    assert decision.strategy_by == "default"


def test_cost_first_goes_up_in_price_when_any_will_do() -> None:
    decision = decide(chat(model="auto:cost"), **EASY)
    assert order(decision) == list(ALL[:2] + ALL[:1:-1])
    assert first(decision) == ("local-small", "cost-first:cheapest")
    assert decision.strategy_by == "caller"


def test_cost_first_pays_for_strength_only_when_it_is_needed() -> None:
    decision = decide(chat(model="auto:cost"), **HARD)
    assert first(decision) == ("cloud-large", "cost-first:cheapest strong enough")
    assert order(decision) == ["cloud-large", "cloud-mini", "local-small", "local-code"]


def test_cost_first_takes_the_cheaper_of_two_strong_models() -> None:
    cheaper = CARDS[LARGE].model_copy(update={"input_usd": 1.0, "output_usd": 3.0})
    snapshot = Snapshot((*fleet().backends, view("other-cloud", Kind.CLOUD, "m", cards={"m": cheaper})))
    assert first(decide(chat(model="auto:cost"), snapshot, **HARD))[0] == "other-cloud"


def test_a_machine_that_costs_more_than_the_cloud_is_not_the_cheapest() -> None:
    dear = fleet(local_small={"slot_usd_per_hour": 3600.0}, local_code={"slot_usd_per_hour": 7200.0})
    decision = decide(chat(model="auto:cost"), dear, **EASY)
    assert order(decision) == ["cloud-mini", "cloud-large", "local-small", "local-code"]
    assert decision.candidates[2].cost == round(3600.0 / 3600 * decision.candidates[2].seconds * 1e9)


def test_an_unknown_price_is_taken_last() -> None:
    unknown = view("odd-cloud", Kind.CLOUD, "unheard-of")
    decision = decide(chat(model="auto:cost"), Snapshot((unknown, *fleet().backends)), **EASY)
    assert order(decision)[0] == "local-small"
    costs = {one.backend: one.cost for one in decision.candidates}
    assert costs["odd-cloud"] is None
    assert order(decision).index("odd-cloud") > order(decision).index("cloud-mini")


def test_quality_first_takes_the_strongest_of_the_cloud_and_then_what_is_here() -> None:
    decision = decide(chat(model="auto:quality"), **EASY)
    assert order(decision) == ["cloud-large", "cloud-mini", "local-small", "local-code"]
    assert first(decision) == ("cloud-large", "quality-first:cloud")


def test_quality_first_stays_here_when_the_cloud_is_away() -> None:
    away = fleet(cloud_large={"workers": 0}, cloud_mini={"workers": 0})
    decision = decide(chat(model="auto:quality"), away, **EASY)
    assert first(decision) == ("local-small", "quality-first:strongest")
    away_for = {one.model: one.reason for one in decision.removals if one.backend.startswith("cloud")}
    assert away_for == {LARGE: "no-worker", MINI: "no-worker"}


def test_quality_first_stays_here_with_what_must_not_leave() -> None:
    decision = decide(chat("write to ann.smith@northwind.de", "auto:quality"), **EASY)
    assert order(decision) == ["local-small", "local-code"]
    assert decision.privacy_by == ("found:email",)


def test_latency_first_takes_the_least_predicted_time_and_tells_it() -> None:
    quick = fleet(
        local_small={"latencies": speeds(SMALL, 0.2, 0.05)},
        local_code={"latencies": speeds(CODE, 0.2, 0.06)},
        cloud_large={"latencies": speeds(LARGE, 0.5, 0.01)},
        cloud_mini={"latencies": speeds(MINI, 0.4, 0.003)},
    )
    request = chat(model="auto:latency", task_type=TaskType.CHAT)
    decision = decide(request, quick, **EASY)
    assert order(decision) == ["cloud-mini", "cloud-large", "local-small", "local-code"]
    assert decision.candidates[0].seconds == pytest.approx(0.4 + 0.003 * decision.output_tokens)
    assert first(decision)[1] == "latency-first:fastest"


def test_latency_first_counts_the_wait_in_the_queue() -> None:
    behind = {"waiting": {"interactive": 7}, "in_flight": 4, "service_seconds": 10.0}
    same = {"latencies": speeds(SMALL, 0.1, 0.001)}
    decision = decide(chat(model="auto:latency"), fleet(local_small={**same, **behind}), **EASY)
    last = decision.candidates[-1]
    assert last.backend == "local-small"
    assert last.wait == pytest.approx(20.0)


def test_near_equals_share_the_work_by_their_slots_and_each_request_keeps_its_place() -> None:
    twins = [view(f"twin-{slots}", Kind.LOCAL, SMALL, slots=slots) for slots in (2, 6)]
    snapshot = Snapshot((*twins, view("far", Kind.LOCAL, SMALL, latencies=speeds(SMALL, 9, 0.1))))
    router = Router(Policy(**EASY))
    texts = [f"question number {number}" for number in range(800)]
    taken = [router.decide(chat(text, "auto:latency"), snapshot).candidates[0].backend for text in texts]
    assert taken == [
        router.decide(chat(text, "auto:latency"), snapshot).candidates[0].backend for text in texts
    ]
    assert 0.65 < taken.count("twin-6") / len(taken) < 0.85
    assert "far" not in taken


def test_near_means_within_a_share_of_the_best_and_no_further() -> None:
    best, near, far = 1.0, 1.1, 1.3  # seconds; a score is the best over one's own
    snapshot = Snapshot(
        tuple(
            view(name, Kind.LOCAL, SMALL, latencies=speeds(SMALL, seconds, 0))
            for name, seconds in (("best", best), ("near", near), ("far", far))
        )
    )
    router = Router(Policy(**EASY))
    decisions = [router.decide(chat(f"number {number}", "auto:latency"), snapshot) for number in range(100)]
    taken = [decision.candidates[0].backend for decision in decisions]
    assert 30 < taken.count("near") < 70
    assert taken.count("best") + taken.count("near") == 100
    assert {first(decision)[1] for decision in decisions if order(decision)[0] == "near"} == {
        "latency-first:among the fastest"
    }


@pytest.mark.parametrize(
    ("operation", "said"),
    [
        (Operation.EMBEDDINGS, lambda number: {"input": f"text {number}"}),
        (Operation.EMBEDDINGS, lambda number: {"input": [[1, number]]}),
        (Operation.COMPLETIONS, lambda number: {"prompt": [1, number]}),
        (Operation.CHAT, lambda number: {"messages": [{"role": "tool", "content": f"it is {number}"}]}),
    ],
)
def test_requests_without_a_users_text_are_spread_too(
    operation: Operation, said: Callable[[int], dict[str, Any]]
) -> None:
    pair = Snapshot(tuple(view(n, Kind.LOCAL, "m", operations=frozenset(Operation)) for n in ("a", "b")))
    router = Router(Policy(strategy="latency-first"))
    requests = [InferenceRequest(operation, "m", said(number)) for number in range(48)]
    taken = [router.decide(one, pair).candidates[0].backend for one in requests]
    assert 12 < taken.count("a") < 36


def test_a_named_model_is_served_here_first_and_nowhere_else_but_where_it_is() -> None:
    both = Snapshot((view("far", Kind.CLOUD, SMALL), *fleet().backends))
    for strategy in ("task-type", "quality-first"):
        decision = decide(chat(model=SMALL, strategy=strategy), both)
        assert order(decision) == ["local-small", "far"]
        assert {one.reason for one in decision.removals} == {"model-not-served"}
        assert first(decision)[1] == f"{strategy}:local"


def test_an_alias_stands_for_its_models() -> None:
    aliases = {"helper": (CODE, MINI)}
    decision = decide(chat(model="helper", task_type=TaskType.CHAT), aliases=aliases, **EASY)
    assert [one.model for one in decision.candidates] == [CODE, MINI]
    assert order(decide(chat(model=MINI), aliases=aliases)) == ["cloud-mini"]


def test_an_alias_may_have_the_name_of_a_model() -> None:
    """A program that insists on `gpt-4o` can be served here."""
    decision = decide(chat(model=LARGE), aliases={LARGE: (SMALL,)})
    assert order(decision) == ["local-small"]


def test_the_caller_may_name_the_strategy_the_type_and_the_kind() -> None:
    decision = decide(chat(strategy="cost", task_type=TaskType.CREATIVE_WRITING, kind=Kind.CLOUD), **EASY)
    assert decision.strategy == "cost-first"
    assert order(decision) == ["cloud-mini", "cloud-large"]
    assert decision.recognition.by == "caller"
    assert {one.reason for one in decision.removals if one.model == SMALL} == {"kind:not-asked-for"}


@pytest.mark.parametrize(
    ("request_", "param"), [(chat(model="auto:best"), "model"), (chat(strategy="best"), "strategy")]
)
def test_an_unknown_strategy_is_refused_with_those_there_are(request_: InferenceRequest, param: str) -> None:
    with pytest.raises(BadRequest, match=r"'best'.*cost-first, latency-first") as refused:
        decide(request_)
    assert refused.value.param == param


def test_the_saving_is_measured_by_the_cloud_model_the_job_would_have_gone_to() -> None:
    compared = {
        "easy": decide(chat(task_type=TaskType.CHAT), **EASY).cloud,
        "hard": decide(chat(task_type=TaskType.QA), **HARD).cloud,
        "private": decide(chat(task_type=TaskType.CHAT, privacy=Privacy.LOCAL_ONLY), **EASY).cloud,
        "pinned": decide(chat(model=SMALL), **EASY).cloud,
    }
    assert {name: prices and prices.model for name, prices in compared.items()} == {
        "easy": MINI,
        "hard": LARGE,
        "private": MINI,
        "pinned": LARGE,
    }
    named = CloudModel(model="theirs", input_usd=1, output_usd=2)
    cloud = decide(chat(), compare_with=named).cloud
    assert cloud is not None
    assert dataclasses.astuple(cloud) == ("theirs", 1.0, 2.0)


def test_nobody_in_the_cloud_nothing_to_compare_with() -> None:
    here = Snapshot(fleet().backends[:2])
    assert decide(chat(), here).cloud is None
