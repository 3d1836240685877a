"""The supervisor with real child processes: started in order, kept, stopped in order, none left."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from k9_api.up.child import Backoff
from k9_api.up.plan import HttpOk, Process, Ready, Role
from k9_api.up.ready import Probe, Readiness
from k9_api.up.supervisor import DidNotStart, Stopped, Supervisor

CHILD = """
import os, signal, subprocess, sys, time
name, folder, how = sys.argv[1:]

def note(what):
    with open(f"{folder}/journal", "a") as journal:
        journal.write(f"{name} {what}\\n")

def leave(number, frame):
    note("leaves")
    time.sleep(0.05)
    note("left")
    sys.exit(0)

if how == "broken":
    sys.exit("the port is taken")
signal.signal(signal.SIGTERM, signal.SIG_IGN if how == "stubborn" else leave)
if how == "stubborn":
    grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    open(f"{folder}/grandchild", "w").write(str(grandchild.pid))
note("started")
if how != "slow":
    open(f"{folder}/{name}.ready", "w").write(str(os.getpid()))
print("hello", flush=True)
while True:
    time.sleep(600)
"""

QUICK = Backoff(first=0.05, last=0.2)


class FileProbe(Probe):
    """Ready when a file is there."""

    async def ask(self, ready: Ready) -> Readiness:
        assert isinstance(ready, HttpOk)
        return Readiness.READY if Path(ready.url).exists() else Readiness.NOT


def child(folder: Path, role: Role, how: str = "good", *, leaves_within: float = 10.0) -> Process:
    return Process(
        name=role.value,
        role=role,
        argv=(sys.executable, "-c", CHILD, role.value, str(folder), how),
        env={"PATH": os.environ["PATH"]},
        ready=HttpOk(f"{folder}/{role.value}.ready"),
        leaves_within=leaves_within,
    )


def supervisor(folder: Path, *processes: Process, said: list[str] | None = None) -> Supervisor:
    said = [] if said is None else said
    return Supervisor(processes, folder / "logs", FileProbe("redis://127.0.0.1:1"), said.append, QUICK)


def journal(folder: Path) -> list[str]:
    path = folder / "journal"
    return path.read_text().splitlines() if path.exists() else []


async def eventually(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "the condition never came true"
        await asyncio.sleep(0.01)


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def test_children_start_and_stop_in_order(tmp_path: Path) -> None:
    up = supervisor(tmp_path, *(child(tmp_path, role) for role in Role))
    async with up.running() as late:
        assert late == []
        started = journal(tmp_path)
        assert started[0] == "redis started"
        assert sorted(started) == sorted(f"{role} started" for role in Role)
        pids = [one.pid for one in up.children if one.pid]
        assert len(pids) == 4
        for pid in pids:
            assert os.getpgid(pid) == pid, "Ctrl-C of the terminal must not reach it"
    assert journal(tmp_path)[4:] == [
        f"{role} {what}" for role in ("api", "worker", "flower", "redis") for what in ("leaves", "left")
    ]
    assert all(gone(pid) for pid in pids)


async def test_a_child_that_dies_is_started_again(tmp_path: Path) -> None:
    said: list[str] = []
    up = supervisor(tmp_path, child(tmp_path, Role.WORKER), said=said)
    async with up.running():
        (worker,) = up.children
        for times in (2, 3):
            before = worker.pid
            assert before
            os.kill(before, signal.SIGKILL)
            await eventually(lambda times=times: journal(tmp_path) == ["worker started"] * times)
            assert worker.pid not in (None, before)
    assert "was ended by SIGKILL; starting it again" in said[0]
    assert worker.ended == 2


async def test_a_stubborn_child_is_killed_with_what_it_started(tmp_path: Path) -> None:
    said: list[str] = []
    up = supervisor(tmp_path, child(tmp_path, Role.API, "stubborn", leaves_within=0.1), said=said)
    async with up.running():
        grandchild = int((tmp_path / "grandchild").read_text())
        pid = up.children[0].pid
        assert pid
    assert gone(pid)
    await eventually(lambda: gone(grandchild))
    assert said == ["api did not stop in time and was killed."]


async def test_asked_twice_it_stops_at_once(tmp_path: Path) -> None:
    processes = [child(tmp_path, role, "stubborn", leaves_within=60) for role in (Role.API, Role.WORKER)]
    up = supervisor(tmp_path, *processes)
    started = time.monotonic()
    async with up.running():
        os.kill(os.getpid(), signal.SIGINT)
        await up.stop.wait()
        assert not up.cold.is_set()
        os.kill(os.getpid(), signal.SIGINT)
        await up.cold.wait()
    assert time.monotonic() - started < 30


@pytest.mark.parametrize("role", [Role.REDIS, Role.API])
async def test_what_is_needed_and_does_not_start_ends_all(tmp_path: Path, role: Role) -> None:
    others = [child(tmp_path, other) for other in Role if other is not role]
    up = supervisor(tmp_path, child(tmp_path, role, "broken"), *others)
    with pytest.raises(DidNotStart, match=f"{role} did not start: the port is taken .*{role}.log"):
        async with up.running():
            pytest.fail("it must not say that it runs")
    assert all(one.pid is None for one in up.children)


async def test_a_worker_that_does_not_start_is_late_and_tried_on(tmp_path: Path) -> None:
    up = supervisor(tmp_path, child(tmp_path, Role.API), child(tmp_path, Role.WORKER, "broken"))
    async with up.running() as late:
        assert [one.process.name for one in late] == ["worker"]
        tried = late[0].ended
        await eventually(lambda: late[0].ended > tried)


async def test_it_can_be_stopped_while_it_starts(tmp_path: Path) -> None:
    up = supervisor(tmp_path, child(tmp_path, Role.API, "slow"))

    async def stop() -> None:
        await eventually(lambda: journal(tmp_path) == ["api started"])
        up.ask_to_stop()

    stopping = asyncio.create_task(stop())
    with pytest.raises(Stopped):
        async with up.running():
            pytest.fail("it was stopped before")
    await stopping
    assert journal(tmp_path)[-1] == "api left"


async def test_logs_are_the_owners_alone_and_the_last_ones_are_kept(tmp_path: Path) -> None:
    for _ in range(2):
        up = supervisor(tmp_path, child(tmp_path, Role.FLOWER))
        log = up.children[0].log
        async with up.running():
            await eventually(lambda log=log: log.read_text() == "hello\n")
        (tmp_path / "flower.ready").unlink()
    assert {path.name for path in log.parent.iterdir()} == {"flower.log", "flower.log.1"}
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    assert stat.S_IMODE(log.parent.stat().st_mode) == 0o700


HOST = """
    import asyncio, signal, sys
    from pathlib import Path
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it would be ignored
    sys.path.insert(0, sys.argv[1])
    from test_supervisor import Role, child, supervisor

    async def main(folder):
        up = supervisor(folder, *(child(folder, role) for role in Role))
        async with up.running():
            print(*(one.pid for one in up.children), flush=True)
            await up.stop.wait()

    asyncio.run(main(Path(sys.argv[2])))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
async def test_no_child_outlives_the_supervisor(tmp_path: Path, number: signal.Signals) -> None:
    if number is signal.SIGKILL and sys.platform != "linux":
        pytest.skip("only Linux tells a child that its parent died")
    host = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HOST), str(Path(__file__).parent), str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert host.stdout
    pids = [int(pid) for pid in host.stdout.readline().split()]
    assert len(pids) == 4
    host.send_signal(number)
    host.communicate(timeout=30)
    await eventually(lambda: all(gone(pid) for pid in pids))
    if number is not signal.SIGKILL:
        assert host.returncode == 0
        assert journal(tmp_path)[-1] == "redis left"


async def test_a_log_that_cannot_be_written_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "logs").touch()
    began = time.monotonic()
    with pytest.raises(OSError, match="File exists"):
        async with supervisor(tmp_path, child(tmp_path, Role.REDIS)).running():
            pass
    assert time.monotonic() - began < 10
