"""A slice of a recorded trace through the engine: what the strategies save, as orderings, not figures."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

from k9_broker.policy import Policy
from traffic import STRATEGIES, Outcome, arrivals, fleet, replay

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
TRACE = DATA / "traces" / "azure2023_first40min.csv"
CORPUS = DATA / "task-types" / "train.jsonl"
REQUESTS = 2000


@pytest.fixture(scope="module")
def outcomes() -> dict[str, Outcome]:
    """What each strategy made of the slice; skips without the data, fails in CI."""
    if not (TRACE.is_file() and CORPUS.is_file()):
        reason = f"the trace and its prompts are not at {DATA}"
        if os.environ.get("CI"):
            pytest.fail(f"{reason}; CI must run this suite")
        pytest.skip(reason)
    traffic = arrivals(TRACE, CORPUS, most=REQUESTS, private=0.05)
    here = fleet(small_slots=12, code_slots=6, mark=8, gpu_usd_per_hour=None)
    return {name: replay(name, here, traffic, Policy()) for name in STRATEGIES}


def test_every_request_is_decided_once(outcomes: dict[str, Outcome]) -> None:
    for one in outcomes.values():
        assert one.requests == REQUESTS
        assert one.places.total() + one.refused == REQUESTS


def test_no_local_only_request_reaches_a_cloud(outcomes: dict[str, Outcome]) -> None:
    for one in outcomes.values():
        assert one.private > REQUESTS / 50
        assert one.leaked == 0


def test_local_first_saves_and_costs_in_the_expected_order(outcomes: dict[str, Outcome]) -> None:
    cost = {name: one.cost for name, one in outcomes.items()}
    assert cost["cost-first"] < cost["quality-first"]
    assert cost["task-type"] < cost["quality-first"]
    assert outcomes["cost-first"].saving > 0
    assert outcomes["task-type"].saving > 0
    assert all(one.cost <= one.all_large for one in outcomes.values())


def test_bursts_overflow_to_the_cloud_and_only_local_only_is_refused(outcomes: dict[str, Outcome]) -> None:
    spent = outcomes["cost-first"]
    assert spent.overflowed > 0
    assert 0 < spent.local < REQUESTS
    assert spent.refused < spent.private


def test_hard_prompts_go_to_a_strong_model_where_strategies_promise_it(outcomes: dict[str, Outcome]) -> None:
    spent, best = outcomes["cost-first"], outcomes["quality-first"]
    assert spent.hard > 0
    assert spent.hard_strong / spent.hard > 0.9
    assert best.places["cloud-large"] == REQUESTS - best.private


def test_more_slots_here_save_more(outcomes: dict[str, Outcome]) -> None:
    traffic = arrivals(TRACE, CORPUS, most=REQUESTS, private=0.05)
    roomy = fleet(small_slots=96, code_slots=96, mark=64, gpu_usd_per_hour=None)
    assert replay("cost-first", roomy, traffic, Policy()).cost < outcomes["cost-first"].cost
