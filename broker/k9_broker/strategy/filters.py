"""Filters: what removes a place, each with its reason. What is unknown of a model removes nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from k9_broker.requests import Kind, Priority, Privacy
from k9_broker.snapshot import NO_WORKER as NO_WORKER
from k9_broker.strategy.needs import Needs
from k9_broker.strategy.places import Place

NOT_SERVED = "model-not-served"
NOT_CAPABLE = "operation-not-supported"
SPECIAL = "special-purpose"
OTHER_SPACE = "other-embedding-model"
RATE_LIMITED = "rate-limited"
OPEN = "circuit-open"
NO_QUOTA = "out:insufficient_quota"
NO_CREDENTIALS = "out:backend_credentials"
DOWN = frozenset({OPEN, NO_QUOTA, NO_CREDENTIALS})
"""What `BackendView.down` says."""
LOCAL_ONLY = "privacy:local-only"
WRONG_KIND = "kind:not-asked-for"
TOO_LONG = "context-window"
ANSWER_TOO_LONG = "max-output"
NO_TOOLS = "tools-not-supported"
NO_SCHEMA = "json-schema-not-supported"
NO_VISION = "vision-not-supported"
NO_STREAM = "streaming-not-supported"
NO_DIMENSIONS = "dimensions-not-supported"

LONGEST_PACE = 5.0
"""Seconds an interactive request may wait for a rate limit, or for a backend that is down for a moment."""

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
    return place.backend.unfit


def pace(needs: Needs, place: Place) -> str | None:
    """An interactive caller would not wait so long for a turn; a batch does."""
    soon = place.backend.paced_seconds <= LONGEST_PACE or needs.request.priority is Priority.BATCH
    return None if soon else RATE_LIMITED


def back_soon(needs: Needs, place: Place) -> bool:
    """Whether a place that `LIFE` removed is worth waiting for when there is no other."""
    view = place.backend
    if not view.workers or view.down not in ("", OPEN):
        return False
    return (
        needs.request.priority is Priority.BATCH or max(view.down_seconds, view.paced_seconds) <= LONGEST_PACE
    )


CAPABILITIES: tuple[Filter, ...] = (capability, output_limit)
"""What no wish can change."""
WISHES: tuple[Filter, ...] = (kind, privacy)
LIFE: tuple[Filter, ...] = (alive, pace)
"""Last, so that `no-worker` says: it would have been taken. What these remove stands by."""


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
