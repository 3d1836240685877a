"""How fast a model answers at a backend now, from calls that ended and calls that are late.

**Evidence.** A streamed call tells its time to first token and, as (seconds - first) / (tokens - 1),
its time per further token. A whole call tells only its seconds: both present estimates are scaled by
seconds / predicted seconds; before there is an estimate the first token counts as `FIRST_AS_TOKENS`
tokens. An embeddings call is all first token. A call under way tells what it has cost so far, as soon
as that is `LATE` times what is expected, and counts twice from `VERY_LATE` times on: nobody else may
ever tell that a backend hangs. A call that failed or was ended tells no more than that.

**Estimate.** Of each of the two times there is a baseline b and the evidence x of the `WINDOW` calls
that began last. With its age a each piece of evidence is drawn back to the baseline, and the estimate
is the median:

    median of  b * (x / b) ** (2 ** (-a / HALF_LIFE))

where a is the seconds since it was seen, and those in which a call was under way count `BUSY_RATE`: where
calls are slow, the last one is news for longer. So one odd call moves nothing, two move it all, and
without new calls a bad estimate fades until the backend looks worth trying again.

**Baseline.** After each ended call ln b goes towards the logarithm of the window's median by the
share 1 - 2 ** (-dt / h), where dt is the time since the call before, at most `LONGEST_GAP`, and h is
`FASTER_HALF_LIFE` or `SLOWER_HALF_LIFE`, as the median is below or above it: a backend that has
recovered is believed sooner than one that has become slow. The nth of the first `WARM_UP` calls moves
it by 1 / n at least.

Pure: time is passed in, in seconds of any clock that does not go back.
"""

from __future__ import annotations

import math
from bisect import insort
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median, median_low

from k9_broker.models import Latency

HALF_LIFE = 8.0
"""Seconds in which evidence loses half of its distance to the baseline."""
BUSY_RATE = 0.1
FASTER_HALF_LIFE, SLOWER_HALF_LIFE = 30.0, 300.0
"""Seconds in which the baseline goes half the way, down and up."""
LONGEST_GAP = 30.0
"""Seconds that one call may stand for: after an idle hour it is still one call."""
WARM_UP = 8
WINDOW = 3
LATE, VERY_LATE = 1.5, 3.0
"""Times the expectation at which a call under way is evidence, once and twice."""
FIRST_AS_TOKENS = 10.0
SPARE_TOKENS = 4.0
"""Tokens a stream is credited before it counts as stalled."""
_REMEMBERED = 16
"""Calls among which the longest is what a call under way may last."""
_LEAST, _MOST = 1e-5, 1e6
"""Seconds beyond which differences mean nothing; the logarithm needs the lower."""


@dataclass(frozen=True, slots=True)
class Running:
    """A call under way, or one that ended without its answer."""

    elapsed: float
    streamed: bool
    ttft: float | None = None
    """Seconds to its first token, if that has come."""
    tokens: float = 0.0
    """Tokens so far, of a stream."""


