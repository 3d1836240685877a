"""How a worker fills its slots and how long its jobs take: pure rules, for workers and for simulation."""

from __future__ import annotations

import math
from collections.abc import Callable

HOLD = 5.0
"""Seconds slots are kept after an interactive job was taken: it bridges the pauses of steady traffic."""
HALF_LIFE = 1.5
"""Seconds in which the memory of how many interactive jobs ran at once halves."""
_DECAY = 0.2
"""Weight of the newest job in the mean service time."""


class ServiceTimes:
    """Decaying mean and deviation of how long jobs take once they run. Of the first jobs each counts alike;
    then the newest counts `_DECAY`."""

    __slots__ = ("_jobs", "_variance", "mean")

    def __init__(self) -> None:
        self.mean = 1.0
        self._jobs = 0
        self._variance = 0.0

    def took(self, seconds: float) -> None:
        """A job has ended."""
        self._jobs += 1
        weight = max(_DECAY, 1 / self._jobs)
        off = seconds - self.mean
        self.mean += weight * off
        self._variance = (1 - weight) * (self._variance + weight * off * off) if self._jobs > 1 else 0.0

    @property
    def spread(self) -> float:
        """Standard deviation, seconds."""
        return math.sqrt(self._variance)


class KeptSlots:
    """How many of a worker's slots batch jobs may have now: while interactive jobs come, not those that
    they lately had, nor a few more; alone, a batch has them all."""

    def __init__(self, wanted: int | None, clock: Callable[[], float]) -> None:
        """`wanted` slots are kept; `None`: one in ten, at least one, and none of fewer than four."""
        self._wanted = wanted
        self._clock = clock
        self._until = float("-inf")
        self._lately = 0.0
        self._at = 0.0

    def interactive_came(self) -> None:
        """An interactive job was taken: keep slots for the next ones."""
        now = self._clock()
        if now >= self._until:
            self._lately = 0.0
        self._until = now + HOLD

    @property
    def in_force(self) -> bool:
        """Whether slots are kept now; else batch jobs may have all."""
        return self._clock() < self._until and self._wanted != 0

    def of(self, slots: int) -> int:
        """How many of so many slots are kept at least, beside those interactive jobs have, while in force."""
        if self._wanted is None:
            return max(1, slots // 10) if slots >= 4 else 0
        return self._wanted

    def most_batch(self, slots: int, interactive: int) -> int:
        """How many batch jobs may run now that so many interactive ones do, which it remembers.

        Free stays room for as many interactive jobs as lately ran, and for as many more as are kept or, if
        that is more, as such a number varies by where jobs come at random: its square root. One batch job
        may always run.
        """
        kept = self.of(slots)
        if not (self.in_force and kept):
            return slots
        now = self._clock()
        self._lately = max(interactive, self._lately * 0.5 ** ((now - self._at) / HALF_LIFE))
        self._at = now
        return max(1, slots - round(self._lately + max(kept, math.sqrt(self._lately))))
