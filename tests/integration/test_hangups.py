"""SIGHUP at processes started by hand, and workers that join and leave a running K-9."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from k9_broker.testing import FakeServer
from stack import Child, Stack, ask
from stand import RedisProcess, free_port, wait_until


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """An API and a Redis on a `k9.toml`."""
    folder = tmp_path_factory.mktemp("hangups")
    stack = Stack(folder, RedisProcess(folder, free_port()).start(), FakeServer())
    stack.extra["K9_CONFIG"] = str(folder / "k9.toml")
    write(stack)
    stack.start_api()
    try:
        wait_until(lambda: ask(f"{stack.url}/readyz")[0] == 200, "the API is ready")
        yield stack
    finally:
        stack.stop()


@pytest.fixture
def bare(alone: Stack) -> Iterator[Stack]:
    """The same without any worker yet, nor after."""
    alone.fake.reset()
    write(alone)
    yield alone
    while alone.workers:
        alone.workers.popitem()[1].stop()


def write(stack: Stack, *, slots: int = 4, name: str = "fake", more: str = "") -> None:
    backend = f'[[backends]]\nname = "{name}"\ndialect = "fake"\nurl = "{stack.fake.url}"\nslots = {slots}\n'
    (stack.folder / "k9.toml").write_text(f"{more}\n{backend}")


def queue(stack: Stack) -> dict[str, Any]:
    rows = ask(f"{stack.url}/v1/queues")[2]["data"]
    return dict(rows[0]) if rows else {"workers": 0, "slots": 0}


def chat(stack: Stack, model: str = "fake-chat") -> int:
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}]}
    return ask(f"{stack.url}/v1/chat/completions", body)[0]


def test_a_worker_joins_serves_and_leaves(bare: Stack) -> None:
    assert chat(bare) == 503
    worker = bare.start_worker()
    bare.wait_ready()
    assert chat(bare) == 200
    assert worker.stop() == 0
    assert chat(bare) == 503


def test_a_worker_that_leaves_is_given_nothing_more(bare: Stack) -> None:
    """It may run its jobs for a while yet; whatever came now would wait for it in vain."""
    worker = bare.start_worker()
    bare.wait_ready()
    bare.fake.behave(latency_ms=3000)
    job = bare.submit()
    wait_until(lambda: bare.job(job)["state"] == "running", "it runs")
    worker.send(signal.SIGTERM)
    wait_until(lambda: queue(bare)["workers"] == 0, "it is announced no more", 2.5)
    assert bare.job(job)["state"] == "running"
    assert chat(bare) == 503
    assert bare.ended([job], 20) == {"succeeded": 1}


def test_a_worker_reads_its_backend_again(bare: Stack) -> None:
    worker = bare.start_worker(slots=4)
    bare.wait_ready()
    for change, said in ({"name": "other"}, "no backend 'fake'"), ({"more": "nonsense"}, "k9.toml"):
        write(bare, slots=7, **change)
        worker.send(signal.SIGHUP)
        wait_until(lambda said=said: said in worker.log, "it says why it stays as it is")
        assert worker.alive
        assert chat(bare) == 200
    assert worker.process
    pid = worker.process.pid
    bare.fake.behave(latency_ms=100)
    write(bare, slots=7)
    jobs = [bare.submit() for _ in range(30)]
    worker.send(signal.SIGHUP)
    wait_until(lambda: queue(bare)["slots"] == 7, "it serves with the new slots", 30)
    assert worker.process.pid == pid
    assert worker.alive
    assert bare.ended(jobs, 30) == {"succeeded": 30}
    line = psutil.Process(pid).cmdline()
    assert line[line.index("--node") + 1] == "k9-w1@test"
    assert worker.stop() == 0


def test_workers_of_several_backends_are_kept_in_line(bare: Stack) -> None:
    write(bare, more=f'[[backends]]\nname = "two"\ndialect = "fake"\nurl = "{bare.fake.url}"\n')
    both = ["k9_api.cli", "worker", "--backend", "fake", "--backend", "two"]
    bare.workers["both"] = Child("both", both, bare.env(), bare.folder).start()
    bare.wait_ready(workers=2)
    write(bare, slots=5, more=f'[[backends]]\nname = "two"\ndialect = "fake"\nurl = "{bare.fake.url}"\n')
    bare.workers["both"].send(signal.SIGHUP)

    def slots() -> dict[str, int]:
        return {one["backend"]: one["slots"] for one in ask(f"{bare.url}/v1/queues")[2]["data"]}

    wait_until(lambda: slots() == {"two": 8, "fake": 5}, "the changed one was replaced", 30)
    wait_until(lambda: "Reloaded; changed: fake" in bare.workers["both"].log, "it says so")


def test_the_api_reads_its_policy_again(bare: Stack) -> None:
    assert bare.api
    bare.start_worker()
    bare.wait_ready()
    assert chat(bare, "quick") == 404
    write(bare, more='[aliases]\nquick = ["fake-chat"]\n')
    bare.api.send(signal.SIGHUP)
    wait_until(lambda: chat(bare, "quick") == 200, "the alias is known")
    write(bare, more="nonsense")
    bare.api.send(signal.SIGHUP)
    log = bare.api
    wait_until(lambda: "the old one stays in force" in log.log, "it says why")
    assert chat(bare, "quick") == 200


SUPERVISOR = """
    import asyncio, sys
    from pathlib import Path
    from k9_api.up.ready import Probe
    from k9_api.up.supervisor import Supervisor

    async def main():
        up = Supervisor([], Path(sys.argv[1]), Probe("redis://127.0.0.1:1"), print, reloads=True)
        async with up.running():
            Path(sys.argv[1], "ready").touch()
            while not up.stop.is_set():
                if up.reload.is_set():
                    up.reload.clear()
                    Path(sys.argv[1], "reloaded").touch()
                await asyncio.sleep(0.01)
        Path(sys.argv[1], "ended").touch()

    asyncio.run(main())
"""


@pytest.mark.parametrize("has_terminal", [True, False])
def test_a_signal_reloads_and_a_closed_terminal_ends(tmp_path: Path, has_terminal: bool) -> None:
    master, slave = pty.openpty()

    def take_terminal() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SUPERVISOR), str(tmp_path)],
        stdin=slave if has_terminal else subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=take_terminal if has_terminal else None,
    )
    os.close(slave)
    try:
        wait_until(lambda: (tmp_path / "ready").exists(), "it listens")
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: (tmp_path / "reloaded").exists(), "it reloads")
        assert process.poll() is None
        os.close(master)  # which hangs up, where it is the terminal
        if not has_terminal:
            assert process.poll() is None
            process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert (tmp_path / "ended").exists()
    finally:
        process.kill()
        process.wait()
