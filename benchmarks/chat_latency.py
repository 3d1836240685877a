"""What a chat costs in latency when it goes through K-9 instead of straight to the backend."""

from __future__ import annotations

from client import Client, chat, clients, run
from ground import Options, Stack, running
from tables import Aim, Figure, Table, ms, percentile

CHAT = "/v1/chat/completions"


def measure(options: Options) -> Figure:
    with running(options, slots=64) as stack:
        return run(_measure(stack, options))


async def _measure(stack: Stack, options: Options) -> Figure:
    body = chat(stack.model)
    rows: list[list[str]] = []
    async with clients((stack.fake.url + CHAT, body), (stack.url + CHAT, body)) as (direct, through):
        for client in (direct, through):
            await client.crowd(200, 50)
        idle = await _turns(direct, through, rounds=options.of(1500, 200), count=1, concurrency=1)
        rows.append(_row("1 at a time, backend 0 ms", idle))
        walk = await _walk(through, percentile(idle[0], 0.5), options.of(500, 100))
        for latency in (0, 50, 500):
            stack.fake.behave(latency_ms=latency)
            count = 100 if latency == 500 else 250
            sides = await _turns(direct, through, options.of(6, 2), count, 50)
            rows.append(_row(f"50 at once, backend {latency} ms", sides))
    columns = ("milliseconds", *("direct p50", "K-9 p50", "added"), *("direct p99", "K-9 p99", "added"), "n")
    note = (
        "50 at once means that each of 50 callers asks again as soon as it has its answer. Rows whose"
        "\nbackend is faster than K-9's throughput show the wait for a turn, not the way through."
    )
    added50, added99 = (percentile(idle[1], part) - percentile(idle[0], part) for part in (0.5, 0.99))
    return Figure(
        [Table("Added latency of a chat", columns, rows, note), walk],
        [
            Aim("chat, idle: added p50", 1000 * added50, 5, "ms", at_most=True),
            Aim("chat, idle: added p99", 1000 * added99, 20, "ms", at_most=True),
        ],
    )


async def _walk(through: Client, direct: float, count: int) -> Table:
    """Where the time of an idle chat goes, from the instants in its job's record."""
    walks = [await through.walk() for _ in range(count)]
    steps = (
        "API: read, decide, admit",
        "Redis and Celery: wake a worker, claim",
        "worker: call, record the answer",
        "API: wake, read, answer",
    )
    rows = []
    for at, step in enumerate(steps):
        taken = [walk[at + 1] - walk[at] for walk in walks]
        rows.append([step, *(f"{1000 * percentile(taken, part):.2f}" for part in (0.5, 0.99))])
    rows.append(["(the backend alone, called directly)", f"{1000 * direct:.2f}", ""])
    return Table("Where an idle chat's time goes, milliseconds", ("step", "p50", "p99"), rows)


async def _turns(
    direct: Client, through: Client, rounds: int, count: int, concurrency: int
) -> tuple[list[float], list[float]]:
    sides: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for client, taken in zip((direct, through), sides, strict=True):
            taken += await client.crowd(count, concurrency)
    return sides


def _row(name: str, sides: tuple[list[float], list[float]]) -> list[str]:
    row = [name]
    for part in (0.5, 0.99):
        direct, through = (percentile(taken, part) for taken in sides)
        row += [ms(direct), ms(through), ms(through - direct)]
    return [*row, str(len(sides[0]))]
