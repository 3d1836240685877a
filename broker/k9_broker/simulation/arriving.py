"""When requests come, and how long they are: the streams of a scenario as one, in order and drawn lazily."""

from __future__ import annotations

import random
from collections.abc import Iterator
from heapq import merge
from itertools import count, islice
from typing import NamedTuple

from k9_broker.simulation.scenario import Scenario, Traffic
from k9_broker.simulation.traces import RATE, Arrival, read_trace, stretch, synthetic

_CHUNK = 3600.0
"""Seconds of a drawn trace made at a time, so that a million requests take no memory."""
_SECONDS = 900.0
"""How long a stream lasts that says neither seconds nor requests."""


class Coming(NamedTuple):
    """One request to come."""

    at: float
    traffic: str
    prompt_tokens: int
    output_tokens: int
    kind: str


def arriving(scenario: Scenario) -> Iterator[Coming]:
    """All arrivals of a scenario but the feeders', in order. Raises `ConfigurationError` for a trace that
    cannot be read."""
    streams = [
        _limited(_stream(name, traffic, scenario.seed + number, whole=scenario.requests), traffic)
        for number, (name, traffic) in enumerate(scenario.traffic.items())
        if traffic.arrivals != "feeder"
    ]
    return islice(merge(*streams), scenario.requests)


def lines(name: str, traffic: Traffic, seed: int) -> Iterator[Coming]:
    """What a feeder has to send; the time is when it may begin."""
    draw = random.Random(seed)  # noqa: S311 - no secret hangs on it
    return (Coming(traffic.begins, name, *_lengths(draw, traffic)) for _ in range(traffic.requests or 0))


def _limited(stream: Iterator[Coming], traffic: Traffic) -> Iterator[Coming]:
    return islice(stream, traffic.requests)


def _stream(name: str, traffic: Traffic, seed: int, *, whole: int | None) -> Iterator[Coming]:
    endless = traffic.seconds is None and (traffic.requests or whole) is not None
    lasts = float("inf") if endless else traffic.seconds or _SECONDS
    if traffic.arrivals == "poisson":
        yield from _poisson(name, traffic, seed, lasts)
        return
    found = _trace(traffic) if traffic.arrivals == "trace" else _drawn(traffic, seed, lasts)
    for one in found:
        yield Coming(traffic.begins + one.at, name, one.prompt_tokens, one.output_tokens, one.kind)


def _trace(traffic: Traffic) -> Iterator[Arrival]:
    assert traffic.trace is not None
    read = read_trace(traffic.trace)
    taken = stretch(read, traffic.start, traffic.seconds or float("inf"), every=traffic.every)
    pace = 1.0
    if traffic.rate is not None and taken and taken[-1].at > 0:
        pace = traffic.rate * taken[-1].at / len(taken)
    return (Arrival(one.at / pace, one.prompt_tokens, one.output_tokens, one.kind) for one in taken)


def _drawn(traffic: Traffic, seed: int, lasts: float) -> Iterator[Arrival]:
    """The published trace's like, an hour at a time."""
    rate = traffic.rate or RATE
    for number in count():
        began = number * _CHUNK
        if began >= lasts:
            return
        for one in synthetic(seed * 1_000_003 + number, min(_CHUNK, lasts - began), rate):
            yield Arrival(began + one.at, one.prompt_tokens, one.output_tokens, one.kind)


def _poisson(name: str, traffic: Traffic, seed: int, lasts: float) -> Iterator[Coming]:
    draw = random.Random(seed)  # noqa: S311 - no secret hangs on it
    at, rate = 0.0, traffic.rate or 1.0
    while (at := at + draw.expovariate(rate)) < lasts:
        yield Coming(traffic.begins + at, name, *_lengths(draw, traffic))


def _lengths(draw: random.Random, traffic: Traffic) -> tuple[int, int, str]:
    prompt, output = float(traffic.prompt_tokens), float(traffic.output_tokens)
    if traffic.lengths == "exponential":
        prompt = draw.expovariate(1 / prompt) if prompt else 0.0
        output = draw.expovariate(1 / output)
    return round(prompt), max(1, round(output)), "conv"
