"""Packing records into chunks: one chunk is one job. Pure, and the same from any chunk's start."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from k9_api.batch.records import BadLine, Item, Record

CHUNK = 256
"""Records in a chunk at most."""

CHARACTERS = 400_000
"""Characters in a chunk at most, unless one record alone is longer."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive items of the input, from item `start` up to but not including item `end`."""

    start: int
    end: int
    records: tuple[Record, ...]
    bad: tuple[BadLine, ...] = ()


def pack(items: Iterable[Item], count: int = CHUNK, characters: int = CHARACTERS) -> Iterator[Chunk]:
    """Chunks of at most `count` records and `characters` characters, with at most `count` bad lines.

    Every item is in exactly one chunk, in order; no chunk is empty. Packing that begins at the
    start of any chunk yields the same chunks from there on.
    """
    records: list[Record] = []
    bad: list[BadLine] = []
    start = end = length = 0

    for item in items:
        size = len(item.text) if isinstance(item, Record) else 0
        full = len(records) >= count or len(bad) >= count or (records and size and length + size > characters)
        if full:
            yield Chunk(start, end, tuple(records), tuple(bad))
            records, bad, length = [], [], 0
        if not records and not bad:
            start = item.index
        end = item.index + 1
        length += size
        if isinstance(item, Record):
            records.append(item)
        else:
            bad.append(item)
    if records or bad:
        yield Chunk(start, end, tuple(records), tuple(bad))
