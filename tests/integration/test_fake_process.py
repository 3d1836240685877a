"""The fake as a process: how it starts, what it prints, how it ends."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from fake_calls import CHAT, send
from k9_broker.testing import FakeServer


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_within_a_second_though_a_request_hangs(number: signal.Signals) -> None:
    with FakeServer(hang=True) as fake:
        link = send(fake, CHAT)
        fake.wait(lambda stats: stats["active"] == 1)
        start = time.perf_counter()
        os.kill(fake.pid, number)
        assert fake.stop() == 0
        assert time.perf_counter() - start < 1
        link.close()


def test_it_ends_when_its_parent_dies() -> None:
    code = (
        "import sys, k9_broker.testing as t; f = t.FakeServer(); print(f.port, flush=True); sys.stdin.read()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with parent:
        assert parent.stdout is not None
        port = int(parent.stdout.readline())
        link = socket.create_connection(("127.0.0.1", port), timeout=5)
        parent.kill()
        assert link.recv(1) == b""  # the fake closed it; the parent never had it
        link.close()


def test_a_taken_port_is_named() -> None:
    with FakeServer() as fake:
        words = [sys.executable, "-m", "k9_broker.fake", "--port", str(fake.port)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=20)
    assert done.returncode == 2
    assert str(fake.port) in done.stderr
    assert "Traceback" not in done.stderr


def test_the_command_says_where_it_listens_and_what_to_configure() -> None:
    code = "import typer; from k9_api.cli.fake import fake; typer.run(fake)"
    words = [sys.executable, "-u", "-c", code, "--port", "0", "--models", "one,two", "--slots", "4"]
    words += ["--flavour", "vllm"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        late = threading.Timer(20, process.kill)
        late.start()
        assert process.stdout is not None
        said = ""
        while "curl" not in said and (line := process.stdout.readline()):
            said += line
        process.send_signal(signal.SIGINT)
        assert process.wait(5) == 0
        late.cancel()
    assert "[[backends]]" in said
    assert 'url = "http://127.0.0.1:' in said
    assert "one, two" in said
    assert re.search(r"OpenAI, vLLM, llama.cpp +http://127.0.0.1:\d+/v1\n", said)


def test_an_unknown_flavour_is_named() -> None:
    code = "import typer; from k9_api.cli.fake import fake; typer.run(fake)"
    words = [sys.executable, "-c", code, "--flavour", "vanilla"]
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=20, env={**os.environ, "COLUMNS": "200"}
    )
    assert done.returncode == 2
    assert "llamacpp" in done.stderr
