"""How a worker keeps to its backend's rate limits: each call waits for its turn.

All workers share the turns, in Redis (`k9_broker.adapters.redis_pacer` says how they come).
A backend without limits, known or told, costs nothing. While Redis is away each worker keeps the pace by
what it knows itself.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from k9_broker.adapters.redis_pacer import LONGEST_HOLD, RedisPacer, Turn
from k9_broker.backends import Backend
from k9_broker.errors import BackendRateLimited, K9Error, LedgerUnavailable
from k9_broker.limits import Limit, RateLimits
from k9_broker.requests import InferenceRequest, Operation, TaskType
from k9_broker.tokens import asked_output, expected_output
from k9_broker.tokens import prompt_tokens as estimated_prompt

logger = logging.getLogger(__name__)

NEWS_COUNTS = 300.0
"""Seconds without news after which a backend that told limits is called freely again."""
ASK_AGAIN = 1.0
"""Seconds of a wait at most until a call asks again: its turn may have moved forward."""
REDIS_WITHIN = 2.0
"""Seconds after which a Redis that does not answer counts as away: calls must not wait for it."""
REDIS_AGAIN = 5.0
"""Seconds after which one that was away is asked again."""
_FIRST_GUESS = 1.0
_HAIR = 0.1

T = TypeVar("T")


def tokens_of(request: InferenceRequest, prompt_tokens: int | None = None, *, most: bool = True) -> int:
    """Tokens a call will count for at the backend: its prompt, and all its answers.

    OpenAI and Azure count, on arrival, the most that the request lets its answers have. With `most` false,
    or where the request does not bound them, it is what answers usually have: for backends that count what
    they really produce, as Anthropic does. `prompt_tokens` is estimated where nobody knows better.
    """
    prompt = estimated_prompt(request).likely if prompt_tokens is None else prompt_tokens
    if request.operation is Operation.EMBEDDINGS:
        return prompt
    asked = asked_output(request)
    if asked is None or not most:
        return prompt + expected_output(request, request.task_type or TaskType.CHAT)
    prompts = request.body.get("prompt")
    several = isinstance(prompts, list) and prompts and isinstance(prompts[0], str | list)
    return prompt + asked * (request.body.get("n") or 1) * (len(prompts) if several and prompts else 1)


class Pacing:
    """The turns of one worker's calls. Use it within one event loop, and close it."""

    def __init__(
        self, pacer: RedisPacer, backend: Backend, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._pacer = pacer
        self._clock = clock
        self._alone = _Alone(backend)
        self._configured = backend.requests_per_minute is not None or backend.tokens_per_minute is not None
        self._mindful_until = float("-inf")
        self._held_until = float("-inf")
        self._guess = _FIRST_GUESS
        self._shown_until = float("-inf")
        self._away_until = float("-inf")
        self._news: RateLimits | None = None
        self._telling: asyncio.Task[None] | None = None

    @property
    def needed(self) -> bool:
        """Whether calls have to wait for their turn at all; if not, `turn` returns at once."""
        return self._configured or self._clock() < self._mindful_until

    @property
    def paced_seconds(self) -> float:
        """Seconds a call would wait for its turn, as it was last seen, less what has passed since."""
        return max(0.0, self._shown_until - self._clock())

    async def turn(self, tokens: int, patience: float, *, ahead: float = math.inf) -> None:
        """Wait until a call of so many tokens may begin.

        Its turn is taken when that is at most `ahead` seconds away: who can wait leaves the line short
        for those who cannot. Raises `BackendRateLimited` as soon as it is known that this takes longer
        than `patience` seconds.
        """
        if not self.needed:
            return
        give_up_at = self._clock() + patience
        try:
            await self._in_line(tokens, give_up_at, ahead)
        except LedgerUnavailable:
            wait = self._alone.take(tokens, self._clock(), give_up_at, self._held_until)
            self._show(wait)
            if wait > give_up_at - self._clock():
                raise _too_long(wait) from None
            await asyncio.sleep(wait)

    async def _in_line(self, tokens: int, give_up_at: float, ahead: float) -> None:
        turn: Turn | None = None
        while True:
            left = give_up_at - self._clock()
            if (held := self._held_until - self._clock()) > max(left, 0.0):
                raise _too_long(held)
            first = turn is None
            # Who has waited as long as it was told is not sent away for a hair's breadth.
            patience = min(left, ahead) if first else max(left, _HAIR)
            turn = await self._shared(
                partial(self._pacer.take, tokens, patience=max(patience, 0.0), turn=turn)
            )
            if first:
                self._show(turn.wait)
            if not turn.taken:
                if turn.wait > max(left, 0.0):
                    raise _too_long(turn.wait)
                await asyncio.sleep(min(max(turn.wait - ahead / 2, _HAIR), ASK_AGAIN))
                turn = None
                continue
            if turn.wait <= 0:
                await asyncio.sleep(max(0.0, held))  # of a hold that could not be shared
                return
            await asyncio.sleep(min(turn.wait, ASK_AGAIN))

    async def settle(self, estimated: int, actual: int) -> None:
        """After the answer: count the tokens it really took instead of those `turn` was asked for."""
        if not self.needed or not self._alone.counts_tokens:
            return
        self._alone.charge(actual - estimated)
        try:
            await self._shared(partial(self._pacer.settle, estimated, actual))
        except LedgerUnavailable:
            logger.info("tokens were not settled: Redis is away")

    def heard(self, limits: RateLimits) -> None:
        """Take in what the headers of an answer say. Returns at once; of news in a hurry the last counts."""
        if limits == RateLimits():
            return
        self._mindful_until = max(self._mindful_until, self._clock() + NEWS_COUNTS)
        self._alone.learn(limits)
        self._news = limits
        if self._telling is None:
            self._telling = asyncio.create_task(self._tell())

    async def _tell(self) -> None:
        try:
            while (news := self._news) is not None:
                self._news = None
                await self._shared(partial(self._pacer.learn, news))
        except LedgerUnavailable:
            logger.info("rate limits were not shared: Redis is away")
        finally:
            self._telling = None

    async def limited(self, error: K9Error) -> None:
        """The backend refused a call because of its rate limit: nobody calls it for as long as it says.

        If it does not say, for a second, and for twice as long whenever it refuses again soon after. Of
        calls that were under way together, the first refusal counts.
        """
        now = self._clock()
        if error.retry_after:
            seconds = min(error.retry_after, LONGEST_HOLD)
        elif now < self._held_until:
            return
        else:
            soon = now - self._held_until < self._guess + _FIRST_GUESS
            self._guess = min(2 * self._guess, LONGEST_HOLD) if soon else _FIRST_GUESS
            seconds = self._guess * random.uniform(1.0, 1.2)  # noqa: S311 (not all workers at once)
        self._held_until = max(self._held_until, now + seconds)
        self._mindful_until = max(self._mindful_until, self._held_until + NEWS_COUNTS)
        self._show(seconds)
        logger.info("the backend's rate limit is reached: no calls for %.1f s", seconds)
        try:
            await self._shared(partial(self._pacer.hold, seconds))
        except LedgerUnavailable:
            logger.info("the hold was not shared: Redis is away")

    async def _shared(self, step: Callable[[], Awaitable[T]]) -> T:
        """One step of the pacer, or `LedgerUnavailable` soon: the connection itself may try for minutes."""
        if self._clock() < self._away_until:
            raise LedgerUnavailable
        try:
            async with asyncio.timeout(REDIS_WITHIN):
                return await step()
        except (LedgerUnavailable, TimeoutError):
            self._away_until = self._clock() + REDIS_AGAIN
            raise LedgerUnavailable from None

    def _show(self, wait: float) -> None:
        self._shown_until = max(self._clock() + wait, self._held_until)

    async def close(self) -> None:
        """Let the last news be told, or give it up within a second."""
        if self._telling is not None:
            _, late = await asyncio.wait([self._telling], timeout=1)
            for task in late:
                task.cancel()


def _too_long(wait: float) -> BackendRateLimited:
    return BackendRateLimited(
        "The backend's rate limit does not let this call begin in time. Try again after the time in "
        "Retry-After, or raise the limit.",
        retry_after=wait,
    )


class _Alone:
    """The turns of one worker that cannot see the others: calls spread evenly, no two at once."""

    def __init__(self, backend: Backend) -> None:
        self._configured = (backend.requests_per_minute, backend.tokens_per_minute)
        self._told: tuple[int | None, int | None] = (None, None)
        self._next = float("-inf")

    @property
    def counts_tokens(self) -> bool:
        return self._configured[1] is not None or self._told[1] is not None

    def learn(self, limits: RateLimits) -> None:
        requests, tokens = self._told
        self._told = (_positive(limits.requests) or requests, _positive(limits.tokens) or tokens)

    def take(self, tokens: int, now: float, give_up_at: float, held_until: float) -> float:
        """Seconds until its turn; it is taken only when that is not too late."""
        at = max(self._next, held_until, now)
        if at <= give_up_at:
            self._next = at + max(self._seconds(0, 1), self._seconds(1, tokens))
        return at - now

    def charge(self, tokens: int) -> None:
        """Tokens that were used and not asked for; negative: the other way."""
        self._next += self._seconds(1, tokens)

    def _seconds(self, which: int, amount: int) -> float:
        limits = [one for one in (self._configured[which], self._told[which]) if one is not None]
        return 60 * amount / min(limits) if limits else 0.0


def _positive(limit: Limit) -> int | None:
    return limit.per_minute if limit.per_minute is not None and limit.per_minute > 0 else None
