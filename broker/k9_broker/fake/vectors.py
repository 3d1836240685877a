"""Embeddings without a model: unit vectors of hashed character n-grams, so like texts are near.

A word's vector is the signed sum of its hashed n-grams (the hashing trick of Weinberger et al.,
2009, over the subwords of Bojanowski et al., 2017); a text's is the sum over its words, scaled
to length one. Word vectors are kept as one long integer with a lane of 32 bits per dimension,
because adding those is one machine-speed operation and adding Python lists is not.
"""

from __future__ import annotations

import math
import re
from array import array
from functools import lru_cache
from sys import byteorder
from zlib import crc32

from k9_broker.results import pack

_WORD = re.compile(r"\w+")
_BIAS = 1024
"""Added to every lane of every word so that no lane is ever negative and borrows from the next."""
_LONGEST = 200
"""Characters of a word that count; with two n-grams each, a lane stays within the bias."""


def embed(text: str, dimensions: int) -> bytes:
    """The vector of `text`: `dimensions` little-endian float32 of Euclidean length 1."""
    words = _WORD.findall(text.lower()) or [text]
    total = sum([_lanes(word, dimensions) for word in words])
    bias = _BIAS * len(words)
    lanes = array("I", total.to_bytes(4 * dimensions, byteorder))
    values = [lane - bias for lane in lanes]
    length = math.hypot(*values)
    if not length:  # every n-gram met its opposite
        values[0], length = 1, 1.0
    return pack([value / length for value in values])


@lru_cache(maxsize=16384)
def _lanes(word: str, dimensions: int) -> int:
    lanes = array("I", [_BIAS]) * dimensions
    marked = f"<{word[:_LONGEST]}>"
    grams = [marked] + [marked[at : at + size] for size in (3, 4) for at in range(len(marked) - size + 1)]
    for gram in grams:
        code = crc32(gram.encode(errors="replace"))
        lanes[code % dimensions] += 1 if code & 0x80000000 else -1
    return int.from_bytes(lanes.tobytes(), byteorder)
