"""Where a job may go on when its backend fails it: a pure rule over its decision and the present fleet."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fleets import EASY, LARGE, SMALL, chat, decide, fleet
from k9_broker.errors import (
    BackendCredentials,
    BackendQuotaExceeded,
    BackendRateLimited,
    BackendUnavailable,
    K9Error,
)
from k9_broker.failover import onward
from k9_broker.jobs import Job, JobState
from k9_broker.requests import Kind, Operation, Priority, Privacy
from k9_broker.snapshot import Snapshot
from k9_broker.strategy import filters
from k9_broker.strategy.decision import Decision
from k9_broker.strategy.explanation import explain
from k9_broker.strategy.refusal import refusal

OPEN = {"down": filters.OPEN}


def job(decision: Decision, backend: str = "local-small", **changes: Any) -> Job:
    at = next(one for one in (*decision.candidates, *decision.standby) if one.backend == backend)
    said: dict[str, Any] = {
        "id": "job-1",
        "state": JobState.RUNNING,
        "generation": 1,
        "operation": Operation.CHAT,
        "model": at.model,
        "tenant": "default",
        "priority": Priority.INTERACTIVE,
        "backend": at.backend,
        "kind": at.kind,
        "reason": at.reason,
        "stream": False,
        "created_at": 0.0,
        "deadline_at": 600.0,
    }
    return Job(**{**said, **changes})


def next_for(decision: Decision, snapshot: Snapshot, **changes: Any) -> list[str]:
    found = onward(explain(decision), job(decision, **changes), snapshot, reason="failover:x")
    return [one.backend for one in found]


def test_the_rest_of_the_decision_in_its_order() -> None:
    decision = decide(chat(), **EASY)
    order = [one.backend for one in decision.candidates]
    assert order[0] == "local-small"
    assert next_for(decision, fleet()) == order[1:]
    assert next_for(decision, fleet(), tried=("local-code",)) == [
        name for name in order[1:] if name != "local-code"
    ]


@pytest.mark.parametrize(
    "change",
    [{"workers": 0}, OPEN, {"models": frozenset({"another"})}, {"operations": frozenset()}],
    ids=["gone", "down", "another-model", "cannot"],
)
def test_what_is_down_or_not_what_it_was_is_left_out(change: dict[str, Any]) -> None:
    decision = decide(chat(), **EASY)
    assert "local-code" in next_for(decision, fleet())
    assert "local-code" not in next_for(decision, fleet(local_code=change))


def test_a_backend_that_moved_to_the_cloud_is_another_one() -> None:
    decision = decide(chat(), **EASY)
    moved = tuple(
        replace(view, kind=Kind.CLOUD) if view.name == "local-code" else view for view in fleet().backends
    )
    assert "local-code" not in next_for(decision, Snapshot(moved))


def test_a_local_only_job_never_goes_to_a_cloud_whatever_its_decision_says() -> None:
    decision = decide(chat(), **EASY)
    found = next_for(decision, fleet(), privacy=Privacy.LOCAL_ONLY)
    assert found == ["local-code"]


def test_what_was_down_when_it_was_decided_stands_by_at_its_rank() -> None:
    """The local model is preferred: once it is back it comes before every cloud."""
    decision = decide(chat(), fleet(local_small=OPEN), **EASY)
    assert [one.backend for one in decision.standby] == ["local-small"]
    assert "local-small" not in [one.backend for one in decision.candidates]
    assert ("local-small", filters.OPEN) in [(one.backend, one.reason) for one in decision.removals]
    first = decision.candidates[0].backend
    back = next_for(decision, fleet(), backend=first)
    whole = [one.backend for one in decide(chat(), **EASY).candidates]
    assert back[0] == "local-small"
    assert sorted(back) == sorted(name for name in whole if name != first)
    assert "local-small" not in next_for(decision, fleet(local_small=OPEN), backend=first)


def test_a_model_that_was_named_stays_that_model() -> None:
    decision = decide(chat(model=LARGE))
    assert next_for(decision, fleet(), backend="cloud-large") == []


def test_a_candidate_has_the_mark_and_the_queue_of_now() -> None:
    decision = decide(chat(), **EASY)
    now = fleet(local_code={"max_waiting": {Priority.INTERACTIVE: 3, Priority.BATCH: 5}})
    batch = replace(job(decision), priority=Priority.BATCH)
    found = {one.backend: one for one in onward(explain(decision), batch, now, reason="failover:x")}
    assert (found["local-code"].queue, found["local-code"].max_waiting) == ("k9.local.local-code.batch", 5)
    assert found["cloud-mini"].cost == next(
        one.cost for one in decision.candidates if one.backend == "cloud-mini"
    )


def test_only_the_backend_that_recovered() -> None:
    decision = decide(chat(), **EASY)
    here = job(decision, "cloud-mini")
    found = onward(explain(decision), here, fleet(), reason="returned:recovered", only="local-small")
    assert [one.backend for one in found] == ["local-small"]


@pytest.mark.parametrize(
    ("down", "error", "words", "wait"),
    [
        (filters.OPEN, BackendUnavailable, "has failed lately", 17),
        (filters.NO_QUOTA, BackendQuotaExceeded, "no quota", None),
        (filters.NO_CREDENTIALS, BackendCredentials, "refuses its worker's key", None),
    ],
)
def test_a_caller_is_told_why_nobody_is_fit(
    down: str, error: type[K9Error], words: str, wait: float | None
) -> None:
    asked = chat(model=SMALL)
    said = refusal(asked, decide(asked, fleet(local_small={"down": down, "down_seconds": 17.0})))
    assert type(said) is error
    assert words in said.message
    assert (said.retry_after, said.retryable) == (wait, wait is not None)


@pytest.mark.parametrize(
    ("priority", "seconds", "waits"),
    [
        (Priority.INTERACTIVE, 1.0, True),
        (Priority.INTERACTIVE, 5.1, False),
        (Priority.BATCH, 30.0, True),
    ],
)
def test_where_there_is_no_other_a_short_wait_is_better_than_a_refusal(
    priority: Priority, seconds: float, waits: bool
) -> None:
    asked = replace(chat(model=SMALL), priority=priority)
    down = fleet(local_small={"down": filters.OPEN, "down_seconds": seconds})
    decision = decide(asked, down)
    assert [one.backend for one in decision.candidates] == (["local-small"] if waits else [])
    assert ("local-small" in [one.backend for one in decision.removals]) is not waits
    if waits:
        assert decision.candidates[0].wait == seconds
    free = decide(replace(asked, model="auto"), down)
    assert "local-small" not in [one.backend for one in free.candidates]


def test_an_interactive_caller_does_not_wait_for_a_rate_limit_and_a_batch_does() -> None:
    paced = fleet(cloud_large={"paced_seconds": 30.0})
    asked = chat(model=LARGE)
    said = refusal(asked, decide(asked, paced))
    assert isinstance(said, BackendRateLimited)
    assert said.retry_after == 30
    batch = replace(asked, priority=Priority.BATCH)
    (candidate,) = decide(batch, paced).candidates
    assert candidate.wait == 30
