"""How a worker waits for its turns: what it costs, how long it takes, and what it does without Redis."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from k9_broker.adapters.connect import Commands, connect
from k9_broker.adapters.redis_pacer import RedisPacer
from k9_broker.errors import BackendRateLimited, LedgerUnavailable
from k9_broker.limits import Limit, RateLimits
from k9_workers import pacing as pacing_module
from k9_workers.pacing import NEWS_COUNTS, Pacing
from paced import backend
from stand import RedisProcess, free_port

NEWS = RateLimits(requests=Limit(600, 600, 0.0))


class Counted(Commands):
    """Commands that count what they are asked for."""

    def __init__(self, url: str) -> None:
        super().__init__(connect(url, retries=0))
        self.said: list[str] = []

    async def script(self, name: str, keys: list[str], args: list[Any]) -> Any:
        self.said.append(args[0])
        return await super().script(name, keys, args)


class Hand:
    """A clock moved by hand."""

    def __init__(self) -> None:
        self.now = 5000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def counted(clean_redis: RedisProcess) -> AsyncIterator[Counted]:
    commands = Counted(clean_redis.url)
    yield commands
    await commands.close()


@pytest.fixture
async def nobody() -> AsyncIterator[Counted]:
    """Commands to a Redis that is not there."""
    commands = Counted(f"redis://127.0.0.1:{free_port()}/0")
    yield commands
    await commands.close()


def pacing_of(commands: Commands, clock: Any = time.monotonic, **limits: int | None) -> Pacing:
    one = backend(**limits)
    return Pacing(RedisPacer(commands, one), one, clock)


# -- a backend without limits costs nothing -------------------------------------------------------


async def test_without_limits_nothing_is_asked(counted: Counted) -> None:
    pacing = pacing_of(counted)
    for _ in range(100):
        await pacing.turn(1000, 0.0)
        await pacing.settle(1000, 10)
        pacing.heard(RateLimits())
    assert not pacing.needed
    assert counted.said == []
    assert pacing.paced_seconds == 0.0


async def test_a_backend_that_told_limits_is_paced_until_it_has_been_silent_for_long(
    counted: Counted,
) -> None:
    clock = Hand()
    pacing = pacing_of(counted, clock)
    pacing.heard(NEWS)
    await pacing.close()
    assert pacing.needed
    await pacing.turn(1, 0.0)
    assert counted.said == ["learn", "take"]
    clock.now += NEWS_COUNTS + 1
    await pacing.turn(1, 0.0)
    assert counted.said == ["learn", "take"]


async def test_tokens_are_settled_only_where_they_are_limited(counted: Counted) -> None:
    pacing = pacing_of(counted, requests=600)
    await pacing.turn(100, 0.0)
    await pacing.settle(100, 10)
    assert counted.said == ["take"]
    pacing.heard(RateLimits(tokens=Limit(6000, 6000, 0.0)))
    await pacing.settle(100, 10)
    assert "settle" in counted.said


async def test_news_that_comes_fast_is_told_once_and_the_last_counts(counted: Counted) -> None:
    pacing = pacing_of(counted)
    for remaining in range(600, 100, -1):
        pacing.heard(RateLimits(requests=Limit(600, remaining, 1.0)))
    await asyncio.sleep(0)
    for remaining in range(100, 0, -1):
        pacing.heard(RateLimits(requests=Limit(600, remaining, 1.0)))
    await pacing.close()
    assert counted.said.count("learn") <= 2
    left = await counted.command("HGET", "k9:pace:cloud", "requests:left")
    assert float(left) == pytest.approx(1, abs=0.5)


# -- turns ----------------------------------------------------------------------------------------


async def test_calls_go_at_the_limit_and_in_order(counted: Counted) -> None:
    pacing = pacing_of(counted, requests=6000)
    began, order = time.monotonic(), []

    async def call(number: int) -> None:
        await pacing.turn(1, 30)
        order.append(number)

    await asyncio.gather(*(call(number) for number in range(158)))
    assert time.monotonic() - began >= 97 / 97 - 0.02
    assert sorted(order) == list(range(158))
    assert sum(abs(at - number) > 8 for at, number in enumerate(order)) < 30


async def test_who_cannot_wait_hears_so_at_once_and_takes_nobodys_turn(counted: Counted) -> None:
    pacing = pacing_of(counted, requests=6)
    await pacing.turn(1, 0.0)
    began = time.monotonic()
    for _ in range(20):
        with pytest.raises(BackendRateLimited) as refused:
            await pacing.turn(1, 0.2)
        assert 0.2 < (refused.value.retry_after or 0) < 10
    assert time.monotonic() - began < 3
    assert 0.2 < pacing.paced_seconds < 10


async def test_a_caller_that_goes_away_while_it_waits_disturbs_nobody(counted: Counted) -> None:
    pacing = pacing_of(counted, requests=600)
    for _ in range(7):
        await pacing.turn(1, 5)
    gone = asyncio.create_task(pacing.turn(1, 60))
    await asyncio.sleep(0.01)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    await asyncio.wait_for(pacing.turn(1, 5), 5)


async def test_the_wait_that_is_shown_passes(counted: Counted) -> None:
    clock = Hand()
    pacing = pacing_of(counted, clock, tokens=6000)
    await pacing.turn(6000, 0.0)
    with pytest.raises(BackendRateLimited):
        await pacing.turn(10, 5.0)
    shown = pacing.paced_seconds
    assert 55 < shown < 63
    clock.now += 20
    assert pacing.paced_seconds == pytest.approx(shown - 20)
    clock.now += 60
    assert pacing.paced_seconds == 0.0


# -- after a refusal ------------------------------------------------------------------------------


async def test_a_refusal_holds_all_workers_for_as_long_as_it_says(
    counted: Counted, commands: Commands
) -> None:
    here, there = pacing_of(counted), pacing_of(commands, requests=6000)
    await there.turn(1, 0.0)
    await here.limited(BackendRateLimited(retry_after=17))
    for pacing in (here, there):
        with pytest.raises(BackendRateLimited) as refused:
            await pacing.turn(1, 5.0)
        assert refused.value.retry_after == pytest.approx(17, abs=3)
        assert 10 < pacing.paced_seconds <= 17.5


async def test_a_wait_ends_when_the_hold_becomes_too_long(counted: Counted) -> None:
    """A call that waits learns of another worker's hold when it asks again."""
    pacing = pacing_of(counted, requests=20)
    await pacing.turn(1, 0.0)
    waiting = asyncio.create_task(pacing.turn(1, 5.0))
    await asyncio.sleep(0.05)
    await RedisPacer(counted, backend()).hold(30)
    with pytest.raises(BackendRateLimited):
        await asyncio.wait_for(waiting, 5)


