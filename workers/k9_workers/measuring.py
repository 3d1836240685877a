"""How long calls and jobs take: what the worker announces of its speed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from k9_broker.latency import LatencyEstimate, Running
from k9_broker.models import Latency
from k9_broker.results import Chunk
from k9_broker.serving import ServiceTimes

LATELY = 3600.0
"""Seconds after its last call in which a model's estimate is told."""


@dataclass(slots=True, eq=False)
class MeasuredCall:
    """One attempt at one backend. It has an answer once it was told `answered`."""

    began: float
    streamed: bool
    clock: Callable[[], float]
    first: float | None = None
    """Seconds to the first token."""
    chunks: int = 0
    """Those with a token or more."""
    answer_tokens: int | None = None

    def chunk(self, chunk: Chunk) -> None:
        if bears_token(chunk):
            self.chunks += 1
            if self.first is None:
                self.first = self.clock() - self.began

    def answered(self, tokens: int) -> None:
        """The answer is complete and has so many tokens; an embedding's has none."""
        self.answer_tokens = tokens


@dataclass(slots=True)
class _Model:
    called: float
    estimate: LatencyEstimate = field(default_factory=LatencyEstimate)
    running: set[MeasuredCall] = field(default_factory=set)
    tokens_per_chunk: float = 1.0
    """Of the last stream; some servers send several at once."""

    def so_far(self, now: float, call: MeasuredCall) -> Running:
        return Running(now - call.began, call.streamed, call.first, call.chunks * self.tokens_per_chunk)

    def ended(self, now: float, call: MeasuredCall) -> None:
        if call.answer_tokens is None:
            self.estimate.observe_unfinished(now, self.so_far(now, call))
            return
        if call.chunks and call.answer_tokens:
            self.tokens_per_chunk = max(1.0, call.answer_tokens / call.chunks)
        self.estimate.observe(
            now,
            ttft=call.first,
            seconds=now - call.began,
            completion_tokens=call.answer_tokens or call.chunks,
        )


class Measuring:
    """Watches the calls of one worker. `clock` gives seconds that do not go back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._models: dict[str, _Model] = {}
        self._jobs = ServiceTimes()

    @contextmanager
    def call(self, model: str, *, streamed: bool) -> Iterator[MeasuredCall]:
        """Measure an attempt. One that ends without an answer counts as slow or not at all: an error
        that comes fast makes no backend look fast."""
        now = self._clock()
        of = self._models.setdefault(model, _Model(now))
        of.called = now
        call = MeasuredCall(now, streamed, self._clock)
        of.running.add(call)
        try:
            yield call
        finally:
            of.running.remove(call)
            of.ended(self._clock(), call)

    def job_took(self, seconds: float, *, answered: bool = True) -> None:
        """A job held its slot for so long. One without an answer counts as slow or not at all."""
        if answered or seconds > self._jobs.mean:
            self._jobs.took(seconds)

    @property
    def service_seconds(self) -> float:
        """Decaying mean of how long a job takes once it runs; while calls are under way that have lasted
        longer than that on average, what they have lasted."""
        now = self._clock()
        ages = [now - call.began for of in self._models.values() for call in of.running]
        return max(self._jobs.mean, sum(ages) / len(ages)) if ages else self._jobs.mean

    @property
    def service_spread(self) -> float:
        """Standard deviation of it, seconds."""
        return self._jobs.spread

    def latencies(self) -> dict[str, Latency]:
        """The present estimate for each model called lately, calls under way included."""
        now = self._clock()
        found: dict[str, Latency] = {}
        for name, of in list(self._models.items()):
            if not of.running and now - of.called > LATELY:
                del self._models[name]
            elif latency := of.estimate.at(now, [of.so_far(now, call) for call in of.running]):
                found[name] = latency
        return found


def bears_token(chunk: Chunk) -> bool:
    """Whether any of an answer is in it: text, thinking or a tool call."""
    return any(
        choice.get("text")
        or any(value for name, value in (choice.get("delta") or {}).items() if name != "role")
        for choice in chunk.get("choices") or ()
    )
