"""A decision in its caller's eyes: who would be refused and how, and what a past job's record still tells."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fleets import EMBED, LARGE, SMALL, chat, fleet
from k9_api import routeview
from k9_broker.errors import BudgetExhausted, K9Error, PrivacyRefused, QueueFull
from k9_broker.jobs import Job, JobState
from k9_broker.policy import Policy
from k9_broker.requests import InferenceRequest, Kind, Operation, Priority
from k9_broker.strategy.admission import FULL, LATE, NO_MONEY, NO_PRICE, WAITS, Admission, choose
from k9_broker.strategy.decision import Decision
from k9_broker.strategy.engine import Router
from k9_broker.strategy.explanation import explain
from k9_broker.strategy.filters import LOCAL_ONLY
from k9_broker.strategy.refusal import turned_away
from walks import gauges


def decide(request: InferenceRequest) -> Decision:
    return Router(Policy()).decide(request, fleet())


@pytest.mark.parametrize(
    ("reasons", "kind"),
    [
        ((FULL,), QueueFull),
        ((NO_MONEY,), BudgetExhausted),
        ((NO_MONEY, NO_PRICE), BudgetExhausted),
        ((NO_MONEY, FULL), QueueFull),
        ((FULL, NO_PRICE), QueueFull),
        ((NO_MONEY, LATE), QueueFull),
        ((WAITS,), QueueFull),
        ((LOCAL_ONLY,), PrivacyRefused),
    ],
)
def test_room_is_waited_for_and_money_is_not(reasons: tuple[str, ...], kind: type[K9Error]) -> None:
    decision = decide(chat())
    passed = tuple(zip(decision.candidates, reasons, strict=False))
    error = turned_away(Admission(None, reasons[0], passed, wait=7.2))
    assert type(error) is kind
    assert error.retry_after == (8 if kind is QueueFull else None)


def test_the_choice_stands_where_it_stands_on_the_list() -> None:
    full = {Priority.INTERACTIVE: 8, Priority.BATCH: 0}
    snapshot = fleet(local_small={"waiting": full})
    asked = chat("hello", "auto:cost")
    decision = Router(Policy()).decide(asked, snapshot)
    plan = routeview.planned(asked, decision, choose(decision, asked, gauges(snapshot, decision)))
    assert plan["passed"] == [{"backend": "local-small", "model": SMALL, "reason": FULL}]
    assert plan["choice"] == {**plan["candidates"][1], "reason": FULL}
    assert plan["refusal"] is None


def test_nobody_is_chosen_for_what_nobody_serves() -> None:
    asked = chat("hello", "nobody")
    decision = decide(asked)
    plan = routeview.planned(asked, decision, choose(decision, asked, {}))
    assert (plan["choice"], plan["passed"], plan["candidates"]) == (None, [], [])
    assert plan["refusal"]["code"] == "model_not_found"


JOB = Job(
    id="job-1", state=JobState.RUNNING, generation=1, operation=Operation.CHAT, model=LARGE, tenant="default",
    priority=Priority.INTERACTIVE, backend="cloud-large", kind=Kind.CLOUD, reason="overflow:depth",
    stream=False, created_at=10.0, deadline_at=70.0, started_at=11.0, asked="auto",
    skipped=("local-small: overflow:depth", "local-code: privacy:local-only"), cost=5_000_000,
)  # fmt: skip


def test_a_past_decision_tells_whom_admission_passed_over() -> None:
    places = [
        {"backend": name, "model": model} for name, model in (("local-small", SMALL), ("cloud-large", LARGE))
    ]
    said = routeview.taken(JOB, {"candidates": places, "removals": []})
    assert said["passed"] == [{"backend": "local-small", "model": SMALL, "reason": "overflow:depth"}]
    assert (said["choice"]["model"], said["choice"]["reason"]) == (LARGE, "overflow:depth")
    assert (said["cost_usd"], said["cloud_cost_usd"], said["queue_seconds"]) == (0.005, None, 1.0)
    assert said["run_seconds"] is None


@pytest.mark.parametrize("explained", [{}, {"candidates": [{"backend": "gone", "model": EMBED}]}])
def test_a_record_without_its_decision_still_tells_where_the_job_went(explained: dict[str, object]) -> None:
    said = routeview.taken(JOB, explained)
    assert said["choice"] == {
        "backend": "cloud-large", "model": LARGE, "kind": Kind.CLOUD, "reason": "overflow:depth",
    }  # fmt: skip
    assert said["passed"] == []


def test_an_explanation_compares_with_the_cloud() -> None:
    explained = explain(decide(chat("hello", body={"max_tokens": 100})))
    assert explained["compared_with"] is not None
    assert explained["compared_cost_usd"] > 0
    assert explain(replace(decide(chat()), cloud=None))["compared_cost_usd"] is None
