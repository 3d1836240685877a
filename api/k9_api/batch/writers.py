"""Output files: `.jsonl`, `.npy` with its ids beside it, `.parquet`.

Every writer appends to parts (`parts.py`), can be opened again at a recorded `Position`, and has
two steps at the end: `seal` makes the parts complete, then their names are published.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from pydantic_core import from_json, to_json

from k9_api.batch.answers import FLOAT32, Matrix
from k9_api.batch.parts import Part, part_of
from k9_broker.errors import BackendError, ConfigurationError

NPY_HEADER = 128
"""Bytes kept free for the NPY header: its shape is known only at the end. 64 would do for NumPy."""

GROUP_BYTES = 4 * 2**20
"""Bytes of vectors in one Parquet row group."""


class Position(BaseModel):
    """How far the outputs are written."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    offsets: tuple[int, ...] = (0, 0)
    """Bytes of each part, in the writer's own order."""
    rows: int = 0
    dimensions: int = 0


class Writer(Protocol):
    """One output. `write` takes as many ids as rows."""

    @staticmethod
    def finals(out: Path) -> tuple[Path, ...]:
        """The files there are at the end."""
        ...

    @staticmethod
    def leftovers(out: Path) -> tuple[Path, ...]:
        """The files to remove at the end."""
        ...

    def write(self, ids: Sequence[str], vectors: Matrix) -> None: ...
    def sync(self) -> Position: ...
    def seal(self) -> None: ...
    def close(self) -> None: ...


class JsonlWriter:
    """One `{"id": …, "embedding": […]}` per line; floats in the fewest digits that read back the same."""

    def __init__(self, out: Path, position: Position) -> None:
        self._part = Part(out, position.offsets[0])
        self._rows, self._dimensions = position.rows, position.dimensions

    @staticmethod
    def finals(out: Path) -> tuple[Path, ...]:
        return (out,)

    @staticmethod
    def leftovers(out: Path) -> tuple[Path, ...]:
        return ()

    def write(self, ids: Sequence[str], vectors: Matrix) -> None:
        if not len(ids):
            return
        self._dimensions = _same_width(vectors, self._dimensions)
        self._rows += len(ids)
        rows = shortest(vectors).tolist()
        self._part.write(
            b"".join(
                b'{"id":%b,"embedding":%b}\n' % (to_json(name), to_json(row))
                for name, row in zip(ids, rows, strict=True)
            )
        )

    def sync(self) -> Position:
        return Position(offsets=(self._part.sync(),), rows=self._rows, dimensions=self._dimensions)

    def seal(self) -> None:
        self._part.sync()

    def close(self) -> None:
        self._part.close()


class NpyWriter:
    """A float32 matrix in NPY 1.0, and `OUT.ids.jsonl` whose line k names row k."""

    def __init__(self, out: Path, position: Position) -> None:
        matrix, ids = self.finals(out)
        self._matrix = Part(matrix, position.offsets[0])
        self._ids = Part(ids, position.offsets[1])
        self._rows, self._dimensions = position.rows, position.dimensions
        if not position.offsets[0]:
            self._matrix.write(b"\0" * NPY_HEADER)

    @staticmethod
    def finals(out: Path) -> tuple[Path, ...]:
        return out, out.with_name(out.name + ".ids.jsonl")

    @staticmethod
    def leftovers(out: Path) -> tuple[Path, ...]:
        return ()

    def write(self, ids: Sequence[str], vectors: Matrix) -> None:
        if not len(ids):
            return
        self._dimensions = _same_width(vectors, self._dimensions)
        self._rows += len(ids)
        self._matrix.write(np.ascontiguousarray(vectors, FLOAT32).data)
        self._ids.write(b"".join(b'{"id":%b}\n' % to_json(name) for name in ids))

    def sync(self) -> Position:
        return Position(
            offsets=(self._matrix.sync(), self._ids.sync()), rows=self._rows, dimensions=self._dimensions
        )

    def seal(self) -> None:
        shape = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({self._rows}, {self._dimensions}), }}"
        padded = shape.ljust(NPY_HEADER - 11).encode() + b"\n"
        self._matrix.patch(b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded)
        self.sync()

    def close(self) -> None:
        self._matrix.close()
        self._ids.close()


