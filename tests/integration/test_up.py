"""`k9 up` as a person runs it: one command, everything answers, things die and come back, one Ctrl-C."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from k9_broker.adapters.redis_binary import installed
from k9_broker.testing import FakeServer
from stand import wait_until

pytestmark = pytest.mark.skipif(not list(installed()), reason="no Redis server on this machine")

UP = (sys.executable, "-c", "import typer; from k9_api.cli.up import up; typer.run(up)")
PROMPT = "a very private question"
KEY = "sk-not-a-real-key"


@dataclass
class Running:
    process: subprocess.Popen[str]
    folder: Path

    @property
    def said(self) -> dict[str, Any]:
        return json.loads((self.folder / "up.json").read_text())  # type: ignore[no-any-return]

    def pid(self, name: str) -> int:
        return int(self.said["pids"][name] or 0)

    def get(self, url: str, password: str = "", body: object = None) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, {"content-type": "application/json"})
        if password:
            token = base64.b64encode(f"k9:{password}".encode()).decode()
            request.add_header("authorization", f"Basic {token}")
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            return error.code, None
        except OSError:
            return 0, None

    def chat(self) -> int:
        body = {"model": "fake-chat", "messages": [{"role": "user", "content": PROMPT}]}
        return self.get(f"{self.said['api']}/v1/chat/completions", body=body)[0]


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("up")
    with FakeServer() as fake:
        backends = [
            {"name": "here", "dialect": "fake", "url": fake.url},
            {
                "name": "there",
                "dialect": "fake",
                "url": fake.url,
                "kind": "cloud",
                "api_key_env": "CLOUD_WORD",
            },
        ]
        env = {key: value for key, value in os.environ.items() if not key.startswith("K9_")}
        env |= {"K9_BACKENDS": json.dumps(backends), "CLOUD_WORD": KEY, "OPENAI_API_KEY": "sk-other"}
        env |= {"K9_STATE_DIR": str(folder / "state"), "K9_API__PORT": "0", "K9_FLOWER__PORT": "0"}
        log = (folder / "said").open("w")
        process = subprocess.Popen(UP, env=env, cwd=folder, stdout=log, stderr=log, text=True)
        try:
            running = Running(process, folder / "state")
            wait_until(
                lambda: process.poll() is not None or (running.folder / "up.json").exists(), "up.json", 90
            )
            assert process.poll() is None, (folder / "said").read_text()
            yield running
        finally:
            process.terminate()
            process.wait(60)


def test_all_is_ready_when_it_says_so(up: Running) -> None:
    assert up.said["not_ready"] == []
    assert up.said["backends"] == ["here", "there"]
    assert up.get(f"{up.said['api']}/readyz")[0] == 200
    assert up.chat() == 200


def test_flower_is_locked_and_shows_each_backends_queues(up: Running) -> None:
    flower, password = up.said["flower"], up.said["flower_password"]
    assert up.get(f"{flower}/api/queues/length")[0] == 401
    status, queues = up.get(f"{flower}/api/queues/length", password)
    assert status == 200
    assert {queue["name"] for queue in queues["active_queues"]} == {
        f"k9.{kind}.{name}.{priority}"
        for kind, name in (("local", "here"), ("cloud", "there"))
        for priority in ("interactive", "batch")
    }
    assert up.get(f"{flower}/api/worker/shutdown/k9-here@x", password, body={})[0] == 403


def test_a_key_lives_in_one_process(up: Running) -> None:
    holders = {
        name
        for name, pid in up.said["pids"].items()
        if KEY in (found := psutil.Process(pid).environ()).values() or "OPENAI_API_KEY" in found
    }
    assert holders == {"worker-there"}
    for pid in up.said["pids"].values():
        line = " ".join(psutil.Process(pid).cmdline())
        assert up.said["flower_password"] not in line
        assert up.said["redis"] not in line


@pytest.mark.parametrize("name", ["redis", "worker-here", "api"])
def test_what_is_killed_comes_back(up: Running, name: str) -> None:
    before = up.pid(name)
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: up.pid(name) not in (0, before), f"another {name}")
    wait_until(lambda: up.chat() == 200, "an answer", 60)


def test_a_second_one_on_the_same_folder_is_refused(up: Running) -> None:
    second = subprocess.run(
        [*UP, "--state-dir", str(up.folder)], capture_output=True, text=True, cwd=up.folder, timeout=60
    )
    assert second.returncode == 2
    assert up.said["api"] in second.stderr
    assert "Traceback" not in second.stderr


def test_no_prompt_and_no_key_is_in_any_log(up: Running) -> None:
    assert up.chat() == 200
    logs = [path.read_text() for path in (up.folder / "logs").iterdir()]
    assert len(logs) == 5
    for text in (*logs, (up.folder.parent / "said").read_text()):
        for secret in (PROMPT, KEY, up.said["flower_password"], up.said["redis"].split(":")[2].split("@")[0]):
            assert secret not in text


def test_ctrl_c_ends_it_all(up: Running) -> None:
    pids = [pid for pid in up.said["pids"].values() if pid]
    assert len(pids) == 5
    up.process.send_signal(signal.SIGINT)
    assert up.process.wait(60) == 0
    assert not [pid for pid in pids if psutil.pid_exists(pid)]
    assert not (up.folder / "up.json").exists()


def test_a_redis_that_does_not_answer_is_said_in_one_line(tmp_path: Path) -> None:
    url = "redis://:a-word@127.0.0.1:1/0"
    done = subprocess.run(
        [*UP, "--redis", url, "--state-dir", str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "does not answer" in done.stderr
    assert "a-word" not in done.stderr
    assert "Traceback" not in done.stderr
