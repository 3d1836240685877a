"""The places of a fleet: each model at each backend, with what it would cost and how long it would take."""

from __future__ import annotations

from collections.abc import Container, Iterator
from functools import lru_cache
from typing import NamedTuple

from k9_broker.models import Latency, ModelCard
from k9_broker.money import machine_cost, token_cost
from k9_broker.requests import Kind, Operation
from k9_broker.snapshot import BackendView
from k9_broker.strategy.needs import Needs

UNMEASURED = {Kind.LOCAL: Latency(ttft=0.3, tpot=0.02), Kind.CLOUD: Latency(ttft=0.6, tpot=0.012)}
"""What is expected of a model that has not been called yet."""
_UNMEASURED_EMBEDDINGS = Latency(ttft=0.2, tpot=0)


class Place(NamedTuple):
    """One model at one backend, seen by one request. A tuple, because each request makes many of them."""

    backend: BackendView
    model: str
    card: ModelCard
    words: frozenset[str]
    """What selectors may ask for."""
    wait: float
    """Expected seconds in the queue."""
    seconds: float
    """Expected seconds from submission to the end of the answer."""
    cost: int | None
    """Expected nano-dollars; `None` when the prices are not known."""


class Offer(NamedTuple):
    """One model at one backend, whoever asks."""

    model: str
    card: ModelCard
    words: frozenset[str]


_MOST = 4096
_kept: dict[tuple[str, int], tuple[BackendView, tuple[Offer, ...]]] = {}
"""By backend and operation, what was offered last: not more than the fleet is large."""


def offers_of(backend: BackendView, operation: Operation) -> tuple[Offer, ...]:
    """What a backend has for an operation, in order of the models' names.

    Kept for the next request: from one snapshot to the next a backend's models and cards are the same
    objects, while only its depths change.
    """
    key = backend.name, id(operation)
    if (known := _kept.get(key)) and _offers_the_same(known[0], backend):
        return known[1]
    found = tuple(
        Offer(model, backend.card(model), _words(backend.kind, backend.name, model, backend.card(model).tags))
        for model in sorted(backend.models)
        if backend.can(model, operation)
    )
    if len(_kept) >= _MOST:
        _kept.clear()
    _kept[key] = backend, found
    return found


def _offers_the_same(one: BackendView, other: BackendView) -> bool:
    return (
        one.cards is other.cards
        and one.models is other.models
        and one.operations is other.operations
        and one.kind is other.kind
    )


def models_of(backend: BackendView, operation: Operation) -> Iterator[str]:
    """The models of a backend that can do the operation, in order of their names."""
    return (offer.model for offer in offers_of(backend, operation))


@lru_cache(maxsize=4096)
def _words(kind: Kind, backend: str, model: str, tags: tuple[str, ...]) -> frozenset[str]:
    return frozenset({kind.value, f"backend:{backend}", f"model:{model}", *tags})


def places_at(backend: BackendView, needs: Needs, only: Container[str] | None = None) -> list[Place]:
    """The places of a backend that can do what is asked for, in order of the models' names.

    `only`: of no other models.
    """
    wait, prior = _common(backend, needs)
    return [
        _place(backend, offer, needs, wait, prior)
        for offer in offers_of(backend, needs.request.operation)
        if only is None or offer.model in only
    ]


def place(backend: BackendView, model: str, needs: Needs) -> Place:
    """The place of one model."""
    card = backend.card(model)
    words = _words(backend.kind, backend.name, model, card.tags)
    return _place(backend, Offer(model, card, words), needs, *_common(backend, needs))


def _common(backend: BackendView, needs: Needs) -> tuple[float, Latency]:
    """What all places of a backend share: the wait, and the speed of a model that has not been called yet."""
    embeds = needs.request.operation is Operation.EMBEDDINGS
    prior = _UNMEASURED_EMBEDDINGS if embeds else UNMEASURED[backend.kind]
    return backend.estimated_wait(needs.request.priority), prior


def _place(backend: BackendView, offer: Offer, needs: Needs, wait: float, prior: Latency) -> Place:
    model, card, words = offer
    busy = backend.latencies.get(model, prior).seconds(needs.output)
    cost = token_cost(card, needs.prompt.likely, needs.output)
    if cost is None and backend.kind is Kind.LOCAL:
        cost = 0
    if cost is not None:
        cost += machine_cost(backend.slot_usd_per_hour, busy)
    return Place(backend, model, card, words, wait, wait + busy, cost)
