"""The caller of a backend: of its instances, each call goes to one, and what came of it is remembered.

Nothing is retried here; a call that failed is the retry loop's to repeat, and it will meet another
instance when there is one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing

from k9_broker.backends import Backend
from k9_broker.balance import affinity_key, choose, paces
from k9_broker.dialects.base import Dialect
from k9_broker.dialects.embeddings import inputs_of
from k9_broker.errors import CircuitOpen, K9Error
from k9_broker.health import CircuitState, InstanceHealth
from k9_broker.limits import RateLimits
from k9_broker.models import ModelCard
from k9_broker.requests import InferenceRequest, Operation
from k9_broker.results import Chunk, Result
from k9_workers.live import FIRST_AS_TOKENS, PICKS_REMEMBERED, LiveInstance
from k9_workers.probing import look_after
from k9_workers.transport import HttpCaller

DESCRIBED = 32
"""Models a server is asked about one by one."""
DESCRIBED_AT_ONCE = 4


class Instances:
    """Implements `k9_broker.ports.Caller` over one `HttpCaller` for each of a backend's servers.

    Use it within one event loop, and close it. Raises `ConfigurationError` when the backend's key is not
    in the environment.
    """

    def __init__(
        self, backend: Backend, dialect: Dialect, heard: Callable[[RateLimits], None] | None = None
    ) -> None:
        """`heard` is told the rate limits in answers. With it somebody paces the calls, and a rate limit
        that was reached opens no circuit; without, the instance is left alone for as long as it says."""
        self._backend = backend
        self._all = [
            LiveInstance(
                backend,
                instance,
                HttpCaller(backend, instance, dialect, heard=heard),
                limits_matter=heard is None,
            )
            for instance in backend.servers
        ]
        self._only = self._all[0] if len(self._all) == 1 else None
        self._cards: dict[str, ModelCard] = {}

    @property
    def fit(self) -> int:
        """Instances that may be called now."""
        now = time.monotonic()
        return sum(one.breaker.fit(now) for one in self._all)

    def spare(self, model: str) -> bool:
        """Whether a call that failed just now may succeed at another instance."""
        now = time.monotonic()
        return self._only is None and any(one.spare(model, now) for one in self._able(model))

    async def models(self) -> Mapping[str, ModelCard]:
        """The models of all instances, with what they say of them; of one that does not answer, those it
        had: it is unavailable, not unknown.

        Raises what the first one said when none answers.
        """
        asked = [one for one in self._all if one.breaker.state is not CircuitState.OUT] or self._all
        lists = await asyncio.gather(*(one.caller.listed() for one in asked), return_exceptions=True)
        cards: dict[str, ModelCard] = {}
        source: dict[str, LiveInstance] = {}
        failures: list[BaseException] = []
        for one, listed in zip(asked, lists, strict=True):
            if isinstance(listed, BaseException):
                failures.append(listed)
                continue
            one.listed = frozenset(listed)
            for model, card in listed.items():
                cards.setdefault(model, card)
                source.setdefault(model, one)
        if len(failures) == len(asked):
            raise failures[0]
        wanted = [model for model in cards if not self._backend.models or model in self._backend.models]
        places = asyncio.Semaphore(DESCRIBED_AT_ONCE)

        async def describe(model: str) -> None:
            async with places:
                cards[model] = await source[model].caller.described(model, cards[model])

        await asyncio.gather(*(describe(model) for model in wanted[:DESCRIBED]))
        silent = {model for one in self._all for model in one.listed or () if model not in cards}
        cards |= {model: self._cards.get(model, ModelCard()) for model in sorted(silent)}
        self._cards = cards
        return cards

    def health(self) -> Sequence[InstanceHealth]:
        now = time.monotonic()
        return [one.health(now) for one in self._all]

    async def watch(self) -> None:
        """Look after each instance until cancelled."""
        async with asyncio.TaskGroup() as group:
            for one in self._all:
                group.create_task(look_after(one))

    def reset(self) -> None:
        for one in self._all:
            one.reset()

    async def call(self, request: InferenceRequest) -> Result:
        """The whole answer. Raises `CircuitOpen` when no instance may be called now."""
        one = self._chosen(request)
        call = one.begin(request)
        try:
            result = await one.caller.call(request)
        except K9Error as error:
            one.failed(call, error)
            raise
        except BaseException:  # it was cancelled, or we broke: neither says anything of the instance
            one.left(call)
            raise
        if request.operation is Operation.EMBEDDINGS:
            one.ended(call, len(inputs_of(request)))
        else:
            one.ended(call, FIRST_AS_TOKENS + result.usage.completion)
        return result

    async def stream(self, request: InferenceRequest) -> AsyncGenerator[Chunk, None]:
        """The answer in chunks; closing it early says nothing of the instance."""
        one = self._chosen(request)
        call = one.begin(request)
        chunks = 0
        try:
            async with aclosing(one.caller.stream(request)) as stream:
                async for chunk in stream:
                    if not chunks:
                        one.answering(call)
                    chunks += 1
                    yield chunk
        except K9Error as error:
            one.failed(call, error)
            raise
        except BaseException:
            one.left(call)
            raise
        one.ended(call, FIRST_AS_TOKENS + chunks)

    async def close(self) -> None:
        await asyncio.gather(*(one.caller.close() for one in self._all))

    def _chosen(self, request: InferenceRequest) -> LiveInstance:
        now = time.monotonic()
        if self._only is not None:
            if self._only.fit(request.model, now):
                return self._only
            raise self._refusal(self._all, request.model, now)
        able = self._able(request.model)
        known = paces([one.paces.get(request.model) for one in able], now)
        views = [one.view(now, request.model, pace) for one, pace in zip(able, known, strict=True)]
        place = choose(views, affinity_key(request, self._backend.affinity))
        if place is None:
            raise self._refusal(able, request.model, now)
        chosen = able[place]
        if chosen.picks >= PICKS_REMEMBERED:
            for one in self._all:
                one.picks /= 2
        return chosen

    def _able(self, model: str) -> Sequence[LiveInstance]:
        """The instances that have the model, as far as they have said."""
        return [one for one in self._all if one.listed is None or model in one.listed] or self._all

    def _refusal(self, able: Sequence[LiveInstance], model: str, now: float) -> CircuitOpen:
        said = [one.refuses(model, now) for one in able]
        reasons = ", ".join(sorted({reason for reason, _ in said} - {""}))
        return CircuitOpen(
            f"No instance of the backend {self._backend.name!r} is fit to be called now ({reasons})."
            " `k9 doctor` says what is wrong.",
            retry_after=min((wait for _, wait in said if wait is not None), default=None),
        )
