"""The input as a whole: which file, which format, how far it is read, and whether it is the same."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from k9_api.batch.records import BROKEN, READERS, Fields, Item, read_parquet, read_text
from k9_broker.errors import ConfigurationError

STDIN = "-"
IDENTITY_BYTES = 64 * 2**10


class Source:
    """An opened input. Iterating it once yields its items from item `start` on; `close` releases it.

    Raises `ConfigurationError` when the input is missing, a folder or unreadable; iterating raises
    it when the file breaks halfway.
    """

    def __init__(self, name: str, fields: Fields) -> None:
        self.name, self.fields = name, fields
        self._advanced = 0
        try:
            self._raw = cast(
                BinaryIO, io.FileIO(0, closefd=False) if name == STDIN else io.FileIO(name)
            )  # unbuffered: the reading thread may block in it for ever without holding a lock
        except OSError as error:
            raise ConfigurationError(
                f"{name} cannot be read: {error.strerror}. Check the path and its permissions."
            ) from None
        status = os.fstat(self._raw.fileno())
        self.rewindable = stat.S_ISREG(status.st_mode)
        """Whether it can be read a second time: a file can, a pipe cannot."""
        self._size = status.st_size if self.rewindable else 0
        path = Path(name)
        self._gzip = path.suffix == ".gz"
        self.format = (path.with_suffix("") if self._gzip else path).suffix.lower()
        if self.format == ".parquet" and self._gzip:
            raise ConfigurationError(f"{name}: Parquet is compressed inside. Unpack the .gz first.")

    def items(self, start: int = 0) -> Iterator[Item]:
        for item in self._items():
            if item.index >= start:
                yield item

    def _items(self) -> Iterator[Item]:
        try:
            if self.format == ".parquet":
                yield from read_parquet(Path(self.name), self.fields, self._advance)
            else:
                packed = gzip.GzipFile(fileobj=self._raw) if self._gzip else self._raw
                yield from READERS.get(self.format, read_text)(packed.read, self.fields)
        except BROKEN as error:
            raise ConfigurationError(f"{self.name} cannot be read further: {error}.") from None

    def _advance(self, rows: int) -> None:
        self._advanced = rows

    def fraction(self) -> float | None:
        """How much of the input is read, 0 to 1; `None` when nobody can know (standard input)."""
        if self.format == ".parquet":
            total = self._parquet_rows()
            return self._advanced / total if total else None
        if not self._size:
            return None
        return min(1.0, self._raw.tell() / self._size)

    def _parquet_rows(self) -> int:
        if not hasattr(self, "_rows"):
            import pyarrow.parquet as parquet

            self._rows = int(parquet.read_metadata(self.name).num_rows)
        return self._rows

    def identity(self) -> dict[str, Any]:
        """What tells whether a file is still the one that was read: size, time of change, first 64 kB."""
        if not self.rewindable:
            return {"stream": True}
        status = os.stat(self.name)
        with open(self.name, "rb") as file:
            head = hashlib.sha256(file.read(IDENTITY_BYTES)).hexdigest()
        return {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "head_sha256": head}

    def close(self) -> None:
        self._raw.close()
