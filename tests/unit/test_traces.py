"""Traces: what a file holds, and that drawn ones have the statistics of the recorded one they imitate."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path
from statistics import fmean, pstdev, pvariance

import pytest

from k9_broker.errors import ConfigurationError
from k9_broker.simulation.traces import RATE, Arrival, read_trace, stretch, synthetic

HEAD = "t_seconds,input_tokens,output_tokens,kind\n"
SECONDS = 5 * 3600.0
"""Long enough that bursts, of which there is one in 42 seconds, show their averages."""


@pytest.fixture(scope="module")
def drawn() -> dict[str, list[Arrival]]:
    """Hours of each kind, and of both together."""
    both = synthetic(5, SECONDS)
    return {"all": both} | {kind: [one for one in both if one.kind == kind] for kind in ("conv", "code")}


def variation(arrivals: list[Arrival]) -> float:
    """The gaps' coefficient of variation; 1 for a Poisson stream."""
    gaps = [after.at - before.at for before, after in pairwise(arrivals)]
    return pstdev(gaps) / fmean(gaps)


def dispersion(arrivals: list[Arrival], window: float) -> float:
    """Variance over mean of the counts in windows; 1 for a Poisson stream."""
    counts = Counter(int(one.at // window) for one in arrivals)
    each = [counts[number] for number in range(int(SECONDS // window))]
    return pvariance(each) / fmean(each)


# -- files ----------------------------------------------------------------------------------------


def test_a_file_is_read_in_order(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(HEAD + "2.5,396,109,conv\n0.000,374,44,conv\n2.75,91,16,code\n")
    assert read_trace(path) == [
        Arrival(0.0, 374, 44, "conv"),
        Arrival(2.5, 396, 109, "conv"),
        Arrival(2.75, 91, 16, "code"),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no column t_seconds"),
        ("t_seconds,input_tokens,kind\n1,2,conv\n", "no column output_tokens"),
        (HEAD + "0,1,2,conv\nsoon,1,2,conv\n", "line 3"),
        (HEAD + "0,1\n", "line 2"),
    ],
)
def test_a_file_that_is_no_trace(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=said):
        read_trace(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_trace(tmp_path / "trace.csv")


def test_a_stretch_begins_at_zero_and_takes_each_nth() -> None:
    whole = [Arrival(float(second), 10, 10, "conv") for second in range(20)]
    assert [one.at for one in stretch(whole, 5, 10)] == [float(second) for second in range(10)]
    assert [one.at for one in stretch(whole, 5, 10, every=4)] == [0.0, 4.0, 8.0]
    assert stretch(whole, 100, 10) == []


# -- drawn ones -----------------------------------------------------------------------------------


def test_the_same_seed_draws_the_same() -> None:
    assert synthetic(3, 300) == synthetic(3, 300)
    assert synthetic(3, 300) != synthetic(4, 300)


def test_arrivals_are_in_order_and_within_the_time(drawn: dict[str, list[Arrival]]) -> None:
    instants = [one.at for one in drawn["all"]]
    assert instants == sorted(instants)
    assert instants[0] >= 0
    assert SECONDS - 60 < instants[-1] < SECONDS
    assert all(one.prompt_tokens > 0 and one.output_tokens > 0 for one in drawn["all"])


@pytest.mark.parametrize(
    ("kind", "rate", "cv", "dispersions"),
    [
        ("all", 9.0, 1.33, {1: 5.3, 10: 26, 60: 54}),
        ("conv", 5.91, 1.08, {1: 1.3, 10: 3.5, 60: 15}),
        ("code", 3.18, 12.8, {1: 13, 10: 71, 60: 155}),
    ],
)
def test_conversation_is_near_poisson_and_code_comes_in_bursts(
    drawn: dict[str, list[Arrival]], kind: str, rate: float, cv: float, dispersions: dict[int, float]
) -> None:
    arrivals = drawn[kind]
    assert len(arrivals) / SECONDS == pytest.approx(rate, rel=0.1)
    assert variation(arrivals) == pytest.approx(cv, rel=0.15)
    for window, expected in dispersions.items():
        assert dispersion(arrivals, window) == pytest.approx(expected, rel=0.35), window


@pytest.mark.parametrize(
    ("kind", "tokens", "mean", "quantiles"),
    [
        ("conv", "prompt_tokens", 1195, (220, 1015, 4074, 4121)),
        ("conv", "output_tokens", 202, (50, 115, 421, 598)),
        ("code", "prompt_tokens", 2028, (149, 1462, 5029, 7436)),
        ("code", "output_tokens", 28, (7, 13, 55, 249)),
    ],
)
def test_requests_are_as_long_as_recorded_ones(
    drawn: dict[str, list[Arrival]], kind: str, tokens: str, mean: float, quantiles: tuple[int, ...]
) -> None:
    sizes = sorted(getattr(one, tokens) for one in drawn[kind])
    assert fmean(sizes) == pytest.approx(mean, rel=0.1)
    found = [sizes[int(share * len(sizes))] for share in (0.1, 0.5, 0.9, 0.99)]
    assert found == pytest.approx(quantiles, rel=0.1, abs=1)


def test_another_rate_is_the_same_pattern_at_another_speed() -> None:
    slow, fast = synthetic(3, 600), synthetic(3, 300, 2 * RATE)
    assert [one.at for one in fast] == pytest.approx([one.at / 2 for one in slow])
    assert [one.prompt_tokens for one in fast] == [one.prompt_tokens for one in slow]


@pytest.mark.parametrize(("seconds", "rate"), [(0, 1), (10, 0), (-1, 1)])
def test_nothing_can_be_drawn_from_nothing(seconds: float, rate: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        synthetic(1, seconds, rate)
