"""Pickers: from scores to an order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from hashlib import blake2b

from k9_broker.strategy.places import Place

Rated = tuple[float, int, Place]
"""A place with its score and its number in the configuration's order."""


def best_first(rated: Sequence[Rated]) -> list[Rated]:
    """By score; equals stay in the configuration's order."""
    return sorted(rated, key=lambda one: (-one[0], one[1]))


def spread(rated: Sequence[Rated], near: float, seed: bytes) -> list[Rated]:
    """`best_first`, but places within `near` of the best of them share the requests by their slots.

    Who goes first among near-equals is drawn by weighted rendezvous hashing (Thaler and
    Ravishankar 1998; weights as -w/ln h), so the same request finds the same place again, a warm
    cache with it, while different requests do not all run to one place.
    """
    ordered: list[Rated] = []
    equals: list[Rated] = []
    for one in best_first(rated):
        if equals and one[0] < equals[0][0] * (1 - near):
            ordered += sorted(equals, key=lambda one: -_lot(one[2], seed))
            equals = []
        equals.append(one)
    return ordered + sorted(equals, key=lambda one: -_lot(one[2], seed))


def _lot(place: Place, seed: bytes) -> float:
    drawn = blake2b(f"{place.backend.name}\n{place.model}".encode(), key=seed, digest_size=6).digest()
    share = (int.from_bytes(drawn, "big") + 1) / (2**48 + 1)
    return -max(1, place.backend.slots) / math.log(share)
