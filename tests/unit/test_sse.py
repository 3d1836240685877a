"""Server-sent events: the same events however they are cut, ended and commented."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k9_broker.dialects.sse import ServerEvent, SseParser
from k9_broker.errors import BackendError

TEXT = st.text(st.characters(exclude_characters="\r\n", exclude_categories=("Cs",)), max_size=12)
EVENT = st.tuples(st.lists(TEXT, min_size=1, max_size=3), st.sampled_from(["", "error", "ping"]))
NOISE = st.sampled_from([[], [": keep-alive"], [":"], ["id: 7"], ["retry: 3000"], ["unknown"], ["", ""]])
ENDS = st.sampled_from([["\n"], ["\r\n"], ["\r"], ["\n", "\r\n"]])  # a lone CR before LF would be one end


def parsed(pieces: list[bytes]) -> list[ServerEvent]:
    parser = SseParser()
    events = [event for piece in pieces for event in parser.feed(piece)]
    return events + parser.close()


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, list[ServerEvent]]:
    """The bytes of a stream as some server writes it, and the events in it."""
    lines: list[str] = []
    expected = []
    for data, name in draw(st.lists(EVENT, max_size=6)):
        noise = draw(NOISE)
        if name:
            lines.append(f"event:{draw(st.sampled_from(['', ' ']))}{name}")
            noise = [line for line in noise if line]  # a blank line would end the event
        lines += noise
        for text in data:
            space = " " if text.startswith(" ") or draw(st.booleans()) else ""
            lines.append(f"data:{space}{text}")
        lines.append("")
        expected.append(ServerEvent("\n".join(data).encode(), name or "message"))
    ends = st.sampled_from(draw(ENDS))
    raw = "".join(line + draw(ends) for line in lines)
    if draw(st.booleans()):  # the server forgot the last blank line
        raw = raw.rstrip("\r\n")
    return raw.encode(), expected


@settings(max_examples=300, deadline=None)
@given(stream=streams(), cuts=st.lists(st.integers(0, 400), max_size=12), bom=st.booleans())
def test_any_cut_gives_the_same_events(
    stream: tuple[bytes, list[ServerEvent]], cuts: list[int], bom: bool
) -> None:
    raw, expected = stream
    raw = b"\xef\xbb\xbf" + raw if bom else raw
    places = sorted({min(cut, len(raw)) for cut in cuts} | {0, len(raw)})
    assert parsed([raw[a:b] for a, b in pairwise(places)]) == expected
    assert parsed([raw[i : i + 1] for i in range(len(raw))]) == expected


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"data:x\n\n", [b"x"]),
        (b"data: x\n\n", [b"x"]),
        (b"data:  x\n\n", [b" x"]),
        (b"data: x", [b"x"]),
        (b"data: x\ndata: y\n\n", [b"x\ny"]),
        (b"data\n\n", [b""]),
        (b": hi\r\n\r\ndata: x\r\n\r\n", [b"x"]),
        (b"event: done\n\ndata: x\n\n", [b"x"]),
        (b"\n\n\n", []),
        (b"", []),
    ],
)
def test_table(raw: bytes, expected: list[bytes]) -> None:
    assert [event.data for event in parsed([raw])] == expected


def test_a_name_belongs_to_one_event() -> None:
    events = parsed([b"event: error\ndata: a\n\ndata: b\n\n"])
    assert events == [ServerEvent(b"a", "error"), ServerEvent(b"b", "message")]


@pytest.mark.parametrize("piece", [b"data: " + b"x" * 60, b"x" * 60, b"data: xxxxxxxxxx\n"])
def test_an_endless_event_is_refused(piece: bytes) -> None:
    parser = SseParser(limit=200)
    with pytest.raises(BackendError, match="200 bytes"):
        list(map(parser.feed, [piece] * 40))


def test_many_events_within_the_limit_pass() -> None:
    parser = SseParser(limit=200)
    assert sum(len(parser.feed(b"data: " + b"x" * 150 + b"\n\n")) for _ in range(50)) == 50
