"""`k9 reload` while jobs run and wait: backends come, change and go, and every job is answered."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from k9_broker.adapters.redis_binary import installed
from k9_broker.testing import FakeServer
from stack import ask
from stand import wait_until

pytestmark = pytest.mark.skipif(not list(installed()), reason="no Redis server on this machine")

K9 = (sys.executable, "-m", "k9_api.cli")


@dataclass
class Up:
    """A `k9 up` on a `k9.toml` of the test's own."""

    folder: Path
    fakes: dict[str, FakeServer]
    jobs: list[str] = field(default_factory=list)
    process: subprocess.Popen[bytes] | None = None

    @property
    def env(self) -> dict[str, str]:
        clean = {key: value for key, value in os.environ.items() if not key.startswith("K9_")}
        return clean | {"K9_STATE_DIR": str(self.folder / "state"), "K9_CONFIG": str(self.folder / "k9.toml")}

    @property
    def said(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "state" / "up.json").read_text()))

    def write(self, *backends: str, more: str = "", slots: int = 2) -> None:
        tables = [
            f'[[backends]]\nname = "{name}"\ndialect = "fake"\nurl = "{self.fakes[name].url}"\n'
            f"slots = {slots if name == 'a' else 2}\n"
            for name in backends
        ]
        fixed = "[api]\nport = 0\n[flower]\nenabled = false\n"
        (self.folder / "k9.toml").write_text("\n".join([more, *tables, fixed]))

    def start(self) -> None:
        log = (self.folder / "said").open("wb")
        self.process = subprocess.Popen(
            [*K9, "up"], env=self.env, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        there = self.folder / "state" / "up.json"
        wait_until(lambda: (self.process and self.process.poll() is not None) or there.exists(), "up", 90)
        assert there.exists(), (self.folder / "said").read_text()

    def reload(self) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*K9, "reload"], env=self.env, cwd=self.folder, capture_output=True, text=True, timeout=90
        )

    def submit(self, count: int) -> None:
        body = {"model": "fake-chat", "messages": [{"role": "user", "content": "hello"}]}
        for _ in range(count):
            whole = {"endpoint": "/v1/chat/completions", "body": body}
            status, _, said = ask(f"{self.said['api']}/v1/jobs", whole)
            assert status == 202, said
            self.jobs.append(said["id"])

    def slow(self, milliseconds: int) -> None:
        for fake in self.fakes.values():
            fake.behave(latency_ms=milliseconds)

    def job(self, job_id: str) -> dict[str, Any]:
        return dict(ask(f"{self.said['api']}/v1/jobs/{job_id}")[2])

    def chat(self, model: str) -> int:
        body = {"model": model, "messages": [{"role": "user", "content": "hello"}]}
        return ask(f"{self.said['api']}/v1/chat/completions", body)[0]

    def all_answered(self) -> None:
        """Every job submitted so far has ended well."""

        def ended() -> bool:
            return all(self.job(one)["state"] not in ("queued", "running") for one in self.jobs)

        wait_until(ended, "every job has ended", 60)
        states = [self.job(one)["state"] for one in self.jobs]
        assert states == ["succeeded"] * len(states)


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    folder = tmp_path_factory.mktemp("reload")
    with FakeServer() as a, FakeServer() as b:
        running = Up(folder, {"a": a, "b": b})
        running.write("a")
        running.start()
        try:
            yield running
        finally:
            assert running.process
            running.process.terminate()
            running.process.wait(60)


def test_backends_come_change_and_go_and_no_job_is_lost(up: Up) -> None:
    up.slow(150)
    first = up.said["pids"]
    up.submit(30)

    up.write("a", "b")
    done = up.reload()
    assert (done.returncode, done.stdout) == (0, "added: b\n"), done.stderr
    second = up.said["pids"]
    assert second["worker-a"] == first["worker-a"]
    assert up.said["backends"] == ["a", "b"]
    up.submit(10)

    up.write("a", "b", slots=3)
    done = up.reload()
    assert (done.returncode, done.stdout) == (0, "changed: a\n"), done.stderr
    third = up.said["pids"]
    assert third["worker-a"] != first["worker-a"]
    assert third["worker-b"] == second["worker-b"]
    (a, _) = ask(f"{up.said['api']}/v1/queues")[2]["data"]
    assert (a["backend"], a["workers"], a["slots"]) == ("a", 1, 3)
    up.slow(1500)  # so that the command is quicker than the jobs, also on a busy machine
    up.submit(40)

    up.write("b")
    done = up.reload()
    assert (done.returncode, done.stdout) == (0, "removed: a\n"), done.stderr
    assert "worker-a" not in up.said["pids"]
    waiting = [one for one in up.jobs if up.job(one)["state"] == "queued"]
    assert waiting, "nothing waited any more, so nothing was shown"
    up.slow(20)
    up.all_answered()
    assert {up.job(one)["backend"] for one in waiting} == {"b"}
    third |= {"worker-a": None}
    assert {name: pid for name, pid in third.items() if pid} == up.said["pids"]


def test_the_api_reads_routing_again(up: Up) -> None:
    up.write("b")
    up.reload()
    assert up.chat("quick") == 404
    up.write("b", more='[aliases]\nquick = ["fake-chat"]\n')
    done = up.reload()
    assert (done.returncode, done.stdout) == (0, "no backend has changed\n"), done.stderr
    wait_until(lambda: up.chat("quick") == 200, "the alias is known")


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("this is no TOML", "k9.toml"),
        ('[[backends]]\nname = "z"\ndialect = "nonsense"\nurl = "http://x"\n', "no dialect 'nonsense'"),
        ('[routing]\nstrategy = "nobody"\n', "nobody"),
    ],
)
def test_a_broken_configuration_changes_nothing(up: Up, broken: str, said: str) -> None:
    before = up.said
    (up.folder / "k9.toml").write_text(broken)
    done = up.reload()
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    # Whoever sends the signal by hand is told as well, and nothing has changed either.
    assert up.process
    up.process.send_signal(signal.SIGHUP)
    after = wait_until(lambda: up.said["reloads"] > before["reloads"] and up.said, "it has looked")
    assert isinstance(after, dict)
    assert said in after["refused"]
    assert after["pids"] == before["pids"]
    assert up.chat("fake-chat") == 200


def test_a_backend_does_not_change_its_kind_while_it_runs(up: Up) -> None:
    up.write("b")
    path = up.folder / "k9.toml"
    path.write_text(path.read_text().replace('name = "b"', 'name = "b"\nkind = "cloud"'))
    done = up.reload()
    assert done.returncode == 1
    assert "give it another name" in done.stderr


def test_a_worker_that_cannot_serve_does_not_replace_one_that_does(up: Up) -> None:
    up.write("b")
    up.reload()
    before = up.said["pids"]["worker-b"]
    path = up.folder / "k9.toml"
    path.write_text(path.read_text().replace('name = "b"', 'name = "b"\napi_key_env = "NOT_SET_ANYWHERE"'))
    done = up.reload()
    assert done.returncode == 1
    assert "b: its new worker is not ready" in done.stdout
    assert up.said["pids"]["worker-b"] == before
    assert up.chat("fake-chat") == 200


def test_nothing_to_reload_is_said(tmp_path: Path) -> None:
    # One that was killed leaves its file; its pid may be another process's by now, such as this one's.
    (tmp_path / "up.json").write_text(json.dumps({"pid": os.getpid()}))
    (tmp_path / "up.lock").touch()
    done = subprocess.run(
        [*K9, "reload", "--state-dir", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert f"No `k9 up` runs on {tmp_path}" in done.stderr
