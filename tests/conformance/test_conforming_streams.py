"""Streams are read the same however the network cuts them and however their server frames them, and a stream
without its end is never an answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random

import pytest

from conformance.cases import ASKS, answer_of_chunks
from conformance.dialects import (
    STREAMS,
    TABLES,
    before_the_end,
    exchange,
    serving,
    stream,
    stream_path,
    streamed,
    taken,
)
from k9_broker.dialects.sse import ServerEvent, SseParser
from k9_broker.errors import BackendError, StreamTruncated
from k9_workers.instances import Instances
from replaying import Ending, Replaying, Reply, bytewise, cut

CUTS = 24


def _with_comments(raw: bytes) -> bytes:
    return b": hello\n\n" + raw.replace(b"\n\n", b"\n\n: still here\n\n:\n\n")


Framing = Callable[[bytes], bytes]
LINES: Mapping[str, Framing] = {
    "as it is": lambda raw: raw,
    "crlf": lambda raw: raw.replace(b"\n", b"\r\n"),
    "no last line end": lambda raw: raw.rstrip(b"\n"),
    "no last line end, crlf": lambda raw: raw.rstrip(b"\n").replace(b"\n", b"\r\n"),
}
"""What any stream of lines may look like."""
EVENTS: Mapping[str, Framing] = {
    **LINES,
    "comments": _with_comments,
    "comments, crlf": lambda raw: _with_comments(raw).replace(b"\n", b"\r\n"),
    "no space": lambda raw: raw.replace(b"data: ", b"data:").replace(b"event: ", b"event:"),
    "byte order mark": lambda raw: b"\xef\xbb\xbf" + raw,
}
"""What server-sent events may look like besides."""


def framings(dialect: str) -> Mapping[str, Framing]:
    return EVENTS if TABLES[dialect].comments else LINES


def put(played: Replaying, path: str, pieces: list[bytes], ending: Ending = "whole") -> None:
    played.routes[("POST", path)] = Reply(pieces=pieces, ending=ending)


@pytest.mark.parametrize(("dialect", "case"), STREAMS)
async def test_cuts_and_framing_do_not_matter(dialect: str, case: str) -> None:
    found = exchange(dialect, case)
    raw, path = b"".join(found.stream), stream_path(found)
    names = list(framings(dialect))
    async with serving(dialect, {}) as (played, caller):
        for seed in range(CUTS):
            framed = framings(dialect)[names[seed % len(names)]](raw)
            ending: Ending = "eof" if seed % 5 == 4 else "whole"
            put(played, path, cut(framed, Random(f"{dialect} {case} {seed}")), ending)
            answer = answer_of_chunks(await taken(caller, ASKS[case]))
            assert answer == found.answer, (names[seed % len(names)], seed)
        assert len(played.seen) == CUTS


async def test_pieces_are_not_joined_on_their_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else this suite would say nothing: the parsers must see the cuts that the server made."""
    seen: list[bytes] = []

    def feed(parser: SseParser, data: bytes) -> list[ServerEvent]:
        seen.append(data)
        return whole_feed(parser, data)

    whole_feed = SseParser.feed
    monkeypatch.setattr(SseParser, "feed", feed)
    found = exchange("openai", "text")
    pieces = cut(b"".join(found.stream), Random(7))
    async with serving("openai", {found.path: Reply(pieces=pieces)}) as (_, caller):
        await taken(caller, ASKS["text"])
    assert b"".join(seen) == b"".join(pieces)
    assert len(seen) > len(pieces) / 2


@pytest.mark.parametrize("dialect", TABLES)
async def test_byte_by_byte(dialect: str) -> None:
    """Every character of more than one byte is split, and every pair of CR and LF."""
    found = exchange(dialect, "text")
    async with serving(dialect, {}) as (played, caller):
        raw = b"".join(found.stream).replace(b"\n", b"\r\n")
        put(played, stream_path(found), bytewise(raw))
        assert answer_of_chunks(await taken(caller, ASKS["text"])) == found.answer


@pytest.mark.parametrize("dialect", TABLES)
async def test_chunks_come_as_they_are_written(dialect: str) -> None:
    """What has been read of an answer does not wait for the rest of it."""
    found = exchange(dialect, "text")
    reply = stream(found, ending="silence")
    async with serving(dialect, {stream_path(found): reply}) as (_, caller):
        said = ""
        chunks = caller.stream(streamed(ASKS["text"]))
        async for chunk in chunks:
            said += "".join(choice["delta"].get("content") or "" for choice in chunk["choices"])
            if said == found.answer.text:
                break
        await chunks.aclose()


async def truncated(caller: Instances, case: str) -> None:
    with pytest.raises(StreamTruncated) as caught:
        await taken(caller, ASKS[case])
    assert caught.value.retryable
    caller.reset()


@pytest.mark.parametrize(("dialect", "case"), STREAMS)
async def test_a_stream_without_its_end_is_no_answer(dialect: str, case: str) -> None:
    found = exchange(dialect, case)
    raw, last, random = b"".join(found.stream), before_the_end(found), Random(f"{dialect} {case}")
    endings: tuple[Ending, ...] = ("whole", "eof", "reset")
    places = [0, last, *(random.randrange(last) for _ in range(7))]
    async with serving(dialect, {}) as (played, caller):
        for number, place in enumerate(places):
            pieces = cut(raw[:place], random, 8) if place > 1 else [raw[:place]] * place
            put(played, stream_path(found), pieces, endings[number % 3])
            await truncated(caller, case)
        assert len(played.seen) == len(places)  # nobody repeats a call that had begun to answer


@pytest.mark.parametrize("dialect", TABLES)
async def test_a_whole_answer_cut_short_is_no_answer(dialect: str) -> None:
    """Also where the length that was announced does not tell it."""
    found = exchange(dialect, "text")
    random = Random(dialect)
    async with serving(dialect, {}) as (played, caller):
        for ending in ("eof", "reset"):
            raw = found.whole[: random.randrange(1, len(found.whole) // 2)]
            headers = {"content-type": "application/json"}
            played.routes[("POST", found.path)] = Reply(pieces=[raw], ending=ending, headers=headers)
            with pytest.raises(BackendError) as caught:
                await caller.call(ASKS["text"])
            assert (caught.value.status, caught.value.retryable) == (502, True)
            caller.reset()
