"""Every dialect gives the same answers, whole and streamed, to the same requests, over a real socket."""

from __future__ import annotations

import pytest

from conformance.cases import ASKS, Absent, Exchange, answer_of, answer_of_chunks
from conformance.dialects import (
    CASES,
    STREAMS,
    STREAMS_ALL,
    TABLES,
    exchange,
    serving,
    stream,
    stream_path,
    streamed,
    taken,
    whole,
)
from k9_broker.dialects.registry import DIALECTS, dialect_named
from k9_broker.errors import BackendOverloaded, UnsupportedParameter
from k9_broker.requests import Operation
from k9_workers.transport import HttpCaller
from replaying import Reply, asked, replaying


def test_no_dialect_and_no_case_is_left_out() -> None:
    assert set(TABLES) == set(DIALECTS) - {"fake"}  # which is openai-compatible by another name
    for name, table in TABLES.items():
        assert set(table.exchanges) == set(ASKS), name
        for case, row in table.exchanges.items():
            text = ASKS[case].operation is not Operation.EMBEDDINGS
            assert isinstance(row, Absent) or bool(row.stream) is text, (name, case)


@pytest.mark.parametrize(("dialect", "case"), CASES)
async def test_whole(dialect: str, case: str) -> None:
    found = TABLES[dialect].exchanges[case]
    if isinstance(found, Absent):
        async with serving(dialect, {}) as (played, caller):
            for ask in (ASKS[case], streamed(ASKS[case])):
                with pytest.raises(UnsupportedParameter) as caught:
                    await (anext(caller.stream(ask)) if ask.stream else caller.call(ask))
                assert caught.value.param == found.param
            assert not played.seen
        return
    async with serving(dialect, {found.path: whole(found)}) as (played, caller):
        result = await caller.call(ASKS[case])
    assert answer_of(result) == found.answer
    assert [asked(one) for one in played.seen] == [("POST", found.path)]
    assert played.seen[0].headers["content-type"] == "application/json"
    assert played.seen[0].body.get("stream", False) is (dialect in STREAMS_ALL and bool(found.stream))


@pytest.mark.parametrize(("dialect", "case"), [one for one in STREAMS if one[0] in STREAMS_ALL])
async def test_a_whole_answer_may_come_in_pieces(dialect: str, case: str) -> None:
    found = exchange(dialect, case)
    async with serving(dialect, {found.path: stream(found)}) as (_, caller):
        result = await caller.call(ASKS[case])
    assert answer_of(result) == found.answer


@pytest.mark.parametrize(("dialect", "case"), STREAMS)
async def test_streamed(dialect: str, case: str) -> None:
    """The stream's totals are those of the whole answer: both are held against the same expectation."""
    found = exchange(dialect, case)
    async with serving(dialect, {stream_path(found): stream(found)}) as (played, caller):
        answer = answer_of_chunks(await taken(caller, ASKS[case]))
    assert answer == found.answer
    assert [asked(one) for one in played.seen] == [("POST", stream_path(found))]
    assert played.seen[0].body.get("stream", True) is True


@pytest.mark.parametrize("dialect", TABLES)
async def test_vectors_are_bit_equal_however_they_come(dialect: str) -> None:
    table = TABLES[dialect].exchanges
    rows = [row for case in ("vectors", "floats") if isinstance(row := table[case], Exchange)]
    packed = set()
    for row in rows:
        async with serving(dialect, {row.path: whole(row)}) as (_, caller):
            vectors = (await caller.call(ASKS["vectors"])).vectors
        assert vectors is not None
        packed.add(vectors.packed)
    assert len(packed) == (1 if rows else 0)


@pytest.mark.parametrize("dialect", TABLES)
async def test_models_load_and_key(dialect: str, monkeypatch: pytest.MonkeyPatch) -> None:
    table = TABLES[dialect]
    path, body, names = table.models
    monkeypatch.setenv("CONFORMANCE_KEY", "sekret")
    routes = {("GET", path): Reply(body)}
    if table.load:
        routes[("GET", table.load[0])] = Reply(table.load[1])
    async with replaying(dialect, routes, api_key_env="CONFORMANCE_KEY") as (played, caller):
        assert set(await caller.models()) == names
        header, value = table.key
        others = {"authorization", "x-api-key", "api-key"} - {header}
        assert played.seen
        assert all(one.headers[header] == value for one in played.seen)
        assert not any(others & one.headers.keys() for one in played.seen)
        assert played.backend
        alone = HttpCaller(played.backend, played.backend.servers[0], dialect_named(dialect))
        assert await alone.load() == (table.load[2] if table.load else None)
        await alone.close()


@pytest.mark.parametrize("dialect", TABLES)
async def test_a_server_that_is_not_up(dialect: str) -> None:
    """A probe that asks for the models or the load is told: busy or loading."""
    table = TABLES[dialect]
    ill = Reply(b"", 503)
    routes = {("GET", path): ill for path in (table.models[0], *((table.load or ())[:1]))}
    async with replaying(dialect, routes) as (_, caller):
        with pytest.raises(BackendOverloaded):
            await caller.models()
