"""A short trace in each way it may be served, with local servers too slow for all of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

from k9_broker.simulation.traces import stretch, synthetic
from replay import WAYS, compare, write
from replay_figures import Outcome, Slo
from replay_ground import Scale, Speed, Terms

SECONDS = 15.0
SERVER = Speed(slots=2, first=0.05, per_prompt_token=0.0001, per_token=0.03)
"""Two of them serve a third of what comes."""
SLO = Slo(ttft=8.0, tpot=0.5)
"""Wide, since other tests may have the machine: a second of theirs counts ten times."""


@pytest.fixture(scope="module")
def outcomes() -> dict[str, Outcome]:
    arrivals = stretch(synthetic(11, SECONDS), 0, SECONDS, every=3)
    found = compare(arrivals, SECONDS, Terms(Scale(speed=10), local=SERVER, own_queue=2), SLO)
    return {one.way: one for one in found}


def test_each_way_answers_every_request(outcomes: dict[str, Outcome]) -> None:
    assert list(outcomes) == list(WAYS)
    for one in outcomes.values():
        assert (one.failed, one.requests) == (0, outcomes["K-9"].requests)
        assert sum(map(sum, one.over_time.values())) == one.requests


def test_k9_is_cheaper_than_the_cloud_and_better_than_the_local_servers(outcomes: dict[str, Outcome]) -> None:
    ours = outcomes["K-9"]
    assert ours.cloud_usd < 0.9 * outcomes["all cloud"].cloud_usd
    assert ours.slo > outcomes["all local"].slo + 0.3
    assert ours.wait["p95"] < outcomes["all local"].wait["p95"] / 2


def test_work_goes_where_the_way_says(outcomes: dict[str, Outcome]) -> None:
    assert (outcomes["all local"].cloud, outcomes["all cloud"].cloud) == (0, 1)
    assert 0.1 < outcomes["K-9"].cloud < 0.9
    assert 0.1 < outcomes["fallback on 429"].cloud < 0.9
    ours = outcomes["K-9"]
    assert sum(ours.reasons.values()) == pytest.approx(ours.cloud * ours.requests)


def test_the_books_say_what_the_trace_costs(outcomes: dict[str, Outcome]) -> None:
    """The fakes count words, of which there is one for `Scale.grain` tokens, so a few are rounded away."""
    for way in ("all cloud", "K-9"):
        assert outcomes[way].booked_usd == pytest.approx(outcomes[way].cloud_usd, rel=0.1)
    assert outcomes["all local"].booked_usd == 0
    assert outcomes["fallback on 429"].booked_usd is None


def test_what_is_written_can_be_read_and_drawn(outcomes: dict[str, Outcome], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    write(tmp_path, list(outcomes.values()), SLO, "a short trace")
    said = json.loads((tmp_path / "replay.json").read_text())
    assert [one["way"] for one in said["ways"]] == list(WAYS)
    drawn = (tmp_path / "replay.svg").read_text()
    assert len(drawn) < 150_000
    assert all(way in drawn for way in WAYS)
