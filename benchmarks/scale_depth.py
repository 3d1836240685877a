"""What a deep queue costs: admission, claim and finish of one job by how many wait before it.

Beside every deep queue stands an empty one in a Redis of its own, and the two take turns.
"""

from __future__ import annotations

from collections.abc import Iterable
from statistics import mean

from k9_broker.adapters import keys
from k9_broker.jobs import Claim, new_job_id
from k9_broker.requests import Kind, Priority
from k9_broker.results import Outcome, Result
from scale_ground import BACKEND, TENANT, Cost, Store, decided, fill, line, queue, store
from tables import Aim, Figure, Table

STEP = 16
"""Jobs admitted, then claimed, then finished in a round, so that the depth stays what it is."""
LIGHT = "light"
"""A tenant that comes to a queue full of another's jobs."""
CHUNK = 256
"""Lines that `k9 embed` packs into a job."""


class Costs:
    """Of one queue."""

    def __init__(self) -> None:
        self.admit, self.claim, self.finish = Cost.none(), Cost.none(), Cost.none()

    async def round(self, at: Store, tenants: Iterable[str], priority: Priority) -> None:
        names = list(tenants)
        place, where = decided(priority, shared=len(names) > 1), queue(priority)
        asked = [line(names[number % len(names)], priority) for number in range(STEP)]
        await self.admit.of(at, (at.ledger.admit(new_job_id(), one, place) for one in asked))
        first = [one.decode() for one in at.client.zrange(keys.waiting(where), 0, STEP - 1)]
        at.client.rpop(where, STEP)  # as the worker takes them
        claims: list[Claim] = await self.claim.of(
            at, (at.ledger.claim(one, 1, "w", Kind.LOCAL) for one in first)
        )
        answer = Outcome.succeeded(Result(BACKEND))
        await self.finish.of(at, (at.ledger.finish(one, answer, 0) for one in claims))
        at.client.unlink(*(keys.job(one) for one in first), *(keys.relay(one) for one in first))

    def row(self, name: str, empty: Costs) -> list[str]:
        parts = [(self.admit, empty.admit), (self.claim, empty.claim), (self.finish, empty.finish)]
        redis = [f"{one.microseconds:.0f}" for one, _ in parts]
        ratios = [f"{one.microseconds / other.microseconds:.2f}" for one, other in parts]
        return [name, *redis, *ratios, f"{self.admit.milliseconds:.2f}", f"{self.client(empty):.2f}"]

    def client(self, empty: Costs) -> float:
        return self.admit.milliseconds / empty.admit.milliseconds

    def ratio(self, empty: Costs) -> float:
        """Of Redis' time for the whole of a job's way."""

        def whole(one: Costs) -> float:
            return one.admit.microseconds + one.claim.microseconds + one.finish.microseconds

        return whole(self) / whole(empty)


_COLUMNS = (
    "",
    "admit µs",
    "claim µs",
    "finish µs",
    "/ empty",
    "/ empty",
    "/ empty",
    "admit ms, asked",
    "/ empty",
)


async def measure(depths: Iterable[int], rounds: int) -> Figure:
    rows: list[list[str]] = []
    aims: list[Aim] = []
    async with store() as deep, store() as other:
        for depth in depths:
            await fill(deep, depth)
            here, empty = await _beside(deep, other, rounds)
            rows.append(here.row(f"{depth:,} wait", empty))
            aims.append(
                Aim(f"Redis' time of a job, {depth:,} waiting / empty", here.ratio(empty), 1.5, "x", True)
            )
        memory = await _memory(other)
    one = Table("A batch queue of one tenant: Redis' time for one job", _COLUMNS, rows, _NOTE)
    return Figure([one, await _several(rounds), await _shared(rounds), memory], aims)


_NOTE = (
    "Redis' time is its own count of the scripts (`INFO commandstats`), the middle of all rounds; the last"
    "\ncolumn but one is the round trip. Each is set beside an empty queue in a Redis of its own."
)


async def _beside(
    deep: Store, other: Store, rounds: int, tenants: tuple[str, ...] = (TENANT,),
    priority: Priority = Priority.BATCH,
) -> tuple[Costs, Costs]:  # fmt: skip
    here, empty = Costs(), Costs()
    for number in range(rounds + 1):
        if number == 1:  # the first round has loaded the scripts
            here, empty = Costs(), Costs()
        await here.round(deep, tenants, priority)
        await empty.round(other, tenants[:1], priority)
    return here, empty


async def _several(rounds: int) -> Table:
    """An interactive queue at the usual mark, shared by so many."""
    rows = []
    for count in (1, 2, 10):
        names = tuple(f"tenant-{number}" for number in range(count))
        async with store() as full, store() as other:
            place = decided(Priority.INTERACTIVE, shared=count > 1)
            for number in range(256):
                asked = line(names[number % count], Priority.INTERACTIVE)
                await full.ledger.admit(new_job_id(), asked, place)
            here, empty = await _beside(full, other, rounds, names, Priority.INTERACTIVE)
            rows.append(here.row(f"256 wait, {count} tenants", empty))
    return Table("An interactive queue at its mark", _COLUMNS, rows)


async def _shared(rounds: int) -> Table:
    """A deep batch queue of one tenant, to which another comes."""
    rows = []
    async with store() as deep, store() as other:
        for depth in (10_000, 100_000):
            await fill(deep, depth)
            for name, share in (("before nearly all of it", 0.0), ("in its middle", 0.5)):
                here, empty = await beside_light(deep, other, rounds, share)
                rows.append(here.row(f"{depth:,} wait, {name}", empty))
    return Table("A second tenant's job in a deep batch queue of the first", _COLUMNS, rows)


async def beside_light(deep: Store, other: Store, rounds: int, share: float) -> tuple[Costs, Costs]:
    """The second tenant's turn has come so far through the first's jobs."""
    here, empty = Costs(), Costs()
    turns = keys.turns(queue())
    for number in range(rounds // 2 + 1):
        if number == 1:
            here, empty = Costs(), Costs()
        now, last = (float(deep.client.hget(turns, name) or 0) for name in ("now", f"of {TENANT}"))
        deep.client.hset(turns, f"of {LIGHT}", f"{now + share * (last - now):.0f}")
        await here.round(deep, (LIGHT,), Priority.BATCH)
        await empty.round(other, (TENANT,), Priority.BATCH)
    return here, empty


async def _memory(at: Store) -> Table:
    """What a waiting line takes of Redis."""
    rows = []
    for name, lines, jobs in (("a job of one line", 1, 2000), (f"a job of {CHUNK} lines", CHUNK, 400)):
        before = at.memory
        asked = line(lines=lines)
        made = [(await at.ledger.admit(new_job_id(), asked, decided())).id for _ in range(jobs)]
        each = (at.memory - before) / jobs
        record = mean(at.client.memory_usage(keys.job(one), samples=0) for one in made[:50])
        text = len(asked.dump())
        rows.append([name, f"{each:,.0f}", f"{record:,.0f}", f"{text:,}", f"{each / lines:,.0f}"])
    columns = ("bytes", "in all", "its record", "of that the request", "for each line")
    return Table("Redis' memory for what waits", columns, rows)
