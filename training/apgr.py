"""APGR: how much of the distance between two models a router recovers, averaged over its thresholds.

Definition (Ong et al., "RouteLLM: Learning to Route LLMs with Preference Data", 2024, arXiv 2406.18665,
section 3.2). With r(m) the mean answer quality of model m on the prompts, the performance gap recovered by a
router that sends the fraction c of the prompts to the strong model is

    PGR(c) = (r(router at c) - r(weak)) / (r(strong) - r(weak)),

and APGR is the integral of PGR over c from 0 to 1. The paper's program takes 10 thresholds at equal steps
of c, with all weak and all strong as the ends, and integrates by trapezoids; `points=10` does the same.

A random router has 0.5 in expectation, as has a constant score here: prompts with equal scores are sent in
proportion, which is the mean over all orders of the tie. The best router is above 1 where the weak model is
right on prompts that the strong one fails.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def recovered(score: Sequence[float] | Floats, gain: Sequence[float] | Floats) -> Floats:
    """PGR after each prompt, hardest first: n + 1 values from 0 to 1.

    `gain` is strong minus weak quality, one value a prompt. Raises ValueError when the lengths differ or
    the strong model is not better in the mean, because PGR then has no meaning.
    """
    scores, gains = np.asarray(score, float), np.asarray(gain, float)
    if scores.shape != gains.shape or scores.ndim != 1:
        raise ValueError("score and gain need one value for each prompt")
    if not gains.sum() > 0:
        raise ValueError("the strong model must be better than the weak one in the mean")
    _, level = np.unique(-scores, return_inverse=True)
    shared = np.bincount(level, gains) / np.bincount(level)
    order = np.argsort(level, kind="stable")
    curve: Floats = np.concatenate([[0.0], np.cumsum(shared[level[order]])]) / gains.sum()
    return curve


def apgr(score: Sequence[float] | Floats, gain: Sequence[float] | Floats, points: int | None = None) -> float:
    """Average performance gap recovered; over every possible threshold, or over `points` equal steps."""
    curve = recovered(score, gain)
    share = np.linspace(0.0, 1.0, len(curve))
    if points is None:
        return float(np.trapezoid(curve, share))
    steps = np.linspace(0.0, 1.0, points + 1)
    return float(np.trapezoid(np.interp(steps, share, curve), steps))


def bootstrap(
    scores: dict[str, Floats], gain: Floats, draws: int = 1000, seed: int = 0
) -> dict[str, NDArray[Any]]:
    """APGR of every named score on the same redrawn prompts: paired, so differences can be compared."""
    rng = np.random.default_rng(seed)
    found: dict[str, list[float]] = {name: [] for name in scores}
    while min(map(len, found.values())) < draws:
        rows = rng.integers(0, len(gain), len(gain))
        if gain[rows].sum() <= 0:
            continue
        for name, values in scores.items():
            found[name].append(apgr(values[rows], gain[rows]))
    return {name: np.asarray(values) for name, values in found.items()}


def interval(draws: NDArray[Any]) -> tuple[float, float]:
    """The middle 95 % of bootstrap draws."""
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)
