"""Callers who wait are told where they stand, by the real queue, and again when they have moved up."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from k9_api.cli.main import app
from k9_broker.testing import FakeServer
from stack import Stack, ask
from stand import RedisProcess, free_port, wait_until

HELLO: dict[str, Any] = {"model": "fake-chat", "messages": [{"role": "user", "content": "hello"}]}
JOB: dict[str, Any] = {"endpoint": "/v1/chat/completions", "body": HELLO}
COMMENT = re.compile(r": k9 queued position=(\d+) wait_p50=(\d+\.\d) wait_p90=(\d+\.\d)")


@pytest.fixture(scope="module")
def narrow_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A K-9 that runs one job at a time."""
    folder = tmp_path_factory.mktemp("line")
    stack = Stack(folder, RedisProcess(folder, free_port()).start(), FakeServer(), slots=1)
    stack.start_worker(probe_seconds=0, overflow_at=2)
    stack.start_api()
    try:
        yield stack.wait_ready()
    finally:
        stack.stop()


@pytest.fixture
def held(narrow_stack: Stack) -> Iterator[Stack]:
    """The slot is taken, by the first of the jobs, and stays so."""
    narrow_stack.fake.reset()
    narrow_stack.fake.behave(hang=True)
    narrow_stack.submit()
    narrow_stack.fake.wait(lambda seen: seen["active"] == 1)
    yield narrow_stack
    while running := narrow_stack.redis.client.zrange("k9:leases:fake", 0, -1):
        cancel(narrow_stack, *(job.decode() for job in running))


@pytest.fixture
def http(held: Stack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=held.url, timeout=10) as client:
        yield client


def cancel(stack: Stack, *jobs: str) -> None:
    for job in jobs:
        assert ask(f"{stack.url}/v1/jobs/{job}", method="DELETE")[0] == 200


def runs(stack: Stack) -> str:
    """The job that holds the slot."""

    def found() -> list[bytes]:
        return list(stack.redis.client.zrange("k9:leases:fake", 0, -1))

    (job,) = wait_until(found, "one runs")  # type: ignore[misc]
    return str(job.decode())


def told(lines: Iterator[str]) -> tuple[int, float, float]:
    """What the next comment tells."""
    match = next(found for line in lines if (found := COMMENT.fullmatch(line)))
    return int(match[1]), float(match[2]), float(match[3])


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_patient_streams_are_told_where_they_stand(held: Stack, http: httpx.Client, path: str) -> None:
    body = {**HELLO, "stream": True, "max_tokens": 16, "k9": {"queue": "wait"}}
    with ExitStack() as open_streams:
        lines = []
        for place in (1, 2, 3):
            reply = open_streams.enter_context(http.stream("POST", path, json=body))
            assert reply.status_code == 200
            assert reply.headers["x-k9-backend"] == "fake"
            lines.append(reply.iter_lines())
            position, p50, p90 = told(lines[-1])
            assert position == place
            assert 0 < p50 <= p90
        cancel(held, runs(held))  # now the first of them runs
        assert [told(line)[0] for line in lines[1:]] == [1, 2]
        held.fake.behave(hang=False)
        cancel(held, runs(held))
        for line in lines[1:]:
            said = [one for one in line if one and not one.startswith(":")]
            assert len(said) > 3
            assert "error" not in said[-1]


def events(reply: httpx.Response) -> Iterator[tuple[str | None, str, dict[str, Any]]]:
    """Id, name and data of each event."""
    fields: dict[str, str] = {}
    for line in reply.iter_lines():
        if line and not line.startswith(":"):
            name, _, value = line.partition(": ")
            fields[name] = value
        elif fields:
            yield fields.get("id"), fields["event"], json.loads(fields["data"])
            fields = {}


def test_a_jobs_events_tell_where_it_stands_and_those_have_no_id(held: Stack, http: httpx.Client) -> None:
    first, second = (http.post("/v1/jobs", json=JOB).json() for _ in range(2))
    assert (first["position"], second["position"]) == (1, 2)
    assert 0 < second["estimated_wait_seconds"]["p50"] <= second["estimated_wait_seconds"]["p90"]
    path = f"/v1/jobs/{second['id']}"
    with http.stream("GET", f"{path}/events") as reply:
        live = events(reply)
        event_id, name, data = next(live)
        assert (event_id, name, data["job"], data["position"]) == (None, "queued", second["id"], 2)
        assert data["backend"] == "fake"
        assert data["estimated_wait_seconds"].keys() == {"p50", "p90"}
        cancel(held, first["id"])
        while data["position"] == 2:  # the estimate alone may change
            event_id, name, data = next(live)
        assert (event_id, name, data["position"]) == (None, "queued", 1)
        assert http.get(path).json()["position"] == 1
        held.fake.behave(hang=False)
        cancel(held, runs(held))
        later = [(bool(event_id), name) for event_id, name, _ in live if name != "queued"]
    assert later == [(True, "running"), (True, "end")]
    assert "position" not in http.get(path).json()
    with http.stream("GET", f"{path}/events") as reply:
        assert [name for _, name, _ in events(reply)] == ["running", "end"]


def test_a_batch_job_stands_behind_everybody_who_is_there(held: Stack, http: httpx.Client) -> None:
    jobs = [http.post("/v1/jobs", json={**JOB, "priority": "batch"}).json() for _ in range(2)]
    assert [one["position"] for one in jobs] == [1, 2]
    jobs += [http.post("/v1/jobs", json=JOB).json() for _ in range(3)]
    assert [one["position"] for one in jobs[2:]] == [1, 2, 3]
    assert [http.get(f"/v1/jobs/{one['id']}").json()["position"] for one in jobs] == [4, 5, 1, 2, 3]
    cancel(held, *(one["id"] for one in jobs))


def test_the_command_line_shows_where_a_job_stands(held: Stack, http: httpx.Client) -> None:
    waiting = [http.post("/v1/jobs", json=JOB).json()["id"] for _ in range(2)]
    shown = CliRunner().invoke(app, ["jobs", "show", waiting[1], "--url", held.url])
    assert shown.exit_code == 0
    assert re.search(r"position +2, begins in \d+\.\d s \(p90 \d+\.\d s\)", shown.output)
    cancel(held, *waiting)
    shown = CliRunner().invoke(app, ["jobs", "show", waiting[1], "--url", held.url])
    assert "position" not in shown.output


def test_a_queue_that_nobody_came_to_since_it_was_full_is_not_saturated(
    held: Stack, http: httpx.Client
) -> None:
    def saturated() -> bool:
        (queue,) = http.get("/v1/queues").json()["data"]
        return bool(queue["saturated"])

    assert not saturated()
    waiting = [http.post("/v1/jobs", json=JOB).json()["id"] for _ in range(3)]
    wait_until(saturated, "two wait, which is the mark")
    cancel(held, *waiting)
    wait_until(lambda: not saturated(), "none waits")
