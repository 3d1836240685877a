"""What `k9 up` leaves in the state folder for people and scripts: where everything is."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from k9_api.up.plan import FLOWER_USER
from k9_broker.adapters.redis_folder import write_private
from k9_broker.errors import ConfigurationError

FILE = "up.json"
LOCK = "up.lock"
"""Held for as long as `k9 up` runs."""


@dataclass(frozen=True, slots=True)
class Up:
    """A running `k9 up`; the file exists while everything is up, and holds secrets (0600)."""

    api: str
    redis: str = field(repr=False)
    flower: str | None = None
    flower_user: str | None = None
    flower_password: str | None = field(default=None, repr=False)
    backends: tuple[str, ...] = ()
    not_ready: tuple[str, ...] = ()
    pid: int = field(default_factory=os.getpid)
    pids: Mapping[str, int | None] = field(default_factory=dict)
    config: str | None = None
    """The file it reads."""
    reloads: int = 0
    """How often it was asked to read it again."""
    told: tuple[str, ...] = ()
    """What the last time changed."""
    refused: str = ""
    """Why the last time changed nothing."""
    complete: bool = True
    """Whether every worker that was to come then is ready."""


def with_flower(up: Up, url: str, password: str) -> Up:
    return replace(up, flower=url, flower_user=FLOWER_USER, flower_password=password)


def write(state_dir: Path, up: Up) -> None:
    write_private(state_dir / FILE, json.dumps(asdict(up), indent=2) + "\n")


def read(state_dir: Path) -> dict[str, Any]:
    """What a running `k9 up` wrote. Raises `ConfigurationError` when none runs."""
    try:
        said: dict[str, Any] = json.loads((state_dir / FILE).read_text("utf-8"))
        if _is_held(state_dir / LOCK):  # else its writer was killed, and the pid may be somebody else's now
            return said
    except (OSError, ValueError):
        pass
    raise ConfigurationError(
        f"No `k9 up` runs on {state_dir}. Processes started by hand read their configuration again"
        " when they are sent SIGHUP."
    )


def _is_held(path: Path) -> bool:
    with path.open("rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def remove(state_dir: Path) -> None:
    (state_dir / FILE).unlink(missing_ok=True)


@contextmanager
def alone(state_dir: Path) -> Iterator[None]:
    """Only one `k9 up` per state folder. Raises `ConfigurationError` when there is one."""
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(os.open(state_dir / LOCK, os.O_RDWR | os.O_CREAT, 0o600), "rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(
                f"`k9 up` already runs on {state_dir}{_where(state_dir)}."
                " Stop it, or name another folder: `k9 up --state-dir FOLDER`."
            ) from None
        remove(state_dir)  # of one that was killed
        try:
            yield
        finally:
            remove(state_dir)


def _where(state_dir: Path) -> str:
    try:
        said = json.loads((state_dir / FILE).read_text("utf-8"))
        return f" (pid {said['pid']}, {said['api']})"
    except (OSError, ValueError, KeyError):
        return ""


def flower_password(state_dir: Path) -> str:
    """The password of this folder's Flower: made once, so that browsers may remember it."""
    path = state_dir / "flower-password"
    try:
        if said := path.read_text("utf-8").strip():
            return said
    except FileNotFoundError:
        pass
    made = secrets.token_urlsafe(18)
    write_private(path, made + "\n")
    return made
