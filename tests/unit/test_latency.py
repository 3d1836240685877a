"""The estimate of a model's speed: how soon it follows, what it ignores, and how it forgets."""

from __future__ import annotations

import pytest

from k9_broker.latency import HALF_LIFE, LatencyEstimate, Running, moved
from k9_broker.models import Latency


class Bench:
    """Calls one after the other on a clock of their own."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.estimate = LatencyEstimate()

    def stream(self, times: int = 1, *, ttft: float = 0.2, tpot: float = 0.02, tokens: int = 51) -> Latency:
        for _ in range(times):
            seconds = ttft + tpot * (tokens - 1)
            self.now += seconds
            self.estimate.observe(self.now, ttft=ttft, seconds=seconds, completion_tokens=tokens)
        return self.at()

    def whole(self, seconds: float, tokens: int) -> Latency:
        self.now += seconds
        self.estimate.observe(self.now, ttft=None, seconds=seconds, completion_tokens=tokens)
        return self.at()

    def at(self, *running: Running) -> Latency:
        latency = self.estimate.at(self.now, running)
        assert latency is not None
        return latency


def near(ttft: float, tpot: float, within: float = 0.02) -> object:
    return pytest.approx((ttft, tpot), rel=within)


def of(latency: Latency) -> tuple[float, float]:
    return latency.ttft, latency.tpot


@pytest.fixture
def usual() -> Bench:
    """Twenty calls of 0.2 s and 20 ms a token."""
    bench = Bench()
    bench.stream(20)
    return bench


def test_nothing_is_known_before_a_call_has_ended() -> None:
    estimate = LatencyEstimate()
    estimate.observe_unfinished(5.0, Running(60.0, streamed=True))
    assert estimate.at(5.0, [Running(60.0, streamed=True)]) is None


def test_the_first_call_is_believed() -> None:
    assert of(Bench().stream(ttft=0.3, tpot=0.01)) == near(0.3, 0.01)


def test_one_odd_call_moves_nothing(usual: Bench) -> None:
    assert of(usual.stream(ttft=4.0, tpot=0.4)) == near(0.2, 0.02)
    assert of(usual.stream()) == near(0.2, 0.02)
    assert of(usual.stream(ttft=0.001, tpot=0.0001)) == near(0.2, 0.02)


def test_two_slow_calls_are_believed(usual: Bench) -> None:
    assert of(usual.stream(2, ttft=1.0, tpot=0.1)) == near(1.0, 0.1, 0.25)


def test_two_fast_calls_after_a_slow_time_are_believed(usual: Bench) -> None:
    usual.stream(6, ttft=1.0, tpot=0.1)
    assert of(usual.stream(2)) == near(0.2, 0.02, 0.25)


def test_a_first_token_that_is_late_is_evidence_before_it_comes(usual: Bench) -> None:
    usual.now += 1.0
    late, very_late = (Running(elapsed, streamed=True) for elapsed in (0.45, 0.7))
    assert usual.at(late).ttft == pytest.approx(0.2, rel=0.02)  # alone it may be an odd call
    assert usual.at(late, late).ttft == pytest.approx(0.45)
    assert usual.at(very_late).ttft == pytest.approx(0.7)
    assert usual.at(Running(0.25, streamed=True)).ttft == pytest.approx(0.2, rel=0.02)


def test_a_stream_that_stalls_is_evidence(usual: Bench) -> None:
    usual.now += 2.0
    assert usual.at(Running(2.0, streamed=True, ttft=0.2, tokens=10)).tpot == pytest.approx(1.8 / 14)
    assert usual.at(Running(1.2, streamed=True, ttft=0.2, tokens=48)).tpot == pytest.approx(0.02, rel=0.02)


def test_a_whole_answer_that_is_late_is_evidence(usual: Bench) -> None:
    """Late is later than the longest answer lately would be."""
    usual.stream(tokens=101)
    usual.now += 10.0
    assert of(usual.at(Running(2.2, streamed=False))) == near(0.2, 0.02)
    hanging = usual.at(Running(8.8, streamed=False))
    assert of(hanging) == near(0.8, 0.08, 0.05)


def test_calls_that_began_later_and_ended_well_outweigh_one_that_hangs(usual: Bench) -> None:
    usual.stream(3)
    assert of(usual.at(Running(30.0, streamed=True))) == near(0.2, 0.02)


def test_whole_calls_scale_both_times(usual: Bench) -> None:
    for _ in range(2):
        latency = usual.whole(6.0, 51)  # 1.2 s is expected
    assert of(latency) == near(1.0, 0.1, 0.25)


def test_whole_calls_alone_are_split_by_a_rule_and_predicted_well() -> None:
    bench = Bench()
    for _ in range(3):
        latency = bench.whole(1.2, 110)
    assert of(latency) == near(0.1, 0.01)
    assert latency.seconds(110) == pytest.approx(1.2, rel=0.02)


def test_embeddings_are_all_first_token() -> None:
    bench = Bench()
    for _ in range(3):
        latency = bench.whole(0.4, 0)
    assert of(latency) == (pytest.approx(0.4), 0.0)
    bench.now += 5
    assert bench.at(Running(2.0, streamed=False)).ttft == pytest.approx(2.0)


def test_a_large_call_among_small_embeddings_is_not_late() -> None:
    bench = Bench()
    for seconds in (0.1, 2.0, 0.1, 0.1, 0.1):
        bench.whole(seconds, 0)
    bench.now += 2.5
    assert bench.at(Running(2.5, streamed=False)).ttft == pytest.approx(0.1, rel=0.1)


def test_failures_never_look_fast_and_timeouts_look_slow(usual: Bench) -> None:
    for call in (Running(0.001, streamed=True), Running(0.05, True, ttft=0.001, tokens=5)):
        for _ in range(4):
            usual.now += call.elapsed
            usual.estimate.observe_unfinished(usual.now, call)
    assert of(usual.at()) == near(0.2, 0.02)
    for _ in range(2):
        usual.now += 30.0
        usual.estimate.observe_unfinished(usual.now, Running(30.0, streamed=True))
    assert usual.at().ttft > 10


def test_a_bad_estimate_fades_when_nobody_calls(usual: Bench) -> None:
    usual.stream(4, ttft=1.0, tpot=0.1)
    bad, seen = usual.at().ttft, []
    for _ in range(8):
        usual.now += 8.0
        seen.append(usual.at().ttft)
    assert bad > 0.9
    assert seen == sorted(seen, reverse=True)
    assert 0.35 < seen[0] < 0.7  # a half-life is half the way, of the logarithm
    assert seen[3] < 0.25  # after half a minute it is worth trying again
    assert seen[-1] == pytest.approx(0.2, rel=0.1)


def test_a_slow_call_is_news_for_longer_while_another_is_under_way(usual: Bench) -> None:
    usual.stream(3, ttft=1.0, tpot=0.1)
    usual.now += HALF_LIFE
    idle, busy = usual.at(), usual.at(Running(HALF_LIFE, streamed=True, ttft=1.0, tokens=70))
    assert idle.ttft < 0.6 < 0.8 < busy.ttft


def test_the_baseline_follows_a_lasting_change_and_comes_back_sooner(usual: Bench) -> None:
    def calls(seconds: float, ttft: float) -> float:
        """Calls for so long; what the estimate fades to afterwards."""
        end = usual.now + seconds
        while usual.now < end:
            usual.stream(ttft=ttft, tpot=0.02)
        usual.now += 100 * HALF_LIFE
        return usual.at().ttft

    assert calls(30, ttft=1.0) < 0.3  # a moment of slowness is forgotten
    usual.stream(3)
    assert 0.4 < calls(300, ttft=1.0) < 0.6
    usual.stream(3, ttft=1.0)
    assert calls(90, ttft=0.2) < 0.25


def test_a_cold_start_does_not_mark_a_model_for_long() -> None:
    bench = Bench()
    bench.stream(ttft=30.0)
    bench.stream(12)
    assert bench.at().ttft == pytest.approx(0.2, rel=0.05)
    bench.now += 100
    assert bench.at().ttft < 0.4


@pytest.mark.parametrize(
    ("before", "after", "has"),
    [
        (None, Latency(ttft=1, tpot=0), True),
        (Latency(ttft=1, tpot=0.02), Latency(ttft=1.3, tpot=0.025), False),
        (Latency(ttft=1, tpot=0.02), Latency(ttft=1.7, tpot=0.02), True),
        (Latency(ttft=1, tpot=0.02), Latency(ttft=0.5, tpot=0.02), True),
        (Latency(ttft=1, tpot=0.02), Latency(ttft=1, tpot=0.05), True),
        (Latency(ttft=0.0001, tpot=0.00001), Latency(ttft=0.004, tpot=0.0004), False),
    ],
)
def test_what_counts_as_movement(before: Latency | None, after: Latency, has: bool) -> None:
    assert moved(before, after, 1.5) is has
