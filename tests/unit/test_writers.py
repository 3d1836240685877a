"""Output files: what is written reads back equal, whatever the format, and from any recorded position."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from k9_api.batch.answers import FLOAT32, Matrix
from k9_api.batch.parts import Part, part_of, publish
from k9_api.batch.writers import NPY_HEADER, Position, shortest, writer_for
from k9_broker.errors import BackendError, ConfigurationError

FORMATS = ["out.jsonl", "out.npy", "out.parquet"]


def rows(count: int, width: int = 5, seed: int = 0) -> Matrix:
    return np.random.default_rng(seed).normal(size=(count, width)).astype(FLOAT32)


def names(count: int, first: int = 0) -> list[str]:
    return [f'id "{first + number}" ä' for number in range(count)]


def finish(out: Path) -> None:
    kind = writer_for(out)
    publish(kind.finals(out), kind.leftovers(out))


def read_back(out: Path) -> tuple[list[str], Matrix]:
    if out.suffix == ".jsonl":
        lines = [json.loads(line) for line in out.read_text().splitlines()]
        return [line["id"] for line in lines], np.array([line["embedding"] for line in lines], FLOAT32)
    if out.suffix == ".npy":
        ids = out.with_name(out.name + ".ids.jsonl").read_text().splitlines()
        return [json.loads(line)["id"] for line in ids], np.load(out)
    table = parquet.read_table(out)
    return table["id"].to_pylist(), np.array(table["embedding"].to_pylist(), FLOAT32)


@pytest.mark.parametrize("name", FORMATS)
def test_it_reads_back_equal(tmp_path: Path, name: str) -> None:
    out, first, second = tmp_path / name, rows(3), rows(4, seed=1)
    writer = writer_for(out)(out, Position())
    writer.write(names(3), first)
    writer.write([], rows(0))
    writer.write(names(4, 3), second)
    writer.seal()
    writer.close()
    assert not out.exists()
    finish(out)
    ids, matrix = read_back(out)
    assert ids == names(7)
    np.testing.assert_array_equal(matrix, np.concatenate([first, second]))
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("name", FORMATS)
def test_it_goes_on_from_a_position(tmp_path: Path, name: str) -> None:
    out, plain = tmp_path / name, tmp_path / f"plain-{name}"
    writer = writer_for(out)(out, Position())
    writer.write(names(3), rows(3))
    position = writer.sync()
    writer.write(names(9, 90), rows(9, seed=9))  # beyond the position: dropped
    writer.close()
    for _ in range(2):  # the second time as after a crash between sealing and renaming
        writer = writer_for(out)(out, position)
        writer.write(names(4, 3), rows(4, seed=1))
        writer.seal()
        writer.close()
    finish(out)

    writer = writer_for(plain)(plain, Position())
    writer.write(names(3), rows(3))
    writer.write(names(4, 3), rows(4, seed=1))
    writer.seal()
    writer.close()
    finish(plain)
    assert out.read_bytes() == plain.read_bytes()
    assert read_back(out)[0] == names(7)


@pytest.mark.parametrize("name", FORMATS)
def test_an_empty_output_is_valid(tmp_path: Path, name: str) -> None:
    out = tmp_path / name
    writer = writer_for(out)(out, Position())
    writer.seal()
    writer.close()
    finish(out)
    ids, matrix = read_back(out)
    assert ids == []
    assert len(matrix) == 0


@pytest.mark.parametrize("name", FORMATS)
def test_the_width_may_not_change(tmp_path: Path, name: str) -> None:
    out = tmp_path / name
    writer = writer_for(out)(out, Position())
    writer.write(names(1), rows(1, 5))
    before = writer.sync()
    with pytest.raises(BackendError, match="--model"):
        writer.write(names(1), rows(1, 6))
    assert writer.sync() == before
    writer.close()


def test_parquet_has_row_groups_and_fixed_size_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from k9_api.batch import writers

    monkeypatch.setattr(writers, "GROUP_BYTES", 2 * 4 * 5)
    out = tmp_path / "out.parquet"
    writer = writer_for(out)(out, Position())
    writer.write(names(5), rows(5))
    writer.seal()
    writer.close()
    finish(out)
    file = parquet.ParquetFile(out)
    assert file.metadata.num_row_groups == 3
    assert str(file.schema_arrow.field("embedding").type) == "fixed_size_list<element: float>[5]"
    np.testing.assert_array_equal(read_back(out)[1], rows(5))


def test_the_npy_header_is_aligned(tmp_path: Path) -> None:
    out = tmp_path / "out.npy"
    writer = writer_for(out)(out, Position())
    writer.write(names(2), rows(2))
    writer.seal()
    writer.close()
    finish(out)
    raw = out.read_bytes()
    assert len(raw) == NPY_HEADER + 2 * 5 * 4
    assert np.load(out, mmap_mode="r", allow_pickle=False).shape == (2, 5)


def test_other_suffixes_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"\.jsonl, \.npy or \.parquet"):
        writer_for(Path("out.txt"))


finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(st.lists(finite, min_size=1, max_size=20))
def test_every_float_reads_back_the_same(values: list[float]) -> None:
    vectors = np.array([values], FLOAT32)
    np.testing.assert_array_equal(shortest(vectors).astype(FLOAT32), vectors)


@given(st.lists(st.floats(-1.0, 1.0, width=32), min_size=1, max_size=20))
def test_the_floats_of_embeddings_are_the_shortest(values: list[float]) -> None:
    vectors = np.array([[value for value in values if abs(value) > 1e-12 or value == 0.0]], FLOAT32)
    for double, single in zip(shortest(vectors)[0].tolist(), vectors[0], strict=True):
        assert double == float(str(single))


def test_two_writers_of_one_file_are_refused(tmp_path: Path) -> None:
    first = Part(tmp_path / "out")
    with pytest.raises(ConfigurationError, match="another k9 embed"):
        Part(tmp_path / "out")
    first.close()
    Part(tmp_path / "out").close()


def test_a_part_shorter_than_its_checkpoint_is_refused(tmp_path: Path) -> None:
    part_of(tmp_path / "out").write_bytes(b"abc")
    with pytest.raises(ConfigurationError, match="--overwrite"):
        Part(tmp_path / "out", 4)
    Part(tmp_path / "out", 2).close()
    assert part_of(tmp_path / "out").read_bytes() == b"ab"


def test_publishing_may_be_repeated(tmp_path: Path) -> None:
    final, junk = tmp_path / "out", tmp_path / "junk"
    part_of(final).write_bytes(b"new")
    final.write_bytes(b"old")
    for _ in range(2):
        publish([final], [junk])
        assert final.read_bytes() == b"new"
