"""How full a backend is: the estimated wait behind a queue, and when work should go elsewhere."""

from __future__ import annotations

import math
from typing import NamedTuple

RESUME = 0.75
"""A backend past one of its marks takes work again once it is down to this share of it: without the
distance, every job that ends would let one in and send the next away."""

_P90 = 1.2816
"""Standard deviations above the mean below which nine of ten values of a normal distribution lie."""


class Wait(NamedTuple):
    """Seconds until a job begins: the time half of such jobs wait at most, and nine of ten."""

    p50: float
    p90: float


class Gauge(NamedTuple):
    """A queue as one tenant's next job would find it."""

    waiting: int
    ahead: int
    """Jobs that would begin before it."""
    own: int
    """Of those waiting, the tenant's."""
    in_flight: int
    saturated: bool
    """A mark was passed, and is not yet left well behind."""
    patient: int = 0
    """Of those waiting, those whose callers would rather wait than be refused."""


def wait_behind(ahead: int, in_flight: int, slots: int, seconds: float, spread: float = 0.0) -> Wait:
    """The wait of a job with so many others ahead in its queue.

    `slots` work at once, each job taking `seconds` on average with a standard deviation of `spread`.
    The n-th job to begin waits for n ends, which come every `seconds / slots`; as a sum of
    independent times it is near to normal, with a deviation that grows by the root of n.
    """
    slots = max(1, slots)
    ends = max(0, ahead + 1 - max(0, slots - in_flight))
    middle = ends * seconds / slots
    return Wait(middle, middle + _P90 * math.sqrt(ends) * spread / slots)


def past(mark: float | None, value: float, *, before: bool) -> bool:
    """Whether a mark is passed, with hysteresis: `before` tells whether it was."""
    return mark is not None and value >= (RESUME * mark if before else mark)


def share(mark: int, waiting: int) -> float:
    """How many of a queue's places one of several tenants may have while `waiting` are taken.

    Three times what is free: one tenant alone gets three quarters of the queue and n of them each
    3/(3n+1), so a place is always left for one more. Dynamic queue length thresholds, Choudhury
    and Hahne 1998, with their factor at 3.
    """
    return 3.0 * max(0, mark - waiting)
