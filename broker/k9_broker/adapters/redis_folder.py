"""The folder of a private Redis: what it remembers between runs, and who may read it."""

from __future__ import annotations

import json
import os
import random
import secrets
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from k9_broker.adapters.redis_binary import Binary, choose, installed
from k9_broker.errors import ConfigurationError

AppendSync = Literal["everysec", "always"]
"""When the append-only file reaches the disk: each second, or before each reply."""

_PORTS = range(16_500, 32_000)
"""Below the range from which systems take the ports of outgoing connections: otherwise a client
that reconnects while the server restarts could be given the server's own port."""


def folder_of(state_dir: Path) -> Path:
    return state_dir.absolute() / "redis"


def own(folder: Path) -> Path:
    """Make the folder, for its owner alone. Raises `ConfigurationError` if it is somebody else's."""
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise ConfigurationError(f"{folder} belongs to another user. Name another folder with --state-dir.")
    folder.chmod(0o700)
    return folder


def write_private(path: Path, text: str) -> None:
    """Replace the file as a whole, readable by its owner alone."""
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    fresh.replace(path)


@dataclass(frozen=True, slots=True)
class Note:
    """What the folder remembers: where its server listens, with which password, and who wrote it."""

    port: int
    password: str = field(repr=False)
    writer: Binary

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    @classmethod
    def read(cls, folder: Path) -> Note | None:
        """`None` when no server has written here yet. Raises `ConfigurationError` when unreadable."""
        try:
            data = json.loads((folder / "note.json").read_text("utf-8"))
            major, minor, patch = map(int, data["version"])
            writer = Binary(Path(data["binary"]), str(data["flavour"]), (major, minor, patch))
            return cls(int(data["port"]), str(data["password"]), writer)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):
            raise ConfigurationError(
                f"{folder / 'note.json'} is not readable. Delete the folder {folder} (it holds the private"
                " Redis with its jobs) or use another --state-dir."
            ) from None

    def write(self, folder: Path) -> None:
        data = {
            "port": self.port,
            "password": self.password,
            "binary": str(self.writer.path),
            "flavour": self.writer.flavour,
            "version": self.writer.version,
        }
        write_private(folder / "note.json", json.dumps(data))


def prepare(folder: Path, appendfsync: AppendSync) -> tuple[Note, Path]:
    """Write the configuration for the next start; returns the note and the configuration's path.

    Port and password stay what they were, so that clients find the server again. If the port is
    taken, both are new: whoever took it may have been sent the old password.
    """
    before = Note.read(folder)
    binary = choose(before.writer if before else None, list(installed()), folder)
    if before and _is_free(before.port):
        note = Note(before.port, before.password, binary)
    else:
        note = Note(_free_port(), secrets.token_urlsafe(24), binary)
    config = folder / "redis.conf"
    quoted = str(folder).replace("\\", "\\\\").replace('"', '\\"')
    write_private(
        config,
        f'bind 127.0.0.1\nport {note.port}\nrequirepass {note.password}\ndir "{quoted}"\n'
        f'save ""\nappendonly yes\nappendfsync {appendfsync}\nmaxmemory-policy noeviction\n'
        'daemonize no\nlogfile ""\nalways-show-logo no\n',
    )
    note.write(folder)
    return note, config


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _free_port() -> int:
    for port in random.sample(_PORTS, 200):
        if _is_free(port):
            return port
    raise ConfigurationError("No free port on 127.0.0.1. Name a Redis that runs: `--redis URL`.")
