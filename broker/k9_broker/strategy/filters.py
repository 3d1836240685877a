"""Filters: what removes a place, each with its reason. What is unknown of a model removes nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from k9_broker.requests import Kind, Privacy
from k9_broker.strategy.needs import Needs
from k9_broker.strategy.places import Place

NOT_SERVED = "model-not-served"
NOT_CAPABLE = "operation-not-supported"
SPECIAL = "special-purpose"
OTHER_SPACE = "other-embedding-model"
NO_WORKER = "no-worker"
LOCAL_ONLY = "privacy:local-only"
WRONG_KIND = "kind:not-asked-for"
TOO_LONG = "context-window"
ANSWER_TOO_LONG = "max-output"
NO_TOOLS = "tools-not-supported"
NO_SCHEMA = "json-schema-not-supported"
NO_VISION = "vision-not-supported"
NO_STREAM = "streaming-not-supported"
NO_DIMENSIONS = "dimensions-not-supported"

Filter = Callable[[Needs, Place], str | None]
"""The reason why the place may not take the request, or `None`."""


def capability(needs: Needs, place: Place) -> str | None:
    card = place.card
    if needs.models is None and "special" in card.tags:
        return SPECIAL
    if needs.tools and card.tools is False:
        return NO_TOOLS
    if needs.json_schema and card.json_schema is False:
        return NO_SCHEMA
    if needs.vision and card.vision is False:
        return NO_VISION
    if needs.request.stream and card.streaming is False:
        return NO_STREAM
    if needs.dimensions and card.dimensions and needs.dimensions not in card.dimensions:
        return NO_DIMENSIONS
    return None


def output_limit(needs: Needs, place: Place) -> str | None:
    most, asked = place.card.max_output, needs.asked_output
    return ANSWER_TOO_LONG if most is not None and asked is not None and asked > most else None


def kind(needs: Needs, place: Place) -> str | None:
    wanted = needs.request.kind
    return WRONG_KIND if wanted is not None and place.backend.kind is not wanted else None


def privacy(needs: Needs, place: Place) -> str | None:
    away = place.backend.kind is not Kind.LOCAL
    return LOCAL_ONLY if away and needs.privacy is Privacy.LOCAL_ONLY else None


def alive(needs: Needs, place: Place) -> str | None:
    return None if place.backend.workers else NO_WORKER


CAPABILITIES: tuple[Filter, ...] = (capability, output_limit)
"""What no wish can change."""
WISHES: tuple[Filter, ...] = (kind, privacy)
LIFE: tuple[Filter, ...] = (alive,)
"""Last, so that `no-worker` says: it would have been taken."""


def why_not(filters: Sequence[Filter], needs: Needs, place: Place) -> str | None:
    """The first reason."""
    for one in filters:
        if reason := one(needs, place):
            return reason
    return None


def room_for(needs: Needs, places: Sequence[Place]) -> list[bool]:
    """For each place whether its context window is large enough.

    An estimate is only an estimate: the likely number of tokens decides while some place has room
    for it; when none has, only those are too small that could not even take the least. Room where
    the request may not go is no room.
    """
    output = needs.asked_output or 0

    def fits(place: Place, tokens: int) -> bool:
        window = place.card.context_window
        return window is None or tokens + output <= window

    likely = [fits(place, needs.window.likely) for place in places]
    if any(fit and why_not(WISHES, needs, place) is None for fit, place in zip(likely, places, strict=True)):
        return likely
    return [fits(place, needs.window.least) for place in places]
