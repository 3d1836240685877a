"""The Redis of this machine: the one that was named, or a private server of the state folder.

A named one is used and nothing else. Else the private server that already runs is used; else one
is to be started: loopback, a port and a password of its own, folder 0700, append-only file,
never evicting. It is not a daemon: whoever holds the folder's lock is its owner and runs it as a
child, so that a crash is noticed and it comes back on the same port with the same password.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from k9_broker.adapters.parent_death import die_with_parent
from k9_broker.adapters.redis_binary import Binary
from k9_broker.adapters.redis_folder import AppendSync, Note, folder_of, own, prepare
from k9_broker.errors import ConfigurationError

UMASK = 0o077
"""For the server process: its files are the owner's alone."""

START_SECONDS = 30.0
"""How long a server may take to read its file and answer."""


class How(StrEnum):
    """Where a Redis came from."""

    GIVEN = "given"
    RUNNING = "running"
    PRIVATE = "private"


@dataclass(frozen=True, slots=True)
class RedisServer:
    """A Redis to use. `PRIVATE` means: not running yet, start `argv` as a child with umask `UMASK`."""

    url: str = field(repr=False)
    how: How
    binary: Binary | None = None
    port: int | None = None
    config: Path | None = None

    @property
    def argv(self) -> tuple[str, ...]:
        """The command of a private server; the password is in its file, not here."""
        return (str(self.binary.path), str(self.config)) if self.binary else ()


def redacted(url: str) -> str:
    """The URL without its password."""
    parts = urlsplit(url)
    if "@" not in parts.netloc and "password" not in parts.query:
        return url
    user = parts.username or ""
    host = parts.netloc.rpartition("@")[2]
    secret = f"{user}:***@" if "@" in parts.netloc else ""
    return urlunsplit((parts.scheme, secret + host, parts.path, "", ""))


def answers(url: str, timeout: float = 0.5) -> bool:
    """Whether a Redis at `url` takes commands, with the password in it, within `timeout` seconds.

    A server that is still reading its file does not. Raises `ConfigurationError` when the URL is
    not one or the password is refused.
    """
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    try:
        client = redis.Redis.from_url(
            url, socket_timeout=timeout, socket_connect_timeout=timeout, retry=Retry(NoBackoff(), 0)
        )
    except ValueError as error:
        raise ConfigurationError(
            f"{redacted(url)} is not a Redis URL ({error}). Write redis://HOST:PORT/0."
        ) from None
    try:
        with client:
            return bool(client.ping())
    except redis.AuthenticationError:
        raise ConfigurationError(
            f"The Redis at {redacted(url)} refuses this password. Write redis://:PASSWORD@HOST:PORT/0."
        ) from None
    except (redis.RedisError, OSError):
        return False


def neighbour(port: int = 6379) -> str | None:
    """A sentence about a Redis on the usual port. It is named, never used: kombu's keys have no
    prefix, so they would mix with those of whoever runs it."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=0.2) as connection:
            connection.sendall(b"PING\r\n")
            reply = connection.recv(64)
    except OSError:
        return None
    if not reply.startswith((b"+PONG", b"-NOAUTH", b"-DENIED", b"-LOADING")):
        return None
    return (
        f"A Redis listens on 127.0.0.1:{port}; it was left alone."
        f" To use it: `k9 up --redis redis://127.0.0.1:{port}/0`."
    )


def running(state_dir: Path) -> RedisServer | None:
    """The private server of this state folder, if it answers."""
    note = Note.read(folder_of(state_dir))
    if note and _answers_privately(note.url):
        return RedisServer(note.url, How.RUNNING, note.writer, note.port)
    return None


@contextmanager
def locate(
    state_dir: Path, redis_url: str | None = None, *, appendfsync: AppendSync = "everysec"
) -> Iterator[RedisServer]:
    """The Redis to use: the one at `redis_url`, else the private one that runs, else one to start.

    Inside the block the caller of a `PRIVATE` one is its owner, and must run it; everybody else
    gets it as `RUNNING`. A server whose owner died is stopped first, so that it always has one.
    Raises `ConfigurationError` with the next step.
    """
    if redis_url:
        if not answers(redis_url, timeout=3.0):
            raise ConfigurationError(
                f"The Redis at {redacted(redis_url)} does not answer. Start it or correct its URL;"
                " without one, `k9 up` starts a private server."
            )
        yield RedisServer(redis_url, How.GIVEN, port=urlsplit(redis_url).port)
        return
    folder = own(folder_of(state_dir))
    with open(os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600), "rb") as lock:
        found: list[RedisServer | None] = [None]

        def owned_or_found() -> bool:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                found[0] = running(state_dir)
                return found[0] is not None
            return True

        if not _eventually(owned_or_found):
            raise ConfigurationError(
                f"Another process owns the private Redis in {folder}, but it does not answer."
                " Stop that process (`k9 up`?) or use another --state-dir."
            )
        if found[0] is None and (orphan := running(state_dir)):
            _stop_orphan(orphan.url)
        if found[0]:
            yield found[0]
        else:
            note, config = prepare(folder, appendfsync)
            yield RedisServer(note.url, How.PRIVATE, note.writer, note.port, config)


@contextmanager
def private_redis(state_dir: Path, *, appendfsync: AppendSync = "everysec") -> Iterator[RedisServer]:
    """A private server that answers, started here unless it runs; stopped at the end if started."""
    with locate(state_dir, appendfsync=appendfsync) as server:
        if server.how is not How.PRIVATE:
            yield server
            return
        log = folder_of(state_dir) / "redis.log"
        with open(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as output:
            process = subprocess.Popen(
                server.argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                umask=UMASK,
                process_group=0,
                preexec_fn=die_with_parent(signal.SIGTERM),
            )
        try:
            if not _eventually(lambda: process.poll() is not None or _answers_privately(server.url)):
                raise ConfigurationError(f"The private Redis does not answer; see {log}.")
            if process.poll() is not None:
                raise ConfigurationError(f"The private Redis did not start; see {log}.")
            yield server
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _answers_privately(url: str) -> bool:
    try:
        return answers(url)
    except ConfigurationError:  # somebody else's server sits on the port now
        return False


def _stop_orphan(url: str) -> None:
    import redis

    with redis.Redis.from_url(url) as client:
        client.shutdown(nosave=True)  # no snapshot; the append-only file is flushed all the same
    _eventually(lambda: not _answers_privately(url))


def _eventually(condition: Callable[[], bool], seconds: float = START_SECONDS) -> bool:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True
