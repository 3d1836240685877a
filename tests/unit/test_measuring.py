"""What a worker's calls tell of its speed, on a clock that the test moves."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest

from k9_broker.models import Latency
from k9_workers.measuring import LATELY, Measuring


class Clock:
    now = 50.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def measuring(clock: Clock) -> Measuring:
    return Measuring(clock)


def delta(**said: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": said}]}


def stream(measuring: Measuring, clock: Clock, *, tokens: int = 11, per_chunk: int = 1) -> None:
    """0.5 s to the first token, then 0.1 s for each."""
    with measuring.call("m", streamed=True) as call:
        call.chunk(delta(role="assistant", content=""))
        clock.now += 0.5
        for number in range(tokens):
            if number:
                clock.now += 0.1
            if number % per_chunk == 0:
                call.chunk(delta(content="word "))
        call.chunk({"choices": [], "usage": {"completion_tokens": tokens}})
        call.answered(tokens)


def of(measuring: Measuring) -> Latency:
    return measuring.latencies()["m"]


def test_the_first_token_is_the_first_chunk_that_has_one(measuring: Measuring, clock: Clock) -> None:
    stream(measuring, clock)
    assert (of(measuring).ttft, of(measuring).tpot) == (pytest.approx(0.5), pytest.approx(0.1))


@pytest.mark.parametrize(
    "chunk",
    [
        delta(content="a"),
        delta(reasoning_content="a"),
        delta(tool_calls=[{"index": 0}]),
        {"choices": [{"index": 0, "text": "a"}]},
    ],
)
def test_tokens_of_all_sorts(measuring: Measuring, clock: Clock, chunk: dict[str, Any]) -> None:
    with measuring.call("m", streamed=True) as call:
        clock.now += 0.2
        call.chunk(chunk)
        clock.now += 5
        call.answered(1)
    assert of(measuring).ttft == pytest.approx(0.2)


@pytest.mark.parametrize("chunk", [{"choices": []}, {}, delta(role="assistant"), delta(content=None)])
def test_chunks_without_a_token(measuring: Measuring, clock: Clock, chunk: dict[str, Any]) -> None:
    with measuring.call("m", streamed=True) as call:
        call.chunk(chunk)
        assert call.first is None


def fail(measuring: Measuring, clock: Clock, after: float) -> None:
    with suppress(ConnectionError), measuring.call("m", streamed=True):
        clock.now += after
        raise ConnectionError


def test_a_fast_error_makes_nothing_fast(measuring: Measuring, clock: Clock) -> None:
    for _ in range(3):
        stream(measuring, clock)
    for _ in range(5):
        fail(measuring, clock, after=0.001)
    assert of(measuring).ttft == pytest.approx(0.5)


def test_only_errors_tell_nothing(measuring: Measuring, clock: Clock) -> None:
    fail(measuring, clock, after=1.0)
    assert measuring.latencies() == {}


def test_calls_that_time_out_are_slow_while_they_last_and_after(measuring: Measuring, clock: Clock) -> None:
    for _ in range(3):
        stream(measuring, clock)
    with measuring.call("m", streamed=True):
        clock.now += 30
        assert of(measuring).ttft == pytest.approx(30)
    fail(measuring, clock, after=30)
    assert of(measuring).ttft > 10  # the one before is half a minute old


def test_chunks_of_several_tokens_are_no_stall(measuring: Measuring, clock: Clock) -> None:
    for _ in range(3):
        stream(measuring, clock, tokens=60, per_chunk=10)
    with measuring.call("m", streamed=True) as call:
        clock.now += 0.5
        for _ in range(3):
            call.chunk(delta(content="ten words"))
            clock.now += 1.0
        assert of(measuring).tpot == pytest.approx(0.1, rel=0.05)
        clock.now += 30
        assert of(measuring).tpot > 0.5


def test_a_stream_whose_server_counts_no_tokens(measuring: Measuring, clock: Clock) -> None:
    with measuring.call("m", streamed=True) as call:
        for _ in range(5):
            clock.now += 0.1
            call.chunk(delta(content="word "))
        call.answered(0)
    assert (of(measuring).ttft, of(measuring).tpot) == (pytest.approx(0.1), pytest.approx(0.1))


def test_embeddings_are_measured_to_their_end(measuring: Measuring, clock: Clock) -> None:
    with measuring.call("m", streamed=False) as call:
        clock.now += 0.3
        call.answered(0)
    assert (of(measuring).ttft, of(measuring).tpot) == (pytest.approx(0.3), 0.0)


def test_a_model_nobody_calls_is_forgotten(measuring: Measuring, clock: Clock) -> None:
    stream(measuring, clock)
    clock.now += LATELY - 10
    assert "m" in measuring.latencies()
    clock.now += 20
    assert measuring.latencies() == {}


def test_the_mean_of_a_jobs_seconds_decays(measuring: Measuring) -> None:
    for _ in range(50):
        measuring.job_took(3.0)
    assert measuring.service_seconds == pytest.approx(3.0, abs=0.01)


def test_jobs_that_fail_fast_make_no_backend_look_fast(measuring: Measuring) -> None:
    measuring.job_took(3.0)
    for _ in range(20):
        measuring.job_took(0.01, answered=False)
    assert measuring.service_seconds == pytest.approx(3.0)
    measuring.job_took(60.0, answered=False)  # a timeout holds its slot as long as any
    assert measuring.service_seconds > 10
