"""The pace of calls towards one backend, on Redis: its rate limits, shared by all its workers.

Each asker is given a **turn** at once, and told how long it is away. The other way, a bucket that all
poll, was not chosen: everybody who waits asks again and again, and where small calls keep coming, a
large one never finds enough tokens in the bucket at once. Turns come in the order of asking, over all
workers, and a call that waits a second costs two round trips.

A turn is a number, not an instant: it is due once the limit has let so many requests, and so many
tokens, pass. When the backend says "not now", or its limit proves to be lower, all turns move back
without being touched; tokens given back move them forward. A turn that nobody comes for within a second
is lost, so that a worker that was frozen cannot send all it missed.

What backends enforce differs: OpenAI and Anthropic refill continuously, perhaps in portions of a second;
Azure counts prompt and `max_tokens` on arrival, over windows of 1 and 10 seconds; gateways count fixed
minutes. So calls are spread evenly: 97 % of the limit, and after a pause at most 1 % of a minute's worth
(but one request) at once. With the second of lateness, that is at most the limit in *any* minute; for
tokens, plus what one call alone has beyond the 1 %: a large call begins when the bucket is full.

What a backend tells of itself is believed so far:

- Its limit holds beside the configured one; the lower counts. A lower limit is believed at once, a
  higher one when the lower was not heard for five minutes: models with limits of their own, or stale
  answers, do not make the pace swing.
- What remains is only ever lowered by news, and grows by refilling. Below a tenth of the limit others
  must be using the account, or tokens are counted otherwise than K-9 does: the pace slows in proportion,
  down to a tenth, unless what remains lasts until it is renewed.

All news is taken by minima and maxima, so its order does not matter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from k9_broker.adapters import keys
from k9_broker.adapters.connect import Commands
from k9_broker.backends import Backend
from k9_broker.limits import Limit, RateLimits

LONGEST_HOLD = 60.0
"""Seconds. A backend that says "in an hour" is asked again in a minute."""
_NEVER_MIND = 1e9
"""Seconds of patience that nothing exhausts."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One call's turn, `wait` seconds from now. At 0.0 the call may begin, and is counted.

    `taken` is false when the wait is longer than the asker's patience; then it left no trace.
    """

    wait: float
    words: tuple[bytes, ...] = ()

    @property
    def taken(self) -> bool:
        return bool(self.words)


class RedisPacer:
    """One backend's pace. Every method is one atomic step and raises `LedgerUnavailable`.

    `clock` gives Unix seconds in place of Redis' own clock: for simulations.
    """

    def __init__(
        self, commands: Commands, backend: Backend, *, clock: Callable[[], float] | None = None
    ) -> None:
        self._commands = commands
        self._key = keys.pace(backend.name)
        self._configured = (backend.requests_per_minute or "", backend.tokens_per_minute or "")
        self._clock = clock

    async def take(self, tokens: int, *, patience: float = _NEVER_MIND, turn: Turn | None = None) -> Turn:
        """A turn for a call with so many tokens, unless it is longer than `patience` seconds away.

        Ask again with that turn when its wait is over: the call may begin only when the wait told is
        0.0. A turn is not given up; one that is not asked for is lost, with what it was worth.
        """
        words = turn.words if turn is not None else ()
        reply: list[bytes] = await self._script(
            "take", max(0, tokens), f"{min(patience, _NEVER_MIND):.6f}", *words
        )
        return Turn(float(reply[0]), tuple(reply[1:]))

    async def settle(self, estimated: int, actual: int) -> None:
        """After the answer: give back the tokens a call did not use, or charge what it used more."""
        if estimated != actual:
            await self._script("settle", estimated - actual)

    async def learn(self, limits: RateLimits) -> None:
        """What the headers of an answer said."""
        await self._script("learn", *_words(limits.requests), *_words(limits.tokens))

    async def hold(self, seconds: float) -> None:
        """Nobody begins a call for so long, at most a minute: the backend has refused one."""
        await self._script("hold", f"{max(0.0, min(seconds, LONGEST_HOLD)):.6f}")

    async def _script(self, what: str, *args: Any) -> Any:
        now = f"{self._clock():.6f}" if self._clock is not None else ""
        return await self._commands.script("pace", [self._key], [what, now, *self._configured, *args])


def _words(limit: Limit) -> tuple[int | str, int | str, str]:
    """A limit as the script reads it. -1 and 0 are how some services say that they do not know."""
    known = limit.per_minute is not None and limit.per_minute > 0
    remaining, reset = limit.remaining, limit.reset_seconds
    if remaining is not None and (remaining < 0 or (remaining == 0 and not known)):
        remaining = None
    return (
        limit.per_minute if known and limit.per_minute is not None else "",
        "" if remaining is None else remaining,
        "" if reset is None or reset < 0 else f"{reset:.6f}",
    )
