"""What a worker tells the fleet: which models it serves, what they can and cost, how fast they are."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from contextlib import suppress

from k9_broker.adapters.redis_fleet import ANNOUNCE_EVERY, RedisFleet
from k9_broker.backends import Announcement, Backend
from k9_broker.cards import card_of
from k9_broker.errors import K9Error, LedgerUnavailable
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
    """Announces one backend for one worker. `configured` has the operator's cards, by model."""

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
    ) -> None:
        self._backend = backend
        self._order = order
        self._node = node
        self._caller = caller
        self._fleet = fleet
        self._measuring = measuring
        self._configured = configured
        self._models: tuple[str, ...] = ()
        self._cards: dict[str, ModelCard] = {}
        self._told: Mapping[str, Latency] = {}
        self._loop_lag = 0.0

    async def learn(self) -> None:
        """Learn the models to announce.

        Until the backend has answered, it serves what this node served last: a backend that is
        down for a moment is unavailable, not unknown.
        """
        if self._backend.models:
            await self._serve(self._backend.models)
            return
        with suppress(LedgerUnavailable):
            await self._serve(await self._fleet.last_models(self._node))
        await self._ask_models()

    def card(self, model: str) -> ModelCard:
        """What is known of a model; an empty card when the backend does not name it."""
        return self._cards.get(model) or ModelCard()

    async def keep_asking(self) -> None:
        """Ask the backend for its models now and then, unless they are configured."""
        while True:
            await asyncio.sleep(ASK_MODELS_EVERY if self._models else ASK_MODELS_EVERY / 10)
            await self._ask_models()

    async def keep_announcing(self) -> None:
        """A heartbeat every `ANNOUNCE_EVERY` seconds, and at once when an estimate has moved."""
        due = 0.0
        while True:
            latencies = self._measuring.latencies()
            if time.monotonic() >= due or self._news(latencies):
                due = time.monotonic() + ANNOUNCE_EVERY
                await self._announce(latencies)
            tick = time.monotonic() + LOOK_EVERY
            await asyncio.sleep(LOOK_EVERY)
            self._loop_lag = max(self._loop_lag, time.monotonic() - tick)

    async def _ask_models(self) -> None:
        try:
            await self._serve(tuple(await self._caller.models()))
        except K9Error as error:
            logger.warning("%s does not tell its models: %s", self._backend.name, error.code)
        except Exception:
            logger.exception("%s does not tell its models", self._backend.name)

    async def _serve(self, models: tuple[str, ...]) -> None:
        if models != self._models:
            try:
                if self._backend.kind is Kind.LOCAL:
                    self._cards = self._make_cards(models)
                else:  # in a thread: the first card of a cloud model loads the price lists
                    self._cards = await asyncio.to_thread(self._make_cards, models)
            except Exception:
                logger.exception("%s is announced without cards", self._backend.name)
                self._cards = {}
            self._models = models

    def _make_cards(self, models: tuple[str, ...]) -> dict[str, ModelCard]:
        return {model: card_of(model, self._backend, self._configured) for model in models}

    def _news(self, latencies: Mapping[str, Latency]) -> bool:
        return any(moved(self._told.get(model), latency, MOVED) for model, latency in latencies.items())

    async def _announce(self, latencies: Mapping[str, Latency]) -> None:
        backend = self._backend
        announcement = Announcement(
            node=self._node,
            backend=backend.name,
            kind=backend.kind,
            dialect=backend.dialect,
            models=self._models,
            cards=self._cards,
            latencies=dict(latencies),
            gpu_usd_per_hour=backend.gpu_usd_per_hour,
            operations=operations_of(backend),
            order=self._order,
            slots=backend.slots,
            max_waiting=backend.max_waiting,
            max_waiting_batch=backend.max_waiting_batch,
            service_seconds=self._measuring.service_seconds,
            loop_lag_seconds=self._loop_lag,
        )
        try:
            await self._fleet.announce(announcement)
        except LedgerUnavailable:
            logger.warning("could not announce: Redis is away")
            return
        self._told, self._loop_lag = latencies, 0.0
