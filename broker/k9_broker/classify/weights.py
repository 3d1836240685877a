"""The recogniser's weights in a file: a line of JSON, then plain bytes. No pickle, nothing that runs.

The JSON names the labels, the sizes and the small layers; after its line end follow the words (UTF-8, one a
line, each with its number), the pairs' keys (unsigned 32-bit, little-endian; the n-th has row n, row 0 is
for all others) and the table (one unsigned byte a weight, row by row, part after part; 128 is zero).
"""

from __future__ import annotations

import json
import sys
from array import array
from dataclasses import dataclass
from itertools import islice
from typing import Final

from k9_broker.classify.reading import (
    LEVELS,
    PLACE_BUCKETS,
    QUESTIONS,
    Vocabulary,
)

ZERO: Final = 128
LANE: Final = 2
"""Bytes that one hidden unit has in a row that is read as one whole number."""


@dataclass(frozen=True, slots=True)
class Weights:
    labels: tuple[str, ...]
    words: Vocabulary
    pairs: dict[int, int]
    width: int
    """How many numbers words have."""
    table: bytes
    scales: tuple[float, ...]
    """What one step of a table weight is worth, for each hidden unit."""
    bias: tuple[float, ...]
    output: tuple[tuple[float, ...], ...]
    """For each label, one weight for each hidden unit."""
    output_bias: tuple[float, ...]
    temperature: float
    """Divides the last layer's sums, so that the probabilities are right as often as they say."""

    @property
    def hidden(self) -> int:
        return len(self.scales)

    def sizes(self) -> tuple[int, ...]:
        """Rows of the table's parts, in the order of `Parts`."""
        pairs = len(self.pairs) + 1
        return (*((self.width, pairs) * 3), QUESTIONS * LEVELS + PLACE_BUCKETS)

    def rows(self) -> list[list[int]]:
        """The table's parts, every row as one whole number with a lane of 16 bits for each hidden unit.

        Rows then add up in one addition each, whatever the number of hidden units. No lane overflows into
        the next while at most 257 rows are added: a reading has fewer tokens than that.
        """
        lanes = bytearray(LANE * len(self.table))
        lanes[::LANE] = self.table
        view, size = memoryview(lanes), LANE * self.hidden
        starts = iter(range(0, len(view), size))
        return [
            [int.from_bytes(view[at : at + size], "little") for at in islice(starts, count)]
            for count in self.sizes()
        ]


def dump(weights: Weights) -> bytes:
    """The file's content. The same weights give the same bytes."""
    # As in a JSON string, because some words are line ends.
    words = "\n".join(
        f"{json.dumps(word, ensure_ascii=False)[1:-1]}\t{number}" for word, number in weights.words.items()
    )
    body = words.encode()
    keys = array("I", sorted(weights.pairs, key=weights.pairs.__getitem__))
    if sys.byteorder == "big":
        keys.byteswap()
    head = {
        "labels": weights.labels,
        "width": weights.width,
        "bytes": [len(body), len(keys) * keys.itemsize, len(weights.table)],
        "scales": weights.scales,
        "bias": weights.bias,
        "output": weights.output,
        "output_bias": weights.output_bias,
        "temperature": weights.temperature,
    }
    return json.dumps(head).encode() + b"\n" + body + keys.tobytes() + weights.table


def load(raw: bytes) -> Weights:
    """The inverse of `dump`. Raises `ValueError` for bytes that are cut short."""
    line, _, body = raw.partition(b"\n")
    head = json.loads(line)
    word_bytes, key_bytes, table_bytes = head["bytes"]
    if len(body) != word_bytes + key_bytes + table_bytes:
        raise ValueError("The weights of the task recogniser are cut short: install the package again.")
    keys = array("I", body[word_bytes : word_bytes + key_bytes])
    if sys.byteorder == "big":
        keys.byteswap()
    words = Vocabulary()
    for entry in body[:word_bytes].decode().split("\n"):
        word, _, number = entry.rpartition("\t")
        words[json.loads(f'"{word}"') if "\\" in word else word] = int(number)
    return Weights(
        labels=tuple(head["labels"]),
        words=words,
        pairs=dict(zip(keys, range(1, len(keys) + 1), strict=True)),
        width=head["width"],
        table=body[word_bytes + key_bytes :],
        scales=tuple(head["scales"]),
        bias=tuple(head["bias"]),
        output=tuple(map(tuple, head["output"])),
        output_bias=tuple(head["output_bias"]),
        temperature=head["temperature"],
    )
