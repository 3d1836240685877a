"""What a storm cost, counted: by the clients, by the gates, and in the ledger itself."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, fields
from itertools import pairwise

from chaos.storm_clients import Clients, Try
from chaos.storm_gate import Call
from chaos.storm_stack import Excuse, Stormy
from k9_broker.adapters import keys
from stand import wait_until

ENDED = {"succeeded", "failed", "cancelled", "expired", "dead"}
CELERYS = ("_kombu.binding", "unacked")
"""Keys without a time to live that are Celery's own: its queues' names, its list of what is under way."""


@dataclass(frozen=True)
class Tally:
    """One row of the table."""

    storm: str
    did: str
    accepted: int
    answered: int
    told: int
    """Accepted, and an error in the answer's place."""
    refused: int
    lost: int
    """Accepted, and neither answered nor told, though Redis kept it."""
    lost_by_redis: int
    """The same of jobs whose records Redis did not bring back."""
    recorded_twice: int
    paid_twice: int
    allowed: int
    """Of the calls paid twice: those of jobs whose worker died, froze or was cut off during them."""
    longest: float
    """Seconds the last of them waited for an answer, storm and all."""
    recovery: float
    """Seconds from the end of the disturbance until a job accepted after it was answered."""

    @classmethod
    def heads(cls) -> list[str]:
        return [one.name.replace("_", " ") for one in fields(cls)]

    @property
    def row(self) -> list[str]:
        values = (getattr(self, one.name) for one in fields(self))
        return [f"{value:.1f}" if isinstance(value, float) else str(value) for value in values]


def table(tallies: list[Tally]) -> str:
    """The rows in Markdown."""
    rows = [Tally.heads(), ["---"] * len(Tally.heads()), *(one.row for one in tallies)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def count(storm: str, stack: Stormy, clients: Clients, recovery: float) -> Tally:
    """Add up, once every job has ended."""
    fates = Counter(one.fate for one in clients.tries if one.accepted or one.fate == "told")
    missed = missing(clients)
    again = paid_again(stack.gates.calls)
    return Tally(
        storm=storm,
        did=", ".join(f"{number} {what}" for what, number in stack.done.items()),
        accepted=fates.total(),
        answered=fates["answered"],
        told=fates["told"],
        refused=sum(one.fate == "refused" for one in clients.tries),
        lost=len([one for one in missed if one.job not in stack.forgotten]),
        lost_by_redis=len([one for one in missed if one.job in stack.forgotten]),
        recorded_twice=_recorded_twice(stack),
        paid_twice=len(again),
        allowed=sum(excused(pair, stack.excuses) for pair in again),
        longest=max(one.ended - one.begun for one in clients.tries if one.accepted and one.ended),
        recovery=recovery,
    )


def missing(clients: Clients) -> list[Try]:
    """What was accepted, and has neither an answer nor an error in its place."""
    return [one for one in clients.tries if one.accepted and one.fate not in ("answered", "told")]


def paid_again(calls: list[Call]) -> list[tuple[Call, Call]]:
    """Each call beyond the first of its job, after the one before it."""
    of: dict[str, list[Call]] = defaultdict(list)
    for call in sorted(calls, key=lambda one: one.began):
        of[call.mark].append(call)
    return [pair for some in of.values() for pair in pairwise(some)]


def excused(pair: tuple[Call, Call], excuses: list[Excuse]) -> bool:
    """Whether something befell the first of two calls while it was under way, and the second came after."""
    before, after = pair
    return any(
        one.worker in (None, before.worker)
        and before.under_way(one.since, one.until)
        and after.began >= one.since
        for one in excuses
    )


def _recorded_twice(stack: Stormy) -> int:
    """Ends in the relays beyond one per job."""
    client = stack.redis.client
    ends = Counter(
        relay
        for relay in client.scan_iter(match=keys.relay("*"), count=1000)
        for _, event in client.xrange(relay)
        if event[b"kind"] == b"end"
    )
    return sum(number - 1 for number in ends.values())


def wait_for_quiet(stack: Stormy, seconds: float = 60) -> None:
    """Until every job there is has ended and every queue is empty."""
    client = stack.redis.client

    def quiet() -> bool:
        names = [key.decode() for key in client.scan_iter(match="k9*", count=1000)]
        queues = [name for name in names if name.startswith(("k9.local.", "k9.cloud."))]
        indexes = [name for name in names if name.startswith((keys.waiting(""), keys.leases("")))]
        return not (queues or indexes or client.exists(keys.DEADLINES))

    wait_until(quiet, "every job has ended", seconds)
    states = Counter(
        (client.hget(key, "state") or b"").decode() for key in client.scan_iter(match=keys.job("*"))
    )
    assert set(states) <= ENDED, states


def untidy(stack: Stormy) -> list[str]:
    """Keys without a time to live that stand in no list."""
    client = stack.redis.client
    known = (*keys.PERMANENT, *CELERYS)
    names = [key.decode() for key in client.scan_iter(count=1000) if client.ttl(key) == -1]
    return [name for name in names if not name.startswith(known)]
