"""How many synchronous chats a second go through the whole path, and what CPU each costs where."""

from __future__ import annotations

from collections import Counter
from time import perf_counter

from chat_latency import CHAT
from client import Client, chat, clients, run
from ground import Meter, Options, Stack, running
from tables import Aim, Figure, Table

PEER = 35
"""Requests a second of the Python proxy that K-9 is compared with, one worker on two such cores."""


def measure(options: Options) -> Figure:
    with running(options, slots=128) as stack:
        return run(_measure(stack, options))


async def _measure(stack: Stack, options: Options) -> Figure:
    body = chat(stack.model)
    meter = Meter(stack)
    parts = ("API", "worker", "Redis", "fake", "client")
    rates, costs, most = [], [], 0.0
    async with clients((stack.fake.url + CHAT, body), (stack.url + CHAT, body)) as (direct, through):
        for client in (direct, through):
            await client.crowd(300, 32)
        for concurrency in (8, 32, 128):
            count, rounds = options.of(800, 300), options.of(4, 2)
            straight, whole, cpu = [], [], Counter[str]()
            for _ in range(rounds):
                straight.append(await _rate(direct, count, concurrency))
                meter.lap()
                whole.append(await _rate(through, count, concurrency))
                cpu.update(meter.lap())
            mean = sum(whole) / rounds
            most = max(most, mean)
            spread = f"{min(whole):.0f}-{max(whole):.0f}"
            rates.append([str(concurrency), f"{sum(straight) / rounds:.0f}", f"{mean:.0f}", spread])
            each = {name: 1000 * cpu[name] / (rounds * count) for name in parts}
            own = each["API"] + each["worker"] + each["Redis"]
            costs.append([str(concurrency), *(f"{each[name]:.2f}" for name in parts), f"{own:.2f}"])
    return Figure(
        [
            Table("Synchronous chats per second", ("at once", "direct", "K-9", "rounds"), rates),
            Table("CPU of a chat through K-9, milliseconds", ("at once", *parts, "K-9's own"), costs),
        ],
        [Aim(f"chats per second (5 x a peer's {PEER})", most, 5 * PEER, "/s")],
    )


async def _rate(client: Client, count: int, concurrency: int) -> float:
    began = perf_counter()
    await client.crowd(count, concurrency)
    return count / (perf_counter() - began)
