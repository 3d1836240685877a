"""Reading the input: every good line becomes a record, every bad one says why, nothing else is lost."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import threading
from pathlib import Path

import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from k9_api.batch import lines as lines_module
from k9_api.batch.lines import split_lines
from k9_api.batch.records import BadLine, Fields, Item, Record
from k9_api.batch.source import Source
from k9_broker.errors import ConfigurationError


def read(path: Path, fields: Fields | None = None, start: int = 0) -> list[Item]:
    source = Source(str(path), fields or Fields())
    try:
        return list(source.items(start))
    finally:
        source.close()


def short(items: list[Item]) -> list[tuple[str, str]]:
    """(id, text) of records and ("!line", code) of bad lines."""
    return [
        (item.id, item.text) if isinstance(item, Record) else (f"!{item.line_number}", item.code)
        for item in items
    ]


TEXTS = [
    pytest.param(b"", [], id="empty file"),
    pytest.param(b"a", [("1", "a")], id="no newline at the end"),
    pytest.param(b"a\nb\n", [("1", "a"), ("2", "b")], id="newline at the end is no line"),
    pytest.param(b"a\r\nb\r\n", [("1", "a"), ("2", "b")], id="CRLF"),
    pytest.param(
        b"a\n\n \t\nb\n", [("1", "a"), ("!2", "empty_line"), ("!3", "empty_line"), ("4", "b")], id="empty"
    ),
    pytest.param(b"a\n\xff\xfe\nb", [("1", "a"), ("!2", "invalid_utf8"), ("3", "b")], id="not UTF-8"),
    pytest.param(b"\xef\xbb\xbfa\nb", [("1", "a"), ("2", "b")], id="byte order mark"),
    pytest.param(
        "ä\u2028b\x85c\n€".encode(), [("1", "ä\u2028b\x85c"), ("2", "€")], id="only \\n ends a line"
    ),
]


@pytest.mark.parametrize(("raw", "expected"), TEXTS)
def test_text_lines(tmp_path: Path, raw: bytes, expected: list[tuple[str, str]]) -> None:
    (tmp_path / "in.txt").write_bytes(raw)
    assert short(read(tmp_path / "in.txt")) == expected


JSON_LINES = [
    pytest.param(b'{"text": "a"}', Fields(), ("1", "a"), id="text"),
    pytest.param(b'{"input": "a"}', Fields(), ("1", "a"), id="input"),
    pytest.param(b'{"content": "a", "text": "b"}', Fields(), ("1", "b"), id="text before content"),
    pytest.param(b'{"id": "x", "text": "a"}', Fields(), ("x", "a"), id="id"),
    pytest.param(b'{"id": 7, "text": "a"}', Fields(), ("7", "a"), id="numeric id"),
    pytest.param(b'{"id": null, "text": "a"}', Fields(), ("1", "a"), id="null id is no id"),
    pytest.param(b'{"id": [1], "text": "a"}', Fields(), ("!1", "wrong_type"), id="list id"),
    pytest.param(b'{"id": true, "text": "a"}', Fields(), ("!1", "wrong_type"), id="boolean id"),
    pytest.param(b'{"k": "x", "t": "a"}', Fields("t", "k"), ("x", "a"), id="named fields"),
    pytest.param(b'{"text": "a"}', Fields("t"), ("!1", "missing_field"), id="named field missing"),
    pytest.param(b'{"text": "a"}', Fields(None, "k"), ("!1", "missing_field"), id="named id missing"),
    pytest.param(b'{"title": "a"}', Fields(), ("!1", "missing_field"), id="no default field"),
    pytest.param(b'{"text": null}', Fields(), ("!1", "missing_field"), id="null text"),
    pytest.param(b'{"text": 5}', Fields(), ("!1", "wrong_type"), id="number for text"),
    pytest.param(b'{"text": ["a"]}', Fields(), ("!1", "wrong_type"), id="list for text"),
    pytest.param(b'{"text": "  "}', Fields(), ("!1", "empty_line"), id="blank text"),
    pytest.param(b'"a"', Fields(), ("!1", "wrong_type"), id="string for object"),
    pytest.param(b"[1]", Fields(), ("!1", "wrong_type"), id="list for object"),
    pytest.param(b'{"text": "a"', Fields(), ("!1", "invalid_json"), id="cut off"),
    pytest.param(b'{"text": "secret', Fields(), ("!1", "invalid_json"), id="open string"),
    pytest.param(b'{"text": "\\ud800"}', Fields(), ("!1", "invalid_json"), id="lone surrogate"),
    pytest.param(b"[" * 100_000, Fields(), ("!1", "invalid_json"), id="deep nesting"),
    pytest.param(b"", Fields(), ("!1", "empty_line"), id="empty"),
    pytest.param(b'{"text": "\xff"}', Fields(), ("!1", "invalid_utf8"), id="not UTF-8"),
]


@pytest.mark.parametrize(("line", "fields", "expected"), JSON_LINES)
def test_json_lines(tmp_path: Path, line: bytes, fields: Fields, expected: tuple[str, str]) -> None:
    (tmp_path / "in.jsonl").write_bytes(line + b'\n{"id": "next", "text": "b", "t": "b", "k": "next"}\n')
    items = read(tmp_path / "in.jsonl", fields)
    assert short(items) == [expected, ("next", "b")]
    assert not any("secret" in item.message for item in items if isinstance(item, BadLine))


CSV_FILES = [
    pytest.param(b"id,text\n1,a\n2,b\n", Fields(), [("1", "a"), ("2", "b")], id="plain"),
    pytest.param(b"\xef\xbb\xbftext\r\na\r\n", Fields(), [("1", "a")], id="BOM and CRLF"),
    pytest.param(b'text,n\n"a\nb, ""c""",1\nd,2\n', Fields(), [("1", 'a\nb, "c"'), ("2", "d")], id="quoted"),
    pytest.param(
        b"text,n\na,1\nx\xff,2\nb,3\n", Fields(), [("1", "a"), ("!2", "invalid_utf8"), ("3", "b")], id="utf8"
    ),
    pytest.param(
        b"n,text\n1,a\n2\n3,b\n", Fields(), [("1", "a"), ("!2", "missing_field"), ("3", "b")], id="short row"
    ),
    pytest.param(b"text\na\n\nb\n", Fields(), [("1", "a"), ("!2", "empty_line"), ("3", "b")], id="empty row"),
    pytest.param(
        b'text,n\n"a"x,1\nb,2\n', Fields(), [("!1", "invalid_csv"), ("2", "b")], id="text after a quote"
    ),
    pytest.param(b'text,n\na,1\n"b,2\nc,3\n', Fields(), [("1", "a"), ("!2", "invalid_csv")], id="open quote"),
    pytest.param(b"t,k\na,x\n", Fields("t", "k"), [("x", "a")], id="named"),
]


