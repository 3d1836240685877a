"""What holds of the estimate whatever the calls were."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k9_broker import latency
from k9_broker.latency import HALF_LIFE, LatencyEstimate, Running

SECONDS = st.floats(0, 1e4, allow_nan=False)
GAPS = st.floats(0, 1e5, allow_nan=False)


@dataclass(frozen=True)
class Told:
    """A call as the estimate hears of it, `gap` seconds after the one before."""

    gap: float
    ttft: float
    rest: float
    tokens: int
    whole: bool
    failed: bool

    @property
    def seconds(self) -> float:
        return self.ttft + self.rest


CALLS = st.lists(
    st.builds(Told, GAPS, SECONDS, SECONDS, st.integers(0, 5000), st.booleans(), st.booleans()), max_size=30
)
RUNNING = st.lists(
    st.builds(Running, SECONDS, st.booleans(), st.none() | SECONDS, st.floats(0, 1e4)), max_size=5
)


def heard(calls: list[Told], *, one_by_one: bool = False) -> tuple[LatencyEstimate, float]:
    """The estimate and its time after the calls; `one_by_one`: none began before the last had ended."""
    estimate, now = LatencyEstimate(), 0.0
    for call in calls:
        now += call.gap + (call.seconds if one_by_one else 0.0)
        if call.failed:
            ttft = None if call.whole else call.ttft
            estimate.observe_unfinished(now, Running(call.seconds, not call.whole, ttft, call.tokens))
        else:
            ttft = None if call.whole else call.ttft
            estimate.observe(now, ttft=ttft, seconds=call.seconds, completion_tokens=call.tokens)
    return estimate, now


@given(CALLS, RUNNING, GAPS)
def test_it_is_finite_and_not_negative(calls: list[Told], running: list[Running], gap: float) -> None:
    estimate, now = heard(calls)
    found = estimate.at(now + gap, running)
    if found is None:
        assert all(call.failed for call in calls)
        return
    assert math.isfinite(found.seconds(10_000))
    assert found.ttft > 0
    assert found.tpot >= 0


@given(CALLS, RUNNING)
def test_asking_changes_nothing(calls: list[Told], running: list[Running]) -> None:
    estimate, now = heard(calls)
    first = estimate.at(now, running)
    estimate.at(now + 1000.0, running)
    assert estimate.at(now, running) == first


STREAMS = st.lists(
    st.builds(Told, st.floats(0, 100), st.floats(1e-4, 100), st.floats(0, 100), st.integers(2, 500),
              st.just(False), st.just(False)), min_size=1, max_size=12,
)  # fmt: skip


@contextmanager
def ages_alike() -> Iterator[None]:
    """While calls are under way evidence ages as it does otherwise: slower calls are under way for longer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latency, "BUSY_RATE", 1.0)
        yield


@given(STREAMS, st.data())
def test_slower_calls_never_make_it_faster(calls: list[Told], data: st.DataObject) -> None:
    """The same calls, ending at the same times, some of them slower; each began after the last had ended."""
    factors = data.draw(st.lists(st.floats(1, 20), min_size=len(calls), max_size=len(calls)))
    gap = data.draw(st.floats(0, 100))
    as_told, slower = LatencyEstimate(), LatencyEstimate()
    now = 0.0
    for call, factor in zip(calls, factors, strict=True):
        now += call.gap + call.seconds * factor + 1e-6
        for estimate, by in ((as_told, 1.0), (slower, factor)):
            estimate.observe(
                now, ttft=by * call.ttft, seconds=by * call.seconds, completion_tokens=call.tokens
            )
    with ages_alike():
        low, high = as_told.at(now + gap), slower.at(now + gap)
    assert low is not None
    assert high is not None
    assert high.ttft >= low.ttft * (1 - 1e-9)
    assert high.tpot >= low.tpot * (1 - 1e-9)


@given(STREAMS, st.floats(0, 50), st.floats(1, 20), st.booleans())
def test_a_call_that_is_later_makes_it_no_faster(
    calls: list[Told], elapsed: float, factor: float, streamed: bool
) -> None:
    estimate, now = heard(calls, one_by_one=True)
    now += elapsed * factor + 1e-6
    with ages_alike():
        short = estimate.at(now, [Running(elapsed, streamed)])
        long = estimate.at(now, [Running(elapsed * factor, streamed)])
    assert short is not None
    assert long is not None
    assert long.ttft >= short.ttft * (1 - 1e-9)


@given(CALLS, st.floats(0.001, 5), st.floats(0.0001, 0.05), st.integers(2, 100))
def test_it_converges_to_what_calls_take(calls: list[Told], ttft: float, tpot: float, tokens: int) -> None:
    estimate, now = heard(calls)
    seconds = ttft + tpot * (tokens - 1)
    for _ in range(1500):
        now += seconds + 1.0
        estimate.observe(now, ttft=ttft, seconds=seconds, completion_tokens=tokens)
    found = estimate.at(now)
    assert found is not None
    assert found.ttft == pytest.approx(ttft, rel=0.05)
    assert found.tpot == pytest.approx(tpot, rel=0.05)


@given(CALLS, st.floats(0, 1000))
def test_it_fades_to_one_baseline_and_never_past_it(calls: list[Told], gap: float) -> None:
    estimate, now = heard(calls)
    baseline = estimate.at(now + 1e7)
    if baseline is None:
        return

    def distance(at: float) -> tuple[float, float]:
        found = estimate.at(at)
        assert found is not None
        assert baseline is not None
        return abs(math.log(found.ttft / baseline.ttft)), abs(found.tpot - baseline.tpot)

    sooner, later = distance(now + gap), distance(now + gap + 10 * HALF_LIFE)
    assert later[0] <= sooner[0] + 1e-9
    assert later[1] <= sooner[1] + 1e-9
    assert distance(now + 60 * HALF_LIFE)[0] < 1e-6
