"""What a worker tells the fleet: which models it serves, what they can and cost, how fast they are."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from k9_broker.adapters.redis_fleet import ANNOUNCE_EVERY, RedisFleet
from k9_broker.backends import Announcement, Backend
from k9_broker.cards import card_of
from k9_broker.errors import K9Error, LedgerUnavailable
from k9_broker.health import CircuitState, InstanceHealth
from k9_broker.latency import moved
from k9_broker.models import Latency, ModelCard
from k9_broker.ports import Caller
from k9_broker.requests import Kind
from k9_workers.callers import operations_of
from k9_workers.measuring import Measuring

logger = logging.getLogger(__name__)

ASK_MODELS_EVERY = 30.0
"""Seconds between questions for the backend's models; ten times as often while it has none."""
LOOK_EVERY = 0.5
"""Seconds between looks at the estimates: one that has moved is announced before the next heartbeat."""
MOVED = 1.5
"""The factor by which an estimate must differ from the one announced."""


class Announcer:
    """Announces one backend for one worker.

    `configured` has the operator's cards, by model; `paced` tells the seconds until the backend's rate
    limit lets another call begin.
    """

    def __init__(
        self,
        *,
        backend: Backend,
        order: int,
        node: str,
        caller: Caller,
        fleet: RedisFleet,
        measuring: Measuring,
        configured: Mapping[str, ModelCard],
        paced: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._backend = backend
        self._order = order
        self._node = node
        self._caller = caller
        self._fleet = fleet
        self._measuring = measuring
        self._configured = configured
        self._paced = paced
        self._models: tuple[str, ...] = ()
        self._cards: dict[str, ModelCard] = {}
        self._said: Mapping[str, ModelCard] = {}
        self._asked = -math.inf
        self._told: Mapping[str, Latency] = {}
        self._told_states: Mapping[str, CircuitState] = {}
        self._loop_lag = 0.0

    async def learn(self) -> None:
        """Learn the models to announce.

        Those that are configured are known before the backend is asked. Of the others: until it has
        answered, it serves what this node served last, for a backend that is down for a moment is
        unavailable, not unknown.
        """
        if self._backend.models:
            await self._serve(self._backend.models, {})
            return
        with suppress(LedgerUnavailable):
            await self._serve(await self._fleet.last_models(self._node), {})
        await self._ask_models()

    def card(self, model: str) -> ModelCard:
        """What is known of a model; an empty card when the backend does not name it."""
        return self._cards.get(model) or ModelCard()

    async def keep_asking(self) -> None:
        """Ask the backend now and then which models it has, and what it says of them."""
        while True:
            every = ASK_MODELS_EVERY if self._models else ASK_MODELS_EVERY / 10
            await asyncio.sleep(max(0.0, self._asked + every - time.monotonic()))
            await self._ask_models()

    async def keep_announcing(self) -> None:
        """A heartbeat every `ANNOUNCE_EVERY` seconds, and at once when an estimate has moved or an
        instance's state has changed."""
        due = 0.0
        while True:
            latencies = self._measuring.latencies()
            instances = tuple(self._caller.health())
            states = {one.name: one.state for one in instances}
            if time.monotonic() >= due or self._news(latencies, states):
                due = time.monotonic() + ANNOUNCE_EVERY
                if await self._announce(latencies, instances):
                    self._told, self._told_states, self._loop_lag = latencies, states, 0.0
            tick = time.monotonic() + LOOK_EVERY
            await asyncio.sleep(LOOK_EVERY)
            self._loop_lag = max(self._loop_lag, time.monotonic() - tick)

    async def _ask_models(self) -> None:
        self._asked = time.monotonic()
        try:
            said = await self._caller.models()
            await self._serve(self._backend.models or tuple(said), said)
        except K9Error as error:
            level = logging.INFO if self._backend.models else logging.WARNING
            logger.log(level, "%s does not tell its models: %s", self._backend.name, error.code)
        except Exception:
            logger.exception("%s does not tell its models", self._backend.name)

    async def _serve(self, models: tuple[str, ...], said: Mapping[str, ModelCard]) -> None:
        said = {model: card for model, card in said.items() if model in models}
        if (models, said) == (self._models, self._said):
            return
        try:
            if self._backend.kind is Kind.LOCAL:
                self._cards = self._make_cards(models, said)
            else:  # in a thread: the first card of a cloud model loads the price lists
                self._cards = await asyncio.to_thread(self._make_cards, models, said)
        except Exception:
            logger.exception("%s is announced without cards", self._backend.name)
            self._cards = {}
        self._models, self._said = models, said

    def _make_cards(self, models: tuple[str, ...], said: Mapping[str, ModelCard]) -> dict[str, ModelCard]:
        return {model: card_of(model, self._backend, self._configured, said.get(model)) for model in models}

    def _news(self, latencies: Mapping[str, Latency], states: Mapping[str, CircuitState]) -> bool:
        return states != self._told_states or any(
            moved(self._told.get(model), latency, MOVED) for model, latency in latencies.items()
        )

    async def _announce(
        self, latencies: Mapping[str, Latency], instances: tuple[InstanceHealth, ...]
    ) -> bool:
        backend = self._backend
        hourly = backend.gpu_usd_per_hour
        announcement = Announcement(
            node=self._node,
            backend=backend.name,
            kind=backend.kind,
            dialect=backend.dialect,
            models=self._models,
            cards=self._cards,
            latencies=dict(latencies),
            gpu_usd_per_hour=None if hourly is None else hourly * max(1, len(backend.servers)),
            operations=operations_of(backend),
            order=self._order,
            slots=backend.capacity,
            instances=instances,
            paced_seconds=self._paced(),
            max_waiting=backend.max_waiting,
            max_waiting_batch=backend.max_waiting_batch,
            overflow_at=backend.overflow_at,
            overflow_wait=backend.overflow_wait,
            service_seconds=self._measuring.service_seconds,
            service_spread=self._measuring.service_spread,
            loop_lag_seconds=self._loop_lag,
        )
        try:
            await self._fleet.announce(announcement)
        except LedgerUnavailable:
            logger.warning("could not announce: Redis is away")
            return False
        return True
