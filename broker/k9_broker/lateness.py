"""When a job has waited too long where it is: a pure rule over its queue."""

from __future__ import annotations

from k9_broker.requests import Priority
from k9_broker.snapshot import BackendView

LATE = "overflow:late"
"""The reason of a job that was moved because it had waited too long."""
PATIENCE = 2.0
"""Times the wait mark of its backend that an interactive job may wait there in all."""
GAIN = 0.5
"""The share of its remaining wait that another place must not exceed to be worth the move."""


def is_late(
    view: BackendView, priority: Priority, *, ahead: int, waited: float, busy: float, seconds_left: float
) -> bool:
    """Whether a job should go elsewhere if it can.

    `waited` seconds so far, with `ahead` jobs before it, it is expected to hold a slot for `busy` seconds
    once it begins, and has `seconds_left` until its deadline. It is late when it would miss the deadline;
    an interactive one also when it would wait longer in all than its backend's mark allows. A job that is
    about to begin stays.
    """
    remaining = view.wait_behind(ahead).p50
    if remaining <= 0:
        return False
    if remaining + busy > seconds_left:
        return True
    mark = view.overflow_wait
    if priority is Priority.BATCH or mark is None:
        return False
    return waited + remaining > PATIENCE * mark and remaining > mark / PATIENCE


def is_worth_it(view: BackendView, priority: Priority, remaining: float) -> bool:
    """Whether a job that still has to wait so many seconds gains enough by going there."""
    return view.estimated_wait(priority) <= GAIN * remaining
