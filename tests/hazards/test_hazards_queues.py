"""A backend's two lists: both count, the urgent one goes first, and what waits in them can be moved."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from hazards.conftest import NARROW
from hazards.counted import NONE, Tally
from k9_broker.adapters import keys
from k9_broker.naming import queue_name
from k9_broker.requests import Kind, Priority
from k9_broker.testing import FakeServer
from stack import Stack, ask
from stand import RedisProcess, free_port, wait_until

LISTS = {str(priority): queue_name(Kind.LOCAL, NARROW, priority) for priority in Priority}
BODY = {"model": NARROW, "messages": [{"role": "user", "content": "hello"}]}


# -- 9: two lists -----------------------------------------------------------------------------------


def submitted(stack: Stack, priority: str, count: int) -> list[str]:
    return [stack.submit(body=BODY, priority=priority) for _ in range(count)]


def waiting(stack: Stack) -> dict[str, int]:
    time.sleep(0.2)  # longer than the API goes by what it saw last and what it has admitted since
    rows = ask(f"{stack.url}/v1/queues")[2]["data"]
    return dict(next(one for one in rows if one["backend"] == NARROW)["waiting"])


def test_hazard_09_both_lists_count_in_depth_and_each_has_its_mark(steady: Stack) -> None:
    client = steady.redis.client
    steady.fake.behave(latency_ms=60_000)
    jobs = submitted(steady, "interactive", 2)
    steady.fake.wait(lambda seen: seen["active"] == 2)
    jobs += submitted(steady, "interactive", 4) + submitted(steady, "batch", 7)
    try:
        assert waiting(steady) == {"interactive": 4, "batch": 7}
        assert {name: client.llen(queue) for name, queue in LISTS.items()} == waiting(steady)
        # Nor is there a third: of priorities inside a queue Celery would make lists that nobody counts.
        lists = {key.decode() for key in client.scan_iter(_type="list")}
        assert lists == set(LISTS.values())
        for priority in ("interactive", "batch"):
            jobs += submitted(steady, priority, 2)
            asked = {"endpoint": "/v1/chat/completions", "body": BODY, "priority": priority}
            status, headers, said = ask(f"{steady.url}/v1/jobs", asked)
            assert (status in (429, 503), said["error"]["code"]) == (True, "queue_full")
            assert int(headers["retry-after"]) >= 1
        assert waiting(steady) == {"interactive": 6, "batch": 9}
    finally:
        for job in jobs:
            ask(f"{steady.url}/v1/jobs/{job}", method="DELETE")
    steady.fake.wait(lambda seen: seen["active"] == 0)


def test_hazard_09_the_urgent_list_is_read_first_and_the_other_is_done_in_the_end(steady: Stack) -> None:
    tally = Tally(steady)
    steady.fake.behave(latency_ms=150)
    batch = submitted(steady, "batch", 9)
    steady.fake.wait(lambda seen: seen["active"] > 0)
    urgent = submitted(steady, "interactive", 5)
    assert tally.damage(batch + urgent, 20) == NONE
    first = min(steady.job(job)["created_at"] for job in urgent)
    last = max(steady.job(job)["started_at"] for job in urgent)
    between = [job for job in batch if first < steady.job(job)["started_at"] < last]
    assert len(between) <= 2, "no more than had just been taken"
    assert [job for job in batch if steady.job(job)["started_at"] > last], "there was something to pass"


# -- 12: moving -------------------------------------------------------------------------------------


@dataclass
class Two(Stack):
    """A local backend, `here`, and one in a cloud, `there`, with the same model and a server each."""

    cloud: FakeServer = field(default_factory=FakeServer)

    def places(self, jobs: list[str]) -> set[str]:
        return {self.job(job)["backend"] for job in jobs}

    def stop(self) -> None:
        super().stop()
        self.cloud.stop()


@pytest.fixture
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    redis = RedisProcess(tmp_path_factory.mktemp("two"), free_port()).start()
    stack = Two(redis.folder, redis, FakeServer(), slots=6)
    shared: dict[str, Any] = {"models": (stack.model,), "max_waiting": 100, "probe_seconds": 0.5}
    stack.start_worker("here", name="here", **shared)
    stack.start_worker("there", name="there", kind="cloud", url=stack.cloud.url, **shared)
    stack.start_api()
    try:
        yield stack.wait_ready(2)
    finally:
        stack.stop()


def test_hazard_12_jobs_move_beside_workers_and_come_back_where_they_went(two: Two) -> None:
    """The server here dies. Its worker sends on what it takes, and the reaper what waits: each job once. Then
    the worker there dies, and what it had is restored to the queue it had moved to."""
    tally, client = Tally(two), two.redis.client
    two.fake.behave(latency_ms=60_000)
    two.cloud.behave(latency_ms=400)
    jobs = [two.submit(f"prompt {number}") for number in range(40)]
    assert two.places(jobs) == {"here"}
    two.fake.wait(lambda seen: seen["active"] == 6)
    two.fake._process.kill()
    two.cloud.wait(lambda seen: seen["active"] == 6 and seen["inferences"] > 6, timeout=20)
    two.workers["there"].stop(signal.SIGKILL)
    two.workers["there"].start()
    assert tally.damage(jobs, 40) == NONE
    assert two.places(jobs) == {"there"}
    assert sum(map(int, client.hvals(keys.REROUTED))) == len(jobs), "each has moved once"
    assert len(jobs) <= two.cloud.stats()["inferences"] <= len(jobs) + 6, "only what was cut off is repeated"
    queues = [queue_name(kind, name, Priority.INTERACTIVE) for kind, name in
              ((Kind.LOCAL, "here"), (Kind.CLOUD, "there"))]  # fmt: skip
    wait_until(lambda: not client.exists(*queues), "superseded messages were dropped")
    assert not client.exists(*map(keys.waiting, queues), keys.leases("here"), keys.leases("there"))
