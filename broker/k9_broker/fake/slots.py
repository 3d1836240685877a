"""Room for a number of requests at once; the others wait in order, for as long as they like."""

from __future__ import annotations

import asyncio
from collections import deque


class Slots:
    """A semaphore whose size may change while it is held. `limit` 0 means no limit."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.active = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def waiting(self) -> int:
        return sum(not turn.done() for turn in self._waiting) if self._waiting else 0

    def full(self, most: int | None) -> bool:
        """Whether whoever enters now would wait, beside `most` others or more."""
        return most is not None and not self._room and self.waiting >= most

    def resize(self, limit: int) -> None:
        self._limit = limit
        self._admit()

    def enter(self) -> asyncio.Future[None] | None:
        """Take a slot now and return `None`, or return the turn to wait for."""
        if not self.waiting and self._room:
            self.active += 1
            return None
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        return turn

    def leave(self, turn: asyncio.Future[None] | None) -> None:
        """Give the slot back, or the turn if it has not come."""
        if turn is None or (turn.done() and not turn.cancelled()):
            self.active -= 1
        else:
            turn.cancel()
        self._admit()

    @property
    def _room(self) -> bool:
        return not self._limit or self.active < self._limit

    def _admit(self) -> None:
        while self._waiting and (self._waiting[0].done() or self._room):
            turn = self._waiting.popleft()
            if not turn.done():
                self.active += 1
                turn.set_result(None)
