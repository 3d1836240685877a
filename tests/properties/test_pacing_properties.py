"""What holds of every pace towards a backend: on a real Redis, in simulated time."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k9_broker.adapters import keys
from paced import START, Simulated, Simulation, most_in_window, simulate
from stand import RedisProcess


@pytest.fixture(scope="module")
def simulated(redis_server: RedisProcess) -> Simulated:
    return partial(simulate, redis_server.url)


gaps = st.lists(st.floats(0, 30), max_size=8)
limits = st.sampled_from([1, 2, 7, 60, 500, 3000])


@settings(max_examples=40)
@given(limit=limits, bursts=st.lists(st.tuples(st.integers(1, 60), st.floats(0, 40)), min_size=1, max_size=6),
       late=st.floats(0, 0.9))  # fmt: skip
def test_no_minute_has_more_calls_than_the_limit(
    simulated: Simulated, limit: int, bursts: list[tuple[int, float]], late: float
) -> None:
    """However they come, and though their workers are late to notice that it is their turn."""

    async def walk(make: Callable[..., Simulation]) -> None:
        pace = make(requests=limit)
        for callers, gap in bursts:
            for _ in range(callers):
                await pace.ask()
            await pace.until(pace.now + gap, late=late)
        await pace.drain()
        assert len(pace.granted) == sum(callers for callers, _ in bursts), "somebody was never granted"
        assert most_in_window([(at, 1) for at, _, _ in pace.granted], 60) <= limit

    simulated(walk)


@settings(max_examples=30)
@given(limit=st.sampled_from([1000, 60_000]), shares=st.lists(st.floats(0, 0.2), min_size=1, max_size=80))
def test_no_minute_has_more_tokens_than_the_limit_and_one_large_call(
    simulated: Simulated, limit: int, shares: list[float]
) -> None:
    async def walk(make: Callable[..., Simulation]) -> None:
        pace = make(tokens=limit)
        sizes = [max(1, int(share * limit)) for share in shares]
        for size in sizes:
            await pace.ask(size)
        await pace.drain()
        assert len(pace.granted) == len(sizes)
        most = most_in_window([(at, size) for at, _, size in pace.granted], 60)
        assert most <= limit + max(0, max(sizes) - 0.01 * limit)

    simulated(walk)


@pytest.mark.parametrize(
    ("limit", "minutes"), [({"requests": 300}, 5), ({"tokens": 30_000}, 5), ({"requests": 10}, 30)]
)
def test_a_busy_pace_uses_the_limit(simulated: Simulated, limit: dict[str, int], minutes: int) -> None:
    async def walk(make: Callable[..., Simulation]) -> None:
        pace = make(**limit)
        size = 100 if "tokens" in limit else 1
        end = START + 60 * minutes
        while pace.now < end:
            while pace.waiting < 32:
                await pace.ask(size)
            await pace.until(pace.now + 0.2, late=0.01)
        granted = sum(size for at, _, size in pace.granted if at < end)
        assert granted >= 0.95 * minutes * next(iter(limit.values()))

    simulated(walk)


@settings(max_examples=25)
@given(sizes=st.lists(st.sampled_from([1, 10, 5000]), min_size=2, max_size=60), holds=gaps)
def test_turns_come_in_the_order_of_asking(
    simulated: Simulated, sizes: list[int], holds: list[float]
) -> None:
    """A large call is not passed by small ones, and a hold moves all turns alike."""

    async def walk(make: Callable[..., Simulation]) -> None:
        pace = make(requests=600, tokens=60_000)
        for size in sizes:
            await pace.ask(size)
        for hold in holds:
            await pace.pacer.hold(hold)
            held = pace.now + hold
            before = len(pace.granted)
            await pace.until(held - 0.01)
            assert len(pace.granted) == before, "a call began while all were held"
            await pace.until(held + 0.5)
        await pace.drain()
        numbers = [number for _, number, _ in pace.granted]
        assert numbers == sorted(numbers)

    simulated(walk)


def test_tokens_that_were_not_used_are_used_by_others(simulated: Simulated) -> None:
    """Twenty-four callers ask for 2,000 tokens each and use 100, a second after they began."""

    async def walk(make: Callable[..., Simulation]) -> None:
        pace, seen = make(tokens=60_000), 0
        pace.ask_again = 1.0
        under_way: list[float] = []
        used = []
        for tick in range(1400):
            while under_way and under_way[0] <= pace.now:
                await pace.pacer.settle(2000, 100)
                used.append((under_way.pop(0), 100.0))
            while pace.waiting + len(under_way) < 24:
                await pace.ask(2000)
            await pace.until(START + tick / 10)
            under_way += [at + 1 for at, _, _ in pace.granted[seen:]]
            seen = len(pace.granted)
        assert sum(tokens for at, tokens in used if at > START + 80) >= 0.9 * 60_000
        assert most_in_window(used, 60) <= 60_000

    simulated(walk)


def test_tokens_used_beyond_those_asked_for_are_charged(simulated: Simulated) -> None:
    async def walk(make: Callable[..., Simulation]) -> None:
        pace = make(tokens=60_000)
        await pace.ask(10)
        await pace.pacer.settle(10, 9710)
        assert 9 < (await pace.pacer.take(10)).wait < 10

    simulated(walk)


def test_a_worker_that_was_frozen_does_not_send_all_it_missed(simulated: Simulated) -> None:
    async def walk(make: Callable[..., Simulation]) -> None:
        pace = make(requests=600)
        for _ in range(400):
            await pace.ask()
        await pace.until(pace.now + 5)
        pace.now += 30
        await pace.drain()
        assert len(pace.granted) == 400
        assert most_in_window([(at, 1) for at, _, _ in pace.granted], 1) <= 7 + 2 * 10

    simulated(walk)


def test_keys_of_simulations_have_a_life_time(simulated: Simulated, redis_server: RedisProcess) -> None:
    async def walk(make: Callable[..., Simulation]) -> None:
        await make("mortal", requests=60).ask()

    simulated(walk)
    assert redis_server.client.ttl(keys.pace("mortal")) > 0
