"""What the tests of pacing share: a pacer on simulated time, and callers that wait for their turns."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from math import inf

from k9_broker.adapters import keys
from k9_broker.adapters.connect import Commands, connect
from k9_broker.adapters.redis_pacer import RedisPacer, Turn
from k9_broker.backends import Backend

START = 1_000_000.0


def backend(name: str = "cloud", *, requests: int | None = None, tokens: int | None = None) -> Backend:
    return Backend(
        name=name,
        dialect="openai",
        url="http://127.0.0.1:9",
        requests_per_minute=requests,
        tokens_per_minute=tokens,
    )


@dataclass
class Simulation:
    """Pacers of one backend whose time a test moves. Callers come, wait for their turns, and go."""

    commands: Commands
    backend: Backend
    now: float = START
    ask_again: float = inf
    """Seconds of a wait at most until a caller asks whether its turn has moved."""
    granted: list[tuple[float, int, int]] = field(default_factory=list)
    """(instant, caller's number in the order of asking, tokens)"""
    _waiting: list[tuple[float, int, int, Turn]] = field(default_factory=list)
    _number: int = 0

    def __post_init__(self) -> None:
        self.pacer = RedisPacer(self.commands, self.backend, clock=lambda: self.now)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    async def state(self) -> dict[str, str]:
        """All that the pace is, but for when it was born."""
        pairs = await self.commands.command("HGETALL", keys.pace(self.backend.name))
        return {name.decode(): text.decode() for name, text in pairs.items() if name != b"born"}

    async def limit(self) -> float | None:
        """The requests a minute that it was told and believes."""
        told = (await self.state())["requests:told"]
        return float(told) if told else None

    async def ask(self, tokens: int = 1) -> None:
        self._number += 1
        self._enter(self._number, tokens, await self.pacer.take(tokens))

    def _enter(self, number: int, tokens: int, turn: Turn) -> None:
        assert turn.taken
        if turn.wait == 0.0:
            self.granted.append((self.now, number, tokens))
        else:
            heapq.heappush(self._waiting, (self.now + min(turn.wait, self.ask_again), number, tokens, turn))

    async def until(self, instant: float, *, late: float = 0.0) -> None:
        """Let time pass; whoever's wait is over asks again, `late` seconds after it."""
        while self._waiting and self._waiting[0][0] + late <= instant:
            due, number, tokens, turn = heapq.heappop(self._waiting)
            self.now = max(self.now, due + late)
            self._enter(number, tokens, await self.pacer.take(tokens, turn=turn))
        self.now = max(self.now, instant)

    async def drain(self, longest: float = 86400.0) -> None:
        """Until nobody waits."""
        end = self.now + longest
        while self._waiting:
            assert self._waiting[0][0] < end, "somebody waits for ever"
            await self.until(self._waiting[0][0])


Walk = Callable[[Callable[..., Simulation]], Awaitable[None]]
"""A test's own part; it is given a maker of simulations, each of a backend of its own unless it names one."""
Simulated = Callable[[Walk], None]

_NAMES = (f"cloud-{number}" for number in count())


def simulate(url: str, walk: Walk) -> None:
    """Run a walk on the Redis at `url`."""

    async def whole() -> None:
        commands = Commands(connect(url, retries=1))

        def make(name: str | None = None, **limits: int | None) -> Simulation:
            return Simulation(commands, backend(name or next(_NAMES), **limits))

        try:
            await walk(make)
        finally:
            await commands.close()

    asyncio.run(whole())


def most_in_window(granted: Sequence[tuple[float, float]], seconds: float) -> float:
    """The most that was granted in any window: of (instant, amount), half-open, in order."""
    most = inside = 0.0
    first = 0
    for instant, amount in granted:
        inside += amount
        while granted[first][0] <= instant - seconds:
            inside -= granted[first][1]
            first += 1
        most = max(most, inside)
    return most