@pytest.mark.parametrize(("raw", "fields", "expected"), CSV_FILES)
def test_csv(tmp_path: Path, raw: bytes, fields: Fields, expected: list[tuple[str, str]]) -> None:
    (tmp_path / "in.csv").write_bytes(raw)
    assert short(read(tmp_path / "in.csv", fields)) == expected


def test_csv_takes_huge_fields(tmp_path: Path) -> None:
    text = "x" * 2**20
    (tmp_path / "in.csv").write_text(f"text\n{text}\n")
    assert short(read(tmp_path / "in.csv")) == [("1", text)]


@pytest.mark.parametrize("name", ["in.txt", "in.jsonl", "in.csv"])
def test_an_endless_line_is_reported_and_not_held(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = b"text\n" if name == "in.csv" else b""
    good = b'{"text": "b"}\n' if name == "in.jsonl" else b"b\n"
    with open(tmp_path / name, "wb") as file:
        file.write(header + b"y" * (9 * 2**20) + b"\n" + good)
    found = [
        item.code if isinstance(item, BadLine) else (item.index, item.text) for item in read(tmp_path / name)
    ]
    assert found == ["line_too_long", (1, "b")]


def test_a_line_far_above_the_limit_stays_within_it() -> None:
    pulled = iter([b"z" * 1000] * 500 + [b"\nend"])
    held = list(split_lines(lambda size: next(pulled, b""), limit=2500))
    assert held == [None, b"end"]


def write_parquet(path: Path, **columns: object) -> None:
    parquet.write_table(arrow.table(columns), path, row_group_size=3)


def test_parquet_reads_the_needed_columns(tmp_path: Path) -> None:
    write_parquet(
        tmp_path / "in.parquet", id=[10, 11, 12, 13], text=["a", None, "", "d"], other=[[1], [2], [3], [4]]
    )
    expected = [("10", "a"), ("!2", "missing_field"), ("!3", "empty_line"), ("13", "d")]
    assert short(read(tmp_path / "in.parquet")) == expected


def test_parquet_dictionary_and_large_strings(tmp_path: Path) -> None:
    texts = arrow.array(["a", "b", "a"]).dictionary_encode()
    write_parquet(tmp_path / "in.parquet", content=texts)
    assert short(read(tmp_path / "in.parquet")) == [("1", "a"), ("2", "b"), ("3", "a")]
    write_parquet(tmp_path / "in.parquet", content=arrow.array(["a"], arrow.large_string()))
    assert short(read(tmp_path / "in.parquet")) == [("1", "a")]


def test_gzip_is_unpacked(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl.gz").write_bytes(gzip.compress(b'{"text": "a"}\n'))
    assert short(read(tmp_path / "in.jsonl.gz")) == [("1", "a")]


def test_a_pipe_is_read_as_it_comes(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(b"a\nb\n"))
    writer.start()
    source = Source(str(pipe), Fields())
    assert not source.rewindable
    assert source.identity() == {"stream": True}
    assert short(list(source.items())) == [("1", "a"), ("2", "b")]
    writer.join()
    source.close()


def unreadable(folder: Path) -> list[tuple[str, Fields, str]]:
    (folder / "folder").mkdir()
    (folder / "broken.parquet").write_bytes(b"not parquet at all")
    (folder / "cut.txt.gz").write_bytes(gzip.compress(os.urandom(10_000))[:5000])
    (folder / "not.txt.gz").write_bytes(b"plain")
    (folder / "no.csv").write_bytes(b"a,b\n1,2\n")
    (folder / "empty.csv").write_bytes(b"")
    write_parquet(folder / "numbers.parquet", text=[1, 2])
    write_parquet(folder / "other.parquet", title=["a"])
    return [
        ("missing.txt", Fields(), "cannot be read"),
        ("folder", Fields(), "cannot be read"),
        ("broken.parquet", Fields(), "cannot be read as Parquet"),
        ("cut.txt.gz", Fields(), "cannot be read further"),
        ("not.txt.gz", Fields(), "cannot be read further"),
        ("no.csv", Fields(), "--field"),
        ("no.csv", Fields("a", "c"), "--id-field"),
        ("empty.csv", Fields(), "--field"),
        ("numbers.parquet", Fields(), "int64, not text"),
        ("other.parquet", Fields(), "--field"),
    ]


def test_files_that_cannot_be_read_at_all(tmp_path: Path) -> None:
    for name, fields, message in unreadable(tmp_path):
        with pytest.raises(ConfigurationError, match=message):
            read(tmp_path / name, fields)


def test_it_goes_on_from_any_item(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_bytes(b"a\n\nc\nd\n")
    whole = read(tmp_path / "in.txt")
    for start in range(6):
        assert read(tmp_path / "in.txt", start=start) == whole[start:]


def test_the_fraction_reaches_one(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_bytes(b"some line\n" * 50_000)
    source = Source(str(tmp_path / "in.txt"), Fields())
    seen = [source.fraction() for _ in source.items()]
    assert 0 < seen[0] < 0.2
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    source.close()


def test_the_identity_changes_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "in.txt"
    path.write_bytes(b"a\nb\n")
    before = Source(str(path), Fields()).identity()
    assert Source(str(path), Fields()).identity() == before
    path.write_bytes(b"a\nc\n")
    assert Source(str(path), Fields()).identity() != before


good_text = (
    st.text(min_size=1)
    .filter(lambda text: not text.isspace())
    .filter(lambda text: "".join(text).encode("utf-8", "replace").decode() == text)
)


@given(st.lists(st.tuples(st.text(alphabet="abc123", min_size=1), good_text)))
def test_jsonl_round_trip(pairs: list[tuple[str, str]]) -> None:
    from k9_api.batch.records import read_jsonl

    raw = b"".join(json.dumps({"id": name, "text": text}).encode() + b"\n" for name, text in pairs)
    assert short(list(read_jsonl(io.BytesIO(raw).read, Fields()))) == pairs


@given(st.lists(st.tuples(st.text(alphabet="abc123", min_size=1), good_text)))
def test_csv_round_trip(pairs: list[tuple[str, str]]) -> None:
    from k9_api.batch.records import read_csv

    written = io.StringIO(newline="")
    writer = csv.writer(written, quoting=csv.QUOTE_ALL)
    writer.writerows([("id", "text"), *pairs])
    assert short(list(read_csv(io.BytesIO(written.getvalue().encode()).read, Fields()))) == pairs


@given(st.binary(max_size=200), st.integers(1, 7), st.integers(1, 20))
def test_lines_are_those_of_split(raw: bytes, block: int, limit: int) -> None:
    file = io.BytesIO(raw)
    expected = raw.split(b"\n")
    if not expected[-1]:
        expected.pop()
    found = list(split_lines(lambda size: file.read(min(size, block)), limit))
    assert found == [None if len(line) > limit else line for line in expected]
    assert lines_module.MAX_LINE == 8 * 2**20
