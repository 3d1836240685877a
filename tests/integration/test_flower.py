"""What an operator sees in Flower, through Flower's own HTTP API."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest

from stack import Child, Stack, ask
from stand import free_port, wait_until

PROMPT = "nobody may read this"
HEADERS = {"authorization": "Basic " + base64.b64encode(b"k9:secret").decode()}


class Flower:
    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, path: str) -> Any:
        status, _, said = ask(f"{self.url}{path}", headers=HEADERS)
        return said if status == 200 else None

    def task(self, job: str) -> dict[str, Any]:
        return dict((self.get("/api/tasks") or {}).get(job) or {})


@pytest.fixture
def flower(own_stack: Stack) -> Iterator[Flower]:
    port = free_port()
    spec = find_spec("k9_api.up.flowerconfig")
    assert spec is not None
    words = ["celery", "-A", "k9_workers.app", "flower", "--address=127.0.0.1", f"--port={port}"]
    words += ["--read-only", f"--conf={spec.origin}"]
    env = {**own_stack.env(), "FLOWER_BASIC_AUTH": "k9:secret"}
    child = Child("flower", words, env, own_stack.folder).start()
    seen = Flower(f"http://127.0.0.1:{port}")
    wait_until(
        lambda: "k9-w1@test" in (seen.get("/api/workers?refresh=1") or {}), "Flower sees the worker", 40
    )
    yield seen
    child.stop()


def test_an_operator_sees_the_worker_its_queues_and_every_job(own_stack: Stack, flower: Flower) -> None:
    stack = own_stack
    worker = flower.get("/api/workers?refresh=1")["k9-w1@test"]
    names = {queue["name"] for queue in worker["active_queues"]}
    assert names == {"k9.local.fake.interactive", "k9.local.fake.batch"}
    assert worker["stats"]["pool"]["max-concurrency"] == stack.slots
    assert worker["stats"]["pool"]["implementation"] == "k9_workers.pool:TaskPool"

    # A streaming job shows its progress while it stays STARTED.
    stack.fake.behave(tokens_per_second=20, answer_tokens=100)
    body = {"model": stack.model, "messages": [{"role": "user", "content": PROMPT}], "stream": True}
    job = ask(f"{stack.url}/v1/jobs", {"endpoint": "/v1/chat/completions", "body": body})[2]["id"]
    shown = wait_until(
        lambda: (one := flower.task(job)).get("result") and one, "progress is shown", 15
    )  # fmt: skip
    assert isinstance(shown, dict)
    assert (shown["name"], shown["state"]) == ("k9.chat", "STARTED")
    assert shown["args"] == "fake-chat chat stream"
    assert shown["kwargs"].startswith("tenant=default priority=interactive in~")
    assert shown["result"].startswith("streaming ")
    wait_until(lambda: flower.task(job).get("state") == "SUCCESS", "it succeeded", 20)
    assert "'backend': 'fake'" in flower.task(job)["result"]

    # Jobs beyond the slots wait in the backend's queue, and Flower shows how many.
    stack.fake.behave(tokens_per_second=0, latency_ms=30_000)
    jobs = [stack.submit(PROMPT) for _ in range(stack.slots + 5)]
    stack.fake.wait(lambda seen: seen["active"] == stack.slots)

    def depths() -> dict[str, int]:
        listed = (flower.get("/api/queues/length") or {}).get("active_queues", [])
        return {queue["name"]: queue["messages"] for queue in listed}

    wait_until(lambda: depths().get("k9.local.fake.interactive") == 5, "the depth is shown", 10)
    page = flower.get("/broker")
    assert b"k9.local.fake.interactive" in page
    for path in ("/api/tasks", "/api/workers", "/tasks", f"/task/{job}"):
        assert PROMPT not in str(flower.get(path))
    for one in jobs:
        ask(f"{stack.url}/v1/jobs/{one}", method="DELETE")


def test_progress_is_shown_after_a_redis_restart_too(own_stack: Stack, flower: Flower) -> None:
    stack = own_stack
    stack.redis.stop()
    stack.redis.start()
    wait_until(lambda: ask(f"{stack.url}/readyz")[0] == 200, "ready again", 15)
    stack.fake.behave(tokens_per_second=20, answer_tokens=300)

    def shown() -> bool:
        """A new job each time: Flower itself may miss the events while it reconnects."""
        body = {"model": stack.model, "messages": [{"role": "user", "content": PROMPT}], "stream": True}
        job = ask(f"{stack.url}/v1/jobs", {"endpoint": "/v1/chat/completions", "body": body})[2]["id"]
        try:
            wait_until(lambda: "streaming" in str(flower.task(job).get("result")), "progress", 5)
        except TimeoutError:
            return False
        finally:
            ask(f"{stack.url}/v1/jobs/{job}", method="DELETE")
        return True

    wait_until(shown, "progress is shown again", 40)


def test_it_is_locked_and_read_only(flower: Flower) -> None:
    assert ask(f"{flower.url}/api/workers")[0] == 401
    assert ask(f"{flower.url}/")[0] == 401
    assert ask(f"{flower.url}/api/worker/shutdown/k9-w1@test", {}, headers=HEADERS)[0] == 403
