"""What a pace does with news of limits that backends tell: on a real Redis, in simulated time."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k9_broker.limits import Limit, RateLimits
from paced import START, Simulated, Simulation, most_in_window, simulate
from stand import RedisProcess


@pytest.fixture(scope="module")
def simulated(redis_server: RedisProcess) -> Simulated:
    return partial(simulate, redis_server.url)


news = st.builds(
    Limit,
    per_minute=st.sampled_from([100, 500, 6000]),
    remaining=st.one_of(st.none(), st.integers(0, 6000)),
    reset_seconds=st.one_of(st.none(), st.floats(0, 200)),
)


@settings(max_examples=40)
@given(heard=st.lists(st.builds(RateLimits, requests=news, tokens=news), min_size=2, max_size=8),
       seed=st.randoms(use_true_random=False))  # fmt: skip
def test_the_order_of_news_does_not_matter(
    simulated: Simulated, heard: list[RateLimits], seed: random.Random
) -> None:
    """Several workers tell what they heard, some of it twice, in any order: it is as if it came in one."""

    async def walk(make: Callable[..., Simulation]) -> None:
        shuffled = [*heard, seed.choice(heard)]
        seed.shuffle(shuffled)
        paces = make(), make()
        for pace, told in zip(paces, (heard, shuffled), strict=True):
            await pace.ask(10)
            pace.now += 1
            for one in told:
                await pace.pacer.learn(one)
        one, other = [await pace.state() for pace in paces]
        assert one == other

    simulated(walk)


@settings(max_examples=40)
@given(
    configured=st.sampled_from([1, 7, 60, 3000]),
    heard=st.builds(RateLimits, requests=news),
    callers=st.integers(1, 40),
)
def test_news_never_brings_a_turn_forward(
    simulated: Simulated, configured: int, heard: RateLimits, callers: int
) -> None:
    async def walk(make: Callable[..., Simulation]) -> None:
        waits = []
        for told in (None, heard):
            pace = make(requests=configured)
            for _ in range(callers):
                await pace.ask()
            if told is not None:
                await pace.pacer.learn(told)
            waits.append((await pace.pacer.take(1)).wait)
        assert waits[1] >= waits[0] - 0.001

    simulated(walk)


def test_stale_news_does_not_make_the_pace_swing(simulated: Simulated) -> None:
    """Two workers hear of 600 a minute; one of them, late, of the 6,000 before. The pace stays at 600."""

    async def walk(make: Callable[..., Simulation]) -> None:
        pace = make()
        told = [RateLimits(requests=Limit(most, most, 1.0)) for most in (600, 6000)]
        await pace.pacer.learn(told[0])
        for second in range(120):
            await pace.pacer.learn(told[second % 2])
            while pace.waiting < 20:
                await pace.ask()
            await pace.until(pace.now + 1)
        each = [
            sum(START + s <= at < START + s + 10 for at, _, _ in pace.granted) for s in range(10, 110, 10)
        ]
        assert min(each) >= 95
        assert max(each) <= 100

    simulated(walk)


def test_a_higher_limit_is_believed_once_the_lower_is_no_longer_heard(simulated: Simulated) -> None:
    async def walk(make: Callable[..., Simulation]) -> None:
        pace = make()
        await pace.pacer.learn(RateLimits(requests=Limit(60)))
        for _ in range(20):
            await pace.pacer.learn(RateLimits(requests=Limit(6000)))
            pace.now += 14
        assert (await pace.limit()) == 60
        pace.now += 30
        await pace.pacer.learn(RateLimits(requests=Limit(6000)))
        assert (await pace.limit()) == 6000
        pace.now += 301
        await pace.ask()
        assert (await pace.limit()) is None, "a limit nobody heard of for five minutes is forgotten"

    simulated(walk)


@pytest.mark.parametrize(("others", "delay"), [(0.0, 2.0), (0.3, 0.2), (0.3, 2.0), (0.7, 2.0)])
def test_an_account_that_others_use_too_is_shared_without_many_refusals(
    simulated: Simulated, others: float, delay: float
) -> None:
    """The backend refills continuously; its answers tell what remained when the call began, `delay` late."""

    async def walk(make: Callable[..., Simulation]) -> None:
        pace, limit = make(), 600
        level, seen, refused, mine = float(limit), 0, 0, 0
        news: list[tuple[float, RateLimits]] = [(START, RateLimits(requests=Limit(limit, limit, 0.0)))]
        minutes, step = 4, 0.1
        for tick in range(int(60 * minutes / step)):
            while news and news[0][0] <= pace.now:
                await pace.pacer.learn(news.pop(0)[1])
            while pace.waiting < 16:
                await pace.ask()
            await pace.until(START + tick * step)
            level = min(limit, level + limit / 60 * step)
            level = max(0.0, level - others * limit / 60 * step)
            for _ in pace.granted[seen:]:
                if level < 1:
                    refused += 1
                    continue
                level, mine = level - 1, mine + 1
                told = Limit(limit, int(level), (limit - level) * 60 / limit)
                news.append((pace.now + delay, RateLimits(requests=told)))
            seen = len(pace.granted)
        assert refused <= 0.01 * seen
        assert mine >= 0.93 * (1 - others) * limit * minutes

    simulated(walk)


@pytest.mark.parametrize(("remaining", "go"), [(0, 0), (3, 3), (6000, 61)])
def test_no_more_calls_go_at_once_than_the_backend_has_left(
    simulated: Simulated, remaining: int, go: int
) -> None:
    async def walk(make: Callable[..., Simulation]) -> None:
        pace = make(requests=6000)
        await pace.pacer.learn(RateLimits(requests=Limit(6000, remaining, 60.0)))
        for _ in range(100):
            await pace.ask()
        assert len(pace.granted) == go

    simulated(walk)


def test_what_remains_is_renewed_when_the_backend_said(simulated: Simulated) -> None:
    """For 40 seconds of a fixed minute nothing is left: little is tried, then all of the limit is used."""

    async def walk(make: Callable[..., Simulation]) -> None:
        pace = make(requests=600)
        pace.ask_again = 1.0
        for _ in range(200):
            await pace.ask()
        first = len(pace.granted)
        for second in range(40):
            await pace.pacer.learn(RateLimits(requests=Limit(600, 0, 40.0 - second)))
            await pace.until(START + second + 1)
        assert len(pace.granted) - first <= 60
        await pace.until(START + 41)
        before = len(pace.granted)
        await pace.until(START + 51)
        assert len(pace.granted) - before >= 90

    simulated(walk)


def test_a_hold_before_any_limit_is_known_is_not_followed_by_a_rush(simulated: Simulated) -> None:
    async def walk(make: Callable[..., Simulation]) -> None:
        pace = make()
        await pace.ask()
        await pace.pacer.hold(5)
        for _ in range(100):
            await pace.ask(100)
        pace.now += 1
        await pace.pacer.learn(RateLimits(requests=Limit(600, 0), tokens=Limit(10**6)))
        await pace.drain()
        waited = [(at, 1.0) for at, _, _ in pace.granted[1:]]
        assert len(waited) == 100
        assert waited[0][0] >= START + 5
        assert most_in_window(waited, 1) <= 7 + 10

    simulated(walk)


def test_after_a_refusal_the_backend_has_nothing_left(simulated: Simulated) -> None:
    async def walk(make: Callable[..., Simulation]) -> None:
        pace = make(requests=6000)
        await pace.pacer.hold(5)
        pace.now += 5
        for _ in range(100):
            await pace.ask()
        assert len(pace.granted) <= 1

    simulated(walk)
