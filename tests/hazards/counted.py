"""Lost and doubled jobs, counted from what the ledger itself has written down."""

from __future__ import annotations

import signal
from collections import Counter
from typing import NamedTuple

from k9_broker.adapters import keys
from stack import Stack


class Damage(NamedTuple):
    lost: int
    """Jobs that did not succeed."""
    doubled: int
    """Ends recorded beyond one a job."""


NONE = Damage(0, 0)


class Tally:
    """What becomes of the jobs of a running K-9 from now on."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._before = self._counted()

    def _counted(self) -> int:
        return sum(int(value) for value in self._stack.redis.client.hvals(keys.ENDED))

    def damage(self, jobs: list[str], seconds: float) -> Damage:
        """Once all jobs have ended. A second end shows in the job's relay, and in the count of ended jobs."""
        states = self._stack.ended(jobs, seconds)
        told = sum(ends(self._stack, job) for job in jobs)
        return Damage(len(jobs) - states["succeeded"], max(told, self._counted() - self._before) - len(jobs))


def kinds(stack: Stack, job: str) -> list[str]:
    """The kinds of a job's events, in order."""
    return [fields[b"kind"].decode() for _, fields in stack.redis.client.xrange(keys.relay(job))]


def ends(stack: Stack, job: str) -> int:
    """How many ends a job's relay tells."""
    return Counter(kinds(stack, job))["end"]


def frozen(stack: Stack, node: str) -> None:
    """Stop a worker in its tracks, its sockets open."""
    stack.workers[node].send(signal.SIGSTOP)
