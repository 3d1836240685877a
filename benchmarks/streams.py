"""Streamed answers: how much later the first token comes, and whether many streams keep their pace."""

from __future__ import annotations

import asyncio
from collections import Counter
from time import perf_counter

from chat_latency import CHAT
from client import Client, chat, clients, run
from ground import Meter, Options, Stack, running
from tables import Aim, Figure, Table, ms, percentile

PACE = 50
"""Tokens per second of each stream."""
STAGGER = 2.0
"""Seconds over which the streams begin."""


def measure(options: Options) -> Figure:
    with running(options, slots=256, answer_tokens=8) as stack:
        return run(_measure(stack, options))


async def _measure(stack: Stack, options: Options) -> Figure:
    first, aims = await _first_token(stack, options)
    pace, kept = await _pace(stack, options)
    return Figure([first, pace], [*aims, *kept])


async def _first_token(stack: Stack, options: Options) -> tuple[Table, list[Aim]]:
    body = chat(stack.model, stream=True)
    rows = []
    async with clients((stack.fake.url + CHAT, body), (stack.url + CHAT, body)) as (direct, through):
        sides: dict[Client, list[float]] = {direct: [], through: []}
        for measured in [False] * 100 + [True] * options.of(800, 150):
            for client, taken in sides.items():
                tokens = await client.tokens()
                if measured:
                    taken.append(tokens[0])
    added = {}
    for part in (0.5, 0.99):
        straight, whole = (percentile(taken, part) for taken in sides.values())
        added[part] = whole - straight
        rows.append([f"p{100 * part:.0f}", ms(straight), ms(whole), ms(whole - straight)])
    table = Table("First token of a stream, idle, milliseconds", ("", "direct", "K-9", "added"), rows)
    return table, [Aim("stream, idle: first token added p50", 1000 * added[0.5], 8, "ms", at_most=True)]


async def _pace(stack: Stack, options: Options) -> tuple[Table, list[Aim]]:
    length = options.of(250, 100)
    stack.fake.behave(answer_tokens=length, tokens_per_second=PACE)
    body = chat(stack.model, stream=True)
    meter = Meter(stack)
    rows, shares = [], {}
    async with clients((stack.fake.url + CHAT, body), (stack.url + CHAT, body)) as (direct, through):
        for count in (50, 200):
            for name, client in (("direct", direct), ("K-9", through)):
                meter.lap()
                row, shares[name, count] = await _together(client, count, length)
                cpu = Counter(meter.lap())
                each = 1e6 / (count * length)
                own = [cpu[part] * each for part in ("API", "worker", "Redis")] if name == "K-9" else []
                shown = [f"{value:.0f}" for value in own] or ["", "", ""]
                rows.append([f"{count} streams, {name}", *row, *shown])
    columns = ("", *("tokens/s", "of offered", "first p50", "first p99", "late p50", "late p99"))
    cpu_columns = ("API us", "worker us", "Redis us")
    note = (
        f"Each stream: {length} tokens at {PACE}/s; they begin one after the other over {STAGGER:g} s."
        "\nFirst: until the first token; late: how long after its time, counted from the request, a token of"
        "\nthe stream's second half arrived (milliseconds). The last columns are CPU per token."
    )
    table = Table("Many streams at once", (*columns, *cpu_columns), rows, note)
    return table, [Aim("200 streams: delivered of offered", 100 * shares["K-9", 200], 99, "%")]


async def _together(client: Client, count: int, length: int) -> tuple[list[str], float]:
    async def one(number: int) -> list[float]:
        await asyncio.sleep(number * STAGGER / count)
        return await client.tokens()

    began = perf_counter()
    streams = await asyncio.gather(*(one(number) for number in range(count)))
    took = perf_counter() - began
    tokens = sum(len(stream) for stream in streams)
    if tokens != count * length:
        raise RuntimeError(f"{tokens} tokens arrived of {count * length}")
    ideal = STAGGER * (count - 1) / count + (length - 1) / PACE
    late = [at - index / PACE for stream in streams for index, at in enumerate(stream) if 2 * index >= length]
    first = [stream[0] for stream in streams]
    row = [f"{tokens / took:.0f}", f"{100 * ideal / took:.1f} %"]
    row += [ms(percentile(values, part)) for values in (first, late) for part in (0.5, 0.99)]
    return row, ideal / took