async def test_guesses_grow_while_it_refuses_and_are_forgotten_later(counted: Counted) -> None:
    clock = Hand()
    pacing = pacing_of(counted, clock)
    shown = []
    for _ in range(8):
        for _ in range(5):  # calls under way together are refused together
            await pacing.limited(BackendRateLimited())
        shown.append(pacing.paced_seconds)
        clock.now += shown[-1] + 0.5
    for guess, wanted in zip(shown, [1, 2, 4, 8, 16, 32, 60, 60], strict=True):
        assert wanted <= guess <= wanted * 1.2
    assert counted.said == ["hold"] * 8
    clock.now += 300
    await pacing.limited(BackendRateLimited())
    assert pacing.paced_seconds <= 1.2


# -- without Redis --------------------------------------------------------------------------------


async def test_without_redis_calls_keep_the_pace_that_is_known(nobody: Counted) -> None:
    pacing = pacing_of(nobody, requests=1200)
    began = time.monotonic()
    await asyncio.gather(*(pacing.turn(1, 5.0) for _ in range(9)))
    assert 0.4 <= time.monotonic() - began < 4
    assert len(nobody.said) < 12, "a Redis that is away is not asked for every call"


@pytest.mark.parametrize(
    ("limits", "news", "seconds"),
    [
        ({"tokens": 6000}, None, 1.0),
        ({}, RateLimits(tokens=Limit(3000)), 2.0),
        ({"tokens": 6000}, RateLimits(tokens=Limit(3000)), 2.0),
        ({"tokens": 6000}, RateLimits(tokens=Limit(-1, 0)), 1.0),
    ],
)
async def test_without_redis_what_this_worker_heard_counts(
    nobody: Counted, limits: dict[str, int], news: RateLimits | None, seconds: float
) -> None:
    clock = Hand()
    pacing = pacing_of(nobody, clock, **limits)
    if news is not None:
        pacing.heard(news)
        await pacing.close()
    await pacing.turn(100, 0.0)
    with pytest.raises(BackendRateLimited) as refused:
        await pacing.turn(100, 0.5)
    assert refused.value.retry_after == pytest.approx(seconds)
    await pacing.settle(100, 50)
    with pytest.raises(BackendRateLimited) as refused:
        await pacing.turn(100, 0.2)
    assert refused.value.retry_after == pytest.approx(seconds / 2)


async def test_without_redis_a_refusal_holds_this_worker(nobody: Counted) -> None:
    pacing = pacing_of(nobody)
    await pacing.limited(BackendRateLimited(retry_after=10))
    with pytest.raises(BackendRateLimited):
        await pacing.turn(1, 5.0)


async def test_a_silent_redis_does_not_hold_up_a_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing_module, "REDIS_WITHIN", 0.2)
    server = RedisProcess(tmp_path, free_port()).start()
    commands = Commands(connect(server.url, retries=30))
    assert server.process is not None
    try:
        pacing = pacing_of(commands, requests=60_000)
        await pacing.turn(1, 5.0)
        server.process.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        for _ in range(20):
            await pacing.turn(1, 5.0)
        assert time.monotonic() - began < 3
    finally:
        server.process.send_signal(signal.SIGCONT)
        await commands.close()
        server.stop()


async def test_the_pacer_itself_says_that_redis_is_away(nobody: Counted) -> None:
    with pytest.raises(LedgerUnavailable):
        await RedisPacer(nobody, backend()).take(1)
