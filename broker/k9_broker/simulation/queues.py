"""A backend's queue as tenants share it: what `scripts/parts/queues.lua` does, in memory.

Start-time fair queueing (Goyal, Vin and Cheng 1996): a job's number is when its tenant's turn comes, in
microseconds of a slot's time, and each job puts its tenant's next turn off by what it is expected to take,
over the tenant's weight. The queue's own time is the turn of the job that was taken last; who had nothing
waiting begins there.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count
from operator import attrgetter

from k9_broker.simulation.calls import Call

_MICROS = 1_000_000
"""Of a second. Turns are whole numbers of them, so that the same ones are equal here and in Redis."""
_LEARN, _MOST_STRETCH = 0.05, 100
_place = attrgetter("place")
_number = attrgetter("number")


class TurnQueue:
    """Jobs that wait, in the order of their turns."""

    def __init__(self) -> None:
        self._calls: list[Call] = []
        self._head = 0
        self._now = 0
        self._of: dict[str, int] = {}
        self._own: Counter[str] = Counter()
        self._came = count()
        self._took = self._expected = 0.0

    def __len__(self) -> int:
        return len(self._calls) - self._head

    def __iter__(self) -> Iterator[Call]:
        return iter(self._calls[self._head :])

    def own(self, tenant: str) -> int:
        """How many of those waiting are the tenant's."""
        return self._own[tenant]

    def ahead(self, tenant: str) -> int:
        """How many would begin before the tenant's next one."""
        waiting = len(self._calls) - self._head
        if self._own[tenant] == waiting:
            return waiting
        return bisect_right(self._calls, self._turn_of(tenant), lo=self._head, key=_number) - self._head

    def take_turn(self, call: Call, busy: float, left: float = math.inf) -> None:
        """A job comes in where its tenant's turn is. `busy`: seconds it is expected to hold a slot, which it
        does no longer than the `left` ones until its deadline."""
        call.number = self._turn_of(call.tenant)
        call.place = (call.number, next(self._came))
        if not self._calls or self._calls[-1].place < call.place:
            self._calls.append(call)
        else:
            insort(self._calls, call, lo=self._head, key=_place)
        self._own[call.tenant] += 1
        call.busy = busy
        call.charge = max(1, math.floor(min(busy * self._stretch(), left) * _MICROS / call.weight))
        self._of[call.tenant] = call.number + call.charge

    def take(self, may_run: Callable[[Call], bool] | None = None) -> Call | None:
        """The first job, which begins now; with `may_run`, the first that may."""
        for at in range(self._head, len(self._calls)):
            call = self._calls[at]
            if may_run is None or may_run(call):
                self._remove(at)
                self._now = max(self._now, call.number)
                return call
        return None

    def leave(self, call: Call) -> None:
        """A job waits no more, and does not begin: its tenant has its turn back."""
        self._remove(bisect_left(self._calls, call.place, lo=self._head, key=_place))
        self._put_off(call.tenant, -call.charge)

    def settle(self, call: Call, took: float) -> None:
        """A job that ran gives its tenant's turn what it took more, or less, than it was charged."""
        self._put_off(call.tenant, took * _MICROS / call.weight - call.charge)
        if call.busy > 0:
            before, wanted = self._took or call.busy, self._expected or call.busy
            self._took = before + _LEARN * (took - before)
            self._expected = wanted + _LEARN * (call.busy - wanted)

    def _stretch(self) -> float:
        """How many times longer than expected jobs have lately taken."""
        if not self._expected:
            return 1.0
        return max(1 / _MOST_STRETCH, min(self._took / self._expected, _MOST_STRETCH))

    def _remove(self, at: int) -> None:
        self._own[self._calls[at].tenant] -= 1
        if at > self._head:
            del self._calls[at]
            return
        self._head += 1
        if 2 * self._head > len(
            self._calls
        ):  # forget those that have gone, in pieces that grow with the list
            del self._calls[: self._head]
            self._head = 0

    def _turn_of(self, tenant: str) -> int:
        return max(self._now, self._of.get(tenant, 0))

    def _put_off(self, tenant: str, by: float) -> None:
        self._of[tenant] = round(self._of.get(tenant, 0) + by)
