"""Traces: when requests came and how long they were, read from a file or drawn by a seeded generator.

The generator is fitted to the trace of Azure's inference services that was published with Patel et al.,
"Splitwise: Efficient generative LLM inference using phase splitting", ISCA 2024 (Azure/AzurePublicDataset,
CC-BY 4.0), of which it knows nothing but the figures in this module.
"""

from __future__ import annotations

import csv
import random
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from heapq import merge
from math import exp, log
from operator import attrgetter
from pathlib import Path

from k9_broker.errors import ConfigurationError

COLUMNS = ("t_seconds", "input_tokens", "output_tokens", "kind")
"""The first line of a trace's file."""

CONVERSATION_RATE, CODE_RATE = 5.91, 3.18
"""Requests a second of the two kinds on average."""
RATE = CONVERSATION_RATE + CODE_RATE

_DRIFT_SECONDS, _DRIFT_SHAPE = 300.0, 24.0
"""Conversation is a Poisson stream whose rate drifts: every five minutes it is drawn anew from a gamma
distribution of this shape, so with a deviation of a fifth."""
_ON_SECONDS, _OFF_SECONDS = 8.9, 33.6
"""Code is an interrupted Poisson process (Kuczura 1973): bursts and silences, exponential with these means.
With `CODE_RATE` a burst has 15 requests a second, and the gaps' coefficient of variation is 13."""

_SHARES = (0.0, 0.05, 0.1, 0.25, 0.5, 0.75, 0.85, 0.9, 0.95, 0.99, 0.999, 1.0)
_CONVERSATION = (
    (2, 181, 220, 396, 1015, 1204, 2222, 4074, 4085, 4122, 5305, 14050),
    (7, 39, 50, 81, 115, 393, 415, 421, 448, 598, 939, 1000),
)
_CODE = (
    (3, 77, 149, 560, 1462, 2707, 3900, 5031, 7138, 7436, 7437, 7437),
    (6, 6, 7, 9, 13, 23, 37, 55, 88, 252, 841, 1899),
)
"""Quantiles at `_SHARES` of a prompt's and of an answer's tokens, which are all but uncorrelated."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request of a trace."""

    at: float
    """Seconds after the trace's beginning."""
    prompt_tokens: int
    output_tokens: int
    kind: str
    """`conv` or `code`."""


def read_trace(path: Path) -> list[Arrival]:
    """The arrivals of a CSV file with `COLUMNS`, in order. Raises `ConfigurationError` naming the line."""
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            rows = csv.DictReader(lines)
            if missing := [name for name in COLUMNS if name not in (rows.fieldnames or ())]:
                raise ConfigurationError(
                    f"{path} has no column {missing[0]}; a trace begins with the line {','.join(COLUMNS)}."
                )
            found = [_arrival(row, path, rows.line_num) for row in rows]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"The trace {path} cannot be read: {error}") from None
    return sorted(found, key=attrgetter("at"))


def _arrival(row: dict[str, str], path: Path, line: int) -> Arrival:
    try:
        at, prompt, output = float(row["t_seconds"]), int(row["input_tokens"]), int(row["output_tokens"])
    except (TypeError, ValueError):
        raise ConfigurationError(f"{path}, line {line}: its first three columns must be numbers.") from None
    return Arrival(at, prompt, output, row["kind"])


def stretch(arrivals: Iterable[Arrival], start: float, seconds: float, *, every: int = 1) -> list[Arrival]:
    """Each `every`-th arrival within `seconds` from `start` on, counted from there; the first one is taken.

    Taking each n-th of a bursty stream divides its rate by n and leaves its bursts where they are.
    """
    within = [one for one in arrivals if start <= one.at < start + seconds]
    return [replace(one, at=one.at - start) for one in within[::every]]


def synthetic(seed: int, seconds: float, rate: float = RATE) -> list[Arrival]:
    """Arrivals as in the published trace, in order: conversation nearly Poisson, code in bursts.

    `rate` is requests a second on average; another than `RATE` runs the same pattern faster or slower.
    The same arguments give the same arrivals on every machine.
    """
    if seconds <= 0 or rate <= 0:
        raise ValueError("a trace needs a duration and a rate above 0")
    draw = random.Random(seed)  # noqa: S311 - no secret hangs on it
    pace = rate / RATE
    conversation = _requests(draw, "conv", _drifting(draw, seconds * pace), _CONVERSATION, pace)
    code = _requests(draw, "code", _bursts(draw, seconds * pace), _CODE, pace)
    return list(merge(conversation, code, key=attrgetter("at")))


def _requests(
    draw: random.Random, kind: str, instants: Iterator[float], sizes: Sequence[Sequence[int]], pace: float
) -> list[Arrival]:
    prompts, outputs = sizes
    return [
        Arrival(at / pace, _at_share(prompts, draw.random()), _at_share(outputs, draw.random()), kind)
        for at in instants
    ]


def _drifting(draw: random.Random, seconds: float) -> Iterator[float]:
    began = 0.0
    while began < seconds:
        rate = CONVERSATION_RATE * draw.gammavariate(_DRIFT_SHAPE, 1 / _DRIFT_SHAPE)
        yield from _poisson(draw, rate, began, min(seconds, began + _DRIFT_SECONDS))
        began += _DRIFT_SECONDS


def _bursts(draw: random.Random, seconds: float) -> Iterator[float]:
    cycle = _ON_SECONDS + _OFF_SECONDS
    rate = CODE_RATE * cycle / _ON_SECONDS
    bursting = draw.random() < _ON_SECONDS / cycle
    began = 0.0
    while began < seconds:
        ends = began + draw.expovariate(1 / (_ON_SECONDS if bursting else _OFF_SECONDS))
        if bursting:
            yield from _poisson(draw, rate, began, min(seconds, ends))
        began, bursting = ends, not bursting


def _poisson(draw: random.Random, rate: float, began: float, ends: float) -> Iterator[float]:
    while (began := began + draw.expovariate(rate)) < ends:
        yield began


def _at_share(quantiles: Sequence[int], share: float) -> int:
    """The value at a share between two quantiles, along an exponential."""
    above = min(bisect_right(_SHARES, share), len(_SHARES) - 1)
    low, high = quantiles[above - 1], quantiles[above]
    part = (share - _SHARES[above - 1]) / (_SHARES[above] - _SHARES[above - 1])
    return round(exp(log(low) + part * (log(high) - log(low))))
