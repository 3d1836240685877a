"""Newline-delimited JSON: the same lines however they are cut."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k9_broker.dialects.ndjson import NdjsonParser
from k9_broker.errors import BackendError

VALUES = st.lists(st.dictionaries(st.text(max_size=4), st.text(max_size=8), max_size=3), max_size=6)


@settings(max_examples=200, deadline=None)
@given(
    values=VALUES,
    end=st.sampled_from(["\n", "\r\n", "\n\n", "\n  \n"]),
    size=st.integers(1, 40),
    closed=st.booleans(),
    ascii_only=st.booleans(),
)
def test_any_cut_gives_the_same_values(
    values: list[dict[str, str]], end: str, size: int, closed: bool, ascii_only: bool
) -> None:
    text = "".join(json.dumps(value, ensure_ascii=ascii_only) + end for value in values)
    raw = (text if closed else text.rstrip()).encode("utf-8", "surrogatepass")
    parser = NdjsonParser()
    lines = [line for start in range(0, len(raw), size) for line in parser.feed(raw[start : start + size])]
    assert [json.loads(line) for line in lines + parser.close()] == values


def test_a_line_without_end_is_refused() -> None:
    parser = NdjsonParser(limit=100)
    with pytest.raises(BackendError, match="100 bytes"):
        list(map(parser.feed, [b"x" * 10] * 20))


def test_close_forgets() -> None:
    parser = NdjsonParser()
    parser.feed(b'{"a":1}')
    assert parser.close() == [b'{"a":1}']
    assert parser.close() == []
