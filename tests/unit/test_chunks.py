"""Packing: every item in exactly one chunk, in order, within the bounds, the same from any chunk on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k9_api.batch.chunks import pack
from k9_api.batch.records import BadLine, Item, Record


def items(sizes: list[int]) -> list[Item]:
    """A record of each size; 0 stands for a bad line."""
    return [
        Record(index, str(index), "x" * size) if size else BadLine(index, index + 1, "empty_line", "")
        for index, size in enumerate(sizes)
    ]


TABLE = [
    pytest.param([], []),
    pytest.param([1, 1, 1], [(0, 2), (2, 3)], id="by count"),
    pytest.param([6, 5, 5], [(0, 1), (1, 3)], id="by characters"),
    pytest.param([50, 1], [(0, 1), (1, 2)], id="one record may be longer"),
    pytest.param([0, 0, 0, 0, 1], [(0, 2), (2, 4), (4, 5)], id="bad lines are bounded too"),
    pytest.param([1, 0, 1], [(0, 3)], id="bad lines between"),
]


@pytest.mark.parametrize(("sizes", "expected"), TABLE)
def test_pack(sizes: list[int], expected: list[tuple[int, int]]) -> None:
    assert [(chunk.start, chunk.end) for chunk in pack(items(sizes), 2, 10)] == expected


@given(st.lists(st.integers(0, 12)), st.integers(1, 5), st.integers(1, 20))
def test_pack_keeps_its_promises(sizes: list[int], count: int, characters: int) -> None:
    whole = items(sizes)
    chunks = list(pack(whole, count, characters))
    together = [
        item for chunk in chunks for item in sorted([*chunk.records, *chunk.bad], key=lambda i: i.index)
    ]
    assert together == whole
    for number, chunk in enumerate(chunks):
        assert len(chunk.records) + len(chunk.bad) > 0
        assert len(chunk.records) <= count
        assert len(chunk.bad) <= count
        assert sum(len(record.text) for record in chunk.records) <= characters or len(chunk.records) == 1
        assert list(pack(whole[chunk.start :], count, characters)) == chunks[number:]
    assert [chunk.start for chunk in chunks[1:]] == [chunk.end for chunk in chunks[:-1]]
