"""Dead letters of a whole K-9: its workers die or its backend refuses, it is mended, and the job is done."""

from __future__ import annotations

import os
import signal
import threading
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from typer.testing import CliRunner

from k9_api.cli.main import app
from k9_broker.testing import FakeServer
from stack import LEASE_SECONDS, Stack, ask
from stand import RedisProcess, free_port, wait_until

SOON = 3 * LEASE_SECONDS + 5


def k9(*words: str) -> Any:
    return CliRunner().invoke(app, words)


@pytest.fixture(scope="module")
def frail(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A K-9 in which a job is given up on when two workers have died of it."""
    folder = tmp_path_factory.mktemp("frail")
    redis = RedisProcess(folder, free_port()).start()
    stack = Stack(folder, redis, FakeServer(), extra={"K9_JOBS__MAX_ATTEMPTS": "2"})
    stack.start_worker()
    stack.start_api()
    try:
        yield stack.wait_ready()
    finally:
        stack.stop()


@pytest.fixture
def dying(frail: Stack, monkeypatch: pytest.MonkeyPatch) -> Stack:
    """The same, where the commands find it."""
    for name in [name for name in os.environ if name.startswith("K9_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("K9_REDIS_URL", frail.redis.url)
    monkeypatch.setenv("K9_STATE_DIR", str(frail.folder))
    monkeypatch.chdir(frail.folder)
    frail.fake.reset()
    return frail


def follow(stack: Stack, job: str, seen: list[tuple[str, str]], after: str = "0") -> None:
    """Read the job's events to their end: id and kind of each that may be resumed after."""
    request = urllib.request.Request(
        f"{stack.url}/v1/jobs/{job}/events", headers={"Last-Event-ID": after} if after != "0" else {}
    )
    with urllib.request.urlopen(request, timeout=60) as lines:
        fields: dict[str, str] = {}
        for line in lines:
            name, _, value = line.decode().strip().partition(": ")
            fields[name] = value
            if not name:
                if "id" in fields:
                    seen.append((fields["id"], fields["event"]))
                fields = {}


def test_a_job_that_kills_its_workers_is_done_when_the_cause_is_mended(dying: Stack) -> None:
    stack = dying
    stack.fake.behave(latency_ms=60_000)
    job = stack.submit()
    for attempt in (1, 2):
        wait_until(lambda n=attempt: stack.job(job)["attempts"] == n, f"attempt {attempt}", SOON + 10)
        stack.fake.wait(lambda seen: seen["active"] >= 1, timeout=20)
        stack.workers["w1"].stop(signal.SIGKILL)
        stack.workers["w1"].start()
    assert stack.ended([job], SOON + 10) == {"dead": 1}
    first: list[tuple[str, str]] = []
    follow(stack, job, first)
    assert first[-1][1] == "end"
    stack.wait_ready()

    stack.fake.behave(latency_ms=500)
    states: list[str] = []
    done = k9("dead", "replay", job)
    assert done.exit_code == 0, done.stderr
    assert done.stdout.startswith(f"{job} to fake (local), fake-chat")
    resumed: list[tuple[str, str]] = []
    new: list[tuple[str, str]] = []
    readers = [
        threading.Thread(target=follow, args=(stack, job, resumed, first[-1][0])),
        threading.Thread(target=follow, args=(stack, job, new)),
    ]
    for reader in readers:
        reader.start()

    def succeeded() -> bool:
        states.append(stack.job(job)["state"])
        return states[-1] == "succeeded"

    wait_until(succeeded, "a poller sees it succeed", 20)
    assert set(states[:-1]) <= {"queued", "running"}
    for reader in readers:
        reader.join(20)
    assert [kind for _, kind in new] == ["restart", "running", "end"]
    assert resumed == new
    said = stack.job(job)
    assert said["result"]["choices"][0]["message"]["content"]
    assert (said["error"], said["attempts"]) == (None, 1)
    assert "There are no dead letters." in k9("dead", "list").stdout


def test_what_failed_at_a_backend_is_replayed_when_that_is_mended(dying: Stack) -> None:
    stack = dying
    stack.fake.behave(error_status=401, every_nth=1)
    job = stack.submit()
    assert stack.ended([job], 20) == {"failed": 1}
    stack.fake.behave(every_nth=0)
    wait_until(lambda: ask(f"{stack.url}/v1/queues")[2]["data"][0]["down"], "the backend is out")
    done = k9("dead", "replay", job)
    assert done.exit_code == 1
    assert "refuses its worker's key" in done.stderr
    k9("backends", "reset", "fake")
    wait_until(lambda: not ask(f"{stack.url}/v1/queues")[2]["data"][0]["down"], "it is called again")
    assert k9("dead", "replay", "--all", "--code", "backend_credentials", "--yes").exit_code == 0
    assert stack.ended([job], 20) == {"succeeded": 1}
