"""What callers who wait see of where their job stands, over a real socket and with official SDKs."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from anthropic import Anthropic
from openai import OpenAI

from k9_api import standing
from k9_api.app import create_app
from k9_broker.errors import BackendError
from k9_broker.jobs import JobState
from k9_broker.ports import Event
from k9_broker.settings import JobSettings, Settings
from scripted import Scripted, chunk, end, restart, running
from serving import Served
from stand import wait_until

HELLO: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "stream": True}
PATIENT = {"x-k9-queue": "wait"}


@pytest.fixture
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standing, "LOOK_EVERY", 0.02)


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Served, Scripted]]:
    broker = Scripted()

    async def opener(url: str, jobs: JobSettings) -> Scripted:
        return broker

    with Served(create_app(Settings(), "redis://127.0.0.1:1/0", opener=opener)) as api:
        yield api, broker


@pytest.fixture
def broker(served: tuple[Served, Scripted], quick_looks: None) -> Iterator[Scripted]:
    _, broker = served
    broker.steps, broker.before = [], {}
    broker.jobs.clear()
    broker.cancelled.clear()
    yield broker
    for step in broker.steps:
        if isinstance(step, threading.Event):
            step.set()


@pytest.fixture
def client(served: tuple[Served, Scripted]) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served[0].url, timeout=10) as client:
        yield client


def in_line(broker: Scripted, *rest: Event, ahead: int = 11) -> threading.Event:
    """The next job waits behind so many others until this is set; then come `rest`."""
    turn = threading.Event()
    broker.before["everybody"] = ahead
    broker.steps = [turn, *rest]
    return turn


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_a_patient_stream_is_told_at_once_and_at_each_change(
    broker: Scripted, client: httpx.Client, path: str
) -> None:
    turn = in_line(broker, running(), chunk("a"), end())
    body = {**HELLO, "max_tokens": 5, "k9": {"queue": "wait"}}
    with client.stream("POST", path, json=body) as reply:
        assert reply.status_code == 200
        assert reply.headers["x-k9-job"] in broker.jobs
        lines = (line for line in reply.iter_lines() if line)
        assert next(lines) == ": k9 queued position=12 wait_p50=2.0 wait_p90=2.0"
        broker.before["everybody"] = 10
        assert next(lines).startswith(": k9 queued position=11 ")
        turn.set()
        rest = list(lines)
    assert rest[0].startswith("data: " if path.endswith("completions") else "event: ")
    assert not any(line.startswith(": k9") for line in rest)


def test_others_are_told_nothing_and_keep_their_status(broker: Scripted, client: httpx.Client) -> None:
    turn = in_line(broker, end(BackendError("it broke")))
    threading.Timer(0.2, turn.set).start()
    reply = client.post("/v1/chat/completions", json=HELLO, headers={"x-k9-queue": "refuse"})
    assert reply.status_code == 502


def test_a_patient_caller_hears_of_an_error_in_the_stream(broker: Scripted, client: httpx.Client) -> None:
    turn = in_line(broker, running(), end(BackendError("it broke")))
    with client.stream("POST", "/v1/chat/completions", json=HELLO, headers=PATIENT) as reply:
        lines = (line for line in reply.iter_lines() if line)
        assert next(lines).startswith(": k9 queued position=12")
        turn.set()
        (said,) = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    assert said["error"]["code"] == "backend_error"


def test_openais_sdk_skips_what_it_is_told(served: tuple[Served, Scripted], broker: Scripted) -> None:
    turn = in_line(broker, running(), chunk("a"), chunk("b"), end())
    with OpenAI(base_url=f"{served[0].url}/v1", api_key="any", max_retries=0, timeout=10) as sdk:
        stream = sdk.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "hi"}], stream=True, extra_headers=PATIENT
        )
        turn.set()
        assert "".join(one.choices[0].delta.content or "" for one in stream) == "ab"


def test_anthropics_sdk_skips_what_it_is_told(served: tuple[Served, Scripted], broker: Scripted) -> None:
    turn = in_line(broker, running(), chunk("a"), chunk("b"), end())
    with (
        Anthropic(base_url=served[0].url, api_key="any", max_retries=0, timeout=10) as sdk,
        sdk.messages.stream(
            model="m", max_tokens=9, messages=[{"role": "user", "content": "hi"}], extra_headers=PATIENT
        ) as stream,
    ):
        turn.set()
        assert "".join(stream.text_stream) == "ab"


def test_a_patient_caller_who_leaves_the_queue_cancels_its_job(
    broker: Scripted, client: httpx.Client
) -> None:
    in_line(broker)
    with client.stream("POST", "/v1/chat/completions", json=HELLO, headers=PATIENT) as reply:
        assert next(reply.iter_lines()).startswith(": k9 queued")
    wait_until(lambda: broker.cancelled, "the job is cancelled", 2)
    assert broker.cancelled.keys() == broker.jobs.keys()


def submitted(client: httpx.Client) -> dict[str, Any]:
    body = {"endpoint": "/v1/chat/completions", "body": {**HELLO, "stream": False}}
    reply = client.post("/v1/jobs", json=body)
    assert reply.status_code == 202
    return dict(reply.json())


def events(reply: httpx.Response) -> Iterator[dict[str, str]]:
    fields: dict[str, str] = {}
    for line in reply.iter_lines():
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif fields:
            yield fields
            fields = {}


def test_a_job_tells_its_standing_and_so_do_its_events(broker: Scripted, client: httpx.Client) -> None:
    turn = in_line(broker, running(), restart(), running(), end(), ahead=7)
    accepted = submitted(client)
    stands = {"position": 8, "estimated_wait_seconds": {"p50": 1.0, "p90": 1.0}}
    assert stands.items() <= accepted.items()
    assert stands.items() <= client.get(f"/v1/jobs/{accepted['id']}").json().items()
    with client.stream("GET", f"/v1/jobs/{accepted['id']}/events") as reply:
        told = events(reply)
        first = next(told)
        assert first.keys() == {"event", "data"}
        assert first["event"] == "queued"
        assert json.loads(first["data"]) == {"job": accepted["id"], "backend": "fake", **stands}
        broker.before["everybody"] = 6
        assert json.loads(next(told)["data"])["position"] == 7
        turn.set()
        rest = [one["event"] for one in told if "id" in one]
    assert rest == ["running", "restart", "running", "end"]


def test_the_events_of_an_ended_job_tell_no_standing(broker: Scripted, client: httpx.Client) -> None:
    broker.steps = [running(), end()]
    broker.before["everybody"] = 4
    job = broker.jobs[submitted(client)["id"]]
    broker.jobs[job.id] = replace(job, state=JobState.SUCCEEDED)
    with client.stream("GET", f"/v1/jobs/{job.id}/events") as reply:
        assert [one["event"] for one in events(reply)] == ["running", "end"]