class LatencyEstimate:
    """The estimate for one model at one backend."""

    def __init__(self) -> None:
        self._first = _Track()
        self._further = _Track()
        self._lengths: deque[float] = deque(maxlen=_REMEMBERED)
        self._embeddings: deque[float] = deque(maxlen=_REMEMBERED)

    def observe(self, now: float, *, ttft: float | None, seconds: float, completion_tokens: float) -> None:
        """A call has ended with its answer. `ttft` is `None` when it came whole; no tokens: embeddings."""
        began = now - seconds
        if completion_tokens <= 0:
            self._first.add(now, began, seconds if ttft is None else ttft)
            if ttft is None:
                self._embeddings.append(seconds)
            return
        further: float | None = None
        if ttft is None:
            ttft, further = self._split(now, seconds, completion_tokens)
        elif completion_tokens > 1:
            further = (seconds - ttft) / (completion_tokens - 1)
        self._first.add(now, began, ttft)
        if further is not None:
            self._further.add(now, began, further)
        self._lengths.append(completion_tokens)

    def observe_unfinished(self, now: float, call: Running) -> None:
        """A call has ended without its answer: it counts if it was late, and never as a fast one."""
        firsts, furthers = self._so_far(call, self._first.at(now), self._further.at(now))
        for track, values in ((self._first, firsts), (self._further, furthers)):
            if late := _late(max(values, default=0.0), track.at(now)):
                track.add(now, now - call.elapsed, late[0])

    def at(self, now: float, running: Iterable[Running] = ()) -> Latency | None:
        """The estimate, with what the calls under way tell; `None` before any call has ended."""
        first, further = self._first.at(now), self._further.at(now)
        if first is None:
            return None
        firsts: list[_Evidence] = []
        furthers: list[_Evidence] = []
        busy_since = now
        for call in running:
            busy_since = min(busy_since, now - call.elapsed)
            for into, values in zip((firsts, furthers), self._so_far(call, first, further), strict=True):
                into += [_Evidence(now - call.elapsed, now, _log(value)) for value in values]
        first, further = self._first.at(now, firsts, busy_since), self._further.at(now, furthers, busy_since)
        return Latency(ttft=first or 0.0, tpot=further or 0.0)

    def _split(self, now: float, seconds: float, tokens: float) -> tuple[float, float]:
        first, further = self._first.at(now), self._further.at(now)
        if first is None or further is None:
            further = seconds / (tokens + FIRST_AS_TOKENS)
            return FIRST_AS_TOKENS * further, further
        ratio = seconds / _seconds(first, further, tokens)
        return first * ratio, further * ratio

    def _so_far(
        self, call: Running, first: float | None, further: float | None
    ) -> tuple[Sequence[float], Sequence[float]]:
        """What a call tells of both times before its end, where `first` and `further` are expected:
        nothing, a value, or the value twice."""
        if first is None:
            return (), ()
        if call.ttft is not None:
            return (call.ttft,), _late((call.elapsed - call.ttft) / (call.tokens + SPARE_TOKENS), further)
        if call.streamed:
            return _late(call.elapsed, first), ()
        longest = _seconds(first, further or 0.0, max(self._lengths, default=0.0))
        expected = max(longest, *self._embeddings, _LEAST)
        times = len(_late(call.elapsed, expected))
        ratio = call.elapsed / longest
        return times * (first * ratio,), times * (further * ratio,) if further is not None else ()


def moved(before: Latency | None, after: Latency, factor: float) -> bool:
    """Whether an estimate has moved by more than `factor`; a few milliseconds are no movement."""
    if before is None:
        return True
    pairs = (before.ttft + 0.01, after.ttft + 0.01), (before.tpot + 0.001, after.tpot + 0.001)
    return any(max(pair) > factor * min(pair) for pair in pairs)


@dataclass(frozen=True, slots=True, order=True)
class _Evidence:
    began: float
    """When the call began."""
    seen: float
    """When it told this."""
    value: float
    """Natural logarithm of seconds."""


class _Track:
    """The baseline and the newest evidence of one of the two times."""

    def __init__(self) -> None:
        self._baseline = 0.0
        self._calls = 0
        self._added = -math.inf
        self._ended: list[_Evidence] = []

    def add(self, now: float, began: float, seconds: float) -> None:
        insort(self._ended, _Evidence(began, now, _log(seconds)))
        del self._ended[:-WINDOW]
        self._calls += 1
        towards = median_low(one.value for one in self._ended)
        half_life = SLOWER_HALF_LIFE if towards > self._baseline else FASTER_HALF_LIFE
        share = 1 - 2.0 ** (-min(LONGEST_GAP, max(0.0, now - self._added)) / half_life)
        if self._calls <= WARM_UP:
            share = max(share, 1 / self._calls)
        self._baseline += share * (towards - self._baseline)
        self._added = now

    def at(self, now: float, running: Iterable[_Evidence] = (), busy_since: float = math.inf) -> float | None:
        """Seconds; `None` without any evidence from calls that ended."""
        if not self._calls:
            return None
        spans = sorted([*((one.began, one.seen) for one in self._ended), (busy_since, now)])
        newest = sorted([*self._ended, *running])[-WINDOW:]
        drawn = [
            self._baseline + (one.value - self._baseline) * 2.0 ** (-_age(one.seen, now, spans) / HALF_LIFE)
            for one in newest
        ]
        drawn += [self._baseline] * (WINDOW - len(drawn))
        return math.exp(median(drawn))


def _age(seen: float, now: float, spans: Iterable[tuple[float, float]]) -> float:
    """Seconds from `seen` to `now`, less for those within `spans`, which are in order of their begin."""
    busy, reached = 0.0, seen
    for begin, end in spans:
        if end > reached:
            busy += max(0.0, end - max(begin, reached))
            reached = end
    return max(0.0, now - seen - (1 - BUSY_RATE) * busy)


def _log(seconds: float) -> float:
    return math.log(min(_MOST, max(_LEAST, seconds)))


def _seconds(first: float, further: float, tokens: float) -> float:
    return first + further * max(0.0, tokens - 1)


def _late(seconds: float, expected: float | None) -> Sequence[float]:
    if expected is None or seconds < LATE * expected:
        return ()
    return (seconds,) if seconds < VERY_LATE * expected else (seconds, seconds)
