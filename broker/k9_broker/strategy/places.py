"""The places of a fleet: each model at each backend, with what it would cost and how long it would take."""

from __future__ import annotations

from collections.abc import Iterator
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


def models_of(backend: BackendView, operation: Operation) -> Iterator[str]:
    """The models of a backend that can do the operation, in order of their names."""
    return (model for model in sorted(backend.models) if backend.can(model, operation))


@lru_cache(maxsize=4096)
def _words(kind: Kind, backend: str, model: str, tags: tuple[str, ...]) -> frozenset[str]:
    return frozenset({kind.value, f"backend:{backend}", f"model:{model}", *tags})


def place(backend: BackendView, model: str, needs: Needs) -> Place:
    card = backend.card(model)
    operation = needs.request.operation
    prior = _UNMEASURED_EMBEDDINGS if operation is Operation.EMBEDDINGS else UNMEASURED[backend.kind]
    wait = backend.estimated_wait(needs.request.priority)
    busy = backend.latencies.get(model, prior).seconds(needs.output)
    cost = token_cost(card, needs.prompt.likely, needs.output)
    if cost is None and backend.kind is Kind.LOCAL:
        cost = 0
    if cost is not None:
        cost += machine_cost(backend.slot_usd_per_hour, busy)
    return Place(
        backend=backend,
        model=model,
        card=card,
        words=_words(backend.kind, backend.name, model, card.tags),
        wait=wait,
        seconds=wait + busy,
        cost=cost,
    )
