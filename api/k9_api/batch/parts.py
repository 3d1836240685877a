"""Files that appear whole or not at all: written as `….part`, resumable at an offset, then renamed."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from k9_broker.errors import ConfigurationError

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows has no advisory locks; the rest works the same
    fcntl = None

BUFFER = 2**20


def part_of(path: Path) -> Path:
    """Where `path` is written until it is complete."""
    return path.with_name(path.name + ".part")


class Part:
    """An open `….part`, cut to `offset` bytes: what a run killed after its last checkpoint wrote is dropped.

    Raises `ConfigurationError` when another process writes it, when it cannot be written, or when it
    is shorter than `offset`.
    """

    def __init__(self, final: Path, offset: int = 0) -> None:
        self.path = part_of(final)
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
        except OSError as error:
            raise ConfigurationError(f"{self.path} cannot be written: {error.strerror}.") from None
        self._file = os.fdopen(descriptor, "r+b", buffering=BUFFER)
        try:
            self._claim(offset)
        except BaseException:
            self._file.close()
            raise

    def _claim(self, offset: int) -> None:
        if fcntl:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise ConfigurationError(f"{self.path} is being written by another k9 embed.") from None
        if os.fstat(self._file.fileno()).st_size < offset:
            raise ConfigurationError(
                f"{self.path} is shorter than its checkpoint says. Start again with --overwrite."
            )
        self._file.truncate(offset)
        self._file.seek(offset)

    def write(self, data: bytes | memoryview) -> None:
        self._file.write(data)

    def patch(self, data: bytes) -> None:
        """Write `data` over the beginning; the position stays at the end."""
        self._file.seek(0)
        self._file.write(data)
        self._file.seek(0, os.SEEK_END)

    def sync(self) -> int:
        """Make all that was written durable; its length in bytes."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        self._file.close()


def write_whole(path: Path, data: bytes) -> None:
    """Replace `path` by `data`: a reader, and a crash, sees the old or the new, never a mixture."""
    part = part_of(path)
    with open(part, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def publish(finals: Iterable[Path], remove: Iterable[Path]) -> None:
    """Rename every finished part to its name and remove what is no longer needed. Repeatable."""
    for final in finals:
        if part_of(final).exists():
            os.replace(part_of(final), final)
    for path in remove:
        path.unlink(missing_ok=True)
