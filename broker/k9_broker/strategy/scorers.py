"""Scorers: how good a place is for a request, from 0 to 1, in one respect each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from k9_broker.policy import Selector
from k9_broker.requests import Kind
from k9_broker.strategy.needs import Needs
from k9_broker.strategy.places import Place

USUAL_QUALITY = {Kind.LOCAL: 0.5, Kind.CLOUD: 0.8}
"""Of a model whose card does not say."""


@dataclass(frozen=True, slots=True)
class Field:
    """What a scorer compares a place with."""

    needs: Needs
    prefer: tuple[Selector, ...]
    strong_above: float
    strong_quality: float
    dearest: int
    """The highest expected cost among the places, nano-dollars."""
    fastest: float
    """The shortest expected time among the places, seconds."""


def field_of(
    needs: Needs,
    places: Sequence[Place],
    *,
    prefer: tuple[Selector, ...],
    strong_above: float,
    strong_quality: float,
) -> Field:
    return Field(
        needs=needs,
        prefer=prefer,
        strong_above=strong_above,
        strong_quality=strong_quality,
        dearest=max((place.cost or 0 for place in places), default=0),
        fastest=min((place.seconds for place in places), default=0.0),
    )


def preferred(field: Field, place: Place) -> Selector | None:
    """The first selector that fits the place."""
    return next((words for words in field.prefer if words <= place.words), None)


def preference(field: Field, place: Place) -> float:
    """1 for the first selector, evenly less for each later one, 0 when none fits."""
    for rank, words in enumerate(field.prefer):
        if words <= place.words:
            return 1 - rank / len(field.prefer)
    return 0.0


def quality(field: Field, place: Place) -> float:
    known = place.card.quality
    return USUAL_QUALITY[place.backend.kind] if known is None else known


def adequacy(field: Field, place: Place) -> float:
    """1 when the model is strong enough for the request; else at most a half, less the weaker it is."""
    if field.needs.recognition.needs_strong <= field.strong_above:
        return 1.0
    has = quality(field, place)
    return 1.0 if has >= field.strong_quality else 0.5 * has / field.strong_quality


def cost(field: Field, place: Place) -> float:
    """1 when it costs nothing, 0 for the dearest place and for unknown prices."""
    if place.cost is None:
        return 0.0
    return 1 - place.cost / field.dearest if field.dearest else 1.0


def latency(field: Field, place: Place) -> float:
    """The shortest expected time over its own: 1 for the fastest, a half for twice as long."""
    return field.fastest / place.seconds if place.seconds > 0 else 1.0


def load(field: Field, place: Place) -> float:
    """The share of its slots and marks that is free."""
    view = place.backend
    room = view.slots + view.max_waiting[field.needs.request.priority]
    taken = view.in_flight + view.waiting.get(field.needs.request.priority, 0)
    return max(0.0, 1 - taken / room) if room else 0.0


SCORERS: Mapping[str, Callable[[Field, Place], float]] = {
    "preference": preference,
    "adequacy": adequacy,
    "cost": cost,
    "quality": quality,
    "latency": latency,
    "load": load,
}