class ParquetWriter:
    """Columns `id` (string) and `embedding` (fixed-size list of float32).

    Parquet cannot be continued after a crash, so rows are spooled as NPY and turned into row groups
    at the end: twice the disk for a moment, and memory for one row group only.
    """

    def __init__(self, out: Path, position: Position) -> None:
        self._out = out
        self._spool = NpyWriter(_spool(out), position)
        self.write, self.sync, self.close = self._spool.write, self._spool.sync, self._spool.close

    @staticmethod
    def finals(out: Path) -> tuple[Path, ...]:
        return (out,)

    @staticmethod
    def leftovers(out: Path) -> tuple[Path, ...]:
        return tuple(map(part_of, NpyWriter.finals(_spool(out))))

    def seal(self) -> None:
        import pyarrow as arrow
        import pyarrow.parquet as parquet

        position = self._spool.sync()
        matrix, names = self.leftovers(self._out)
        width = position.dimensions
        vectors = arrow.list_(arrow.float32(), width) if width else arrow.list_(arrow.float32())
        schema = arrow.schema([("id", arrow.string()), ("embedding", vectors)])
        target = Part(self._out)
        with parquet.ParquetWriter(
            target.path,
            schema,
            compression="none",
            use_dictionary=False,
            write_statistics=["id"],
        ) as file:
            for ids, rows in _groups(matrix, names, position):
                column = arrow.FixedSizeListArray.from_arrays(arrow.array(rows.ravel()), width)
                file.write_table(arrow.table([arrow.array(ids, arrow.string()), column], schema))
        target.sync()
        target.close()


def _spool(out: Path) -> Path:
    return out.with_name(out.name + ".spool")


def _groups(matrix: Path, ids: Path, position: Position) -> Iterator[tuple[list[str], Matrix]]:
    width = position.dimensions
    at_once = max(1, GROUP_BYTES // max(1, 4 * width))
    with open(matrix, "rb") as vectors, open(ids, "rb") as names:
        vectors.seek(NPY_HEADER)
        for start in range(0, position.rows, at_once):
            count = min(at_once, position.rows - start)
            rows = np.fromfile(vectors, FLOAT32, count * width).reshape(count, width)
            yield [from_json(names.readline())["id"] for _ in range(count)], rows


AnyWriter = type[JsonlWriter] | type[NpyWriter] | type[ParquetWriter]
WRITERS: dict[str, AnyWriter] = {".jsonl": JsonlWriter, ".npy": NpyWriter, ".parquet": ParquetWriter}


def writer_for(out: Path) -> AnyWriter:
    """The writer of the output's suffix. Raises `ConfigurationError` for any other."""
    if kind := WRITERS.get(out.suffix.lower()):
        return kind
    raise ConfigurationError(f"The output {out.name!r} must end in .jsonl, .npy or .parquet.")


def _same_width(vectors: Matrix, expected: int) -> int:
    width = int(vectors.shape[1])
    if expected and width != expected:
        raise BackendError(
            f"The embeddings changed from {expected} to {width} dimensions. Pin one model with --model."
        )
    return width


_POWERS = 10.0 ** np.arange(23)  # the powers of ten a double holds exactly


def shortest(vectors: Matrix) -> NDArray[np.float64]:
    """Doubles whose shortest decimal form is the shortest that reads back as the same float32.

    For n digits, round(x·10^k)/10^k is the double nearest to an n-digit decimal as long as both
    operands are exact (10^k for k ≤ 22, the integer below 2^53): the division rounds once. The
    fewest digits that still give the float32 win; 9 always do. Values too small for that stay
    as they are: more digits, the same number.
    """
    doubles = vectors.astype(np.float64)
    with np.errstate(divide="ignore"):
        exponents = np.floor(np.log10(np.abs(doubles)))
    exponents = np.where(np.isfinite(exponents), exponents, 0).astype(np.int64)
    best = doubles.copy()
    for digits in (9, 8, 7, 6):
        power = _POWERS[np.clip(digits - 1 - exponents, 0, 22)]
        candidate = np.rint(doubles * power) / power
        same = candidate.astype(np.float32) == vectors
        best[same] = candidate[same]
    return best
