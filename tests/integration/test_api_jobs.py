"""`/v1/jobs` against the whole stack: submit now, ask later, cancel, resume."""

from __future__ import annotations

import json
import time
from base64 import b64decode
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI

from k9_broker.results import unpack
from stack import Child, Stack, ask
from stand import free_port, wait_until

HELLO: list[Any] = [{"role": "user", "content": "hello"}]
SLOW: dict[str, Any] = {"tokens_per_second": 20, "answer_tokens": 2000}
"""A minute and a half of an answer: whoever ends it sooner has cancelled it."""


def job(k9: Stack, **more: Any) -> dict[str, Any]:
    return {"endpoint": "/v1/chat/completions", "body": {"model": k9.model, "messages": HELLO}, **more}


def test_a_job_is_accepted_now_and_read_later(k9: Stack, http: httpx.Client) -> None:
    reply = http.post("/v1/jobs", json=job(k9, priority="batch", deadline=60))
    assert reply.status_code == 202
    accepted = reply.json()
    assert reply.headers["location"] == f"/v1/jobs/{accepted['id']}"
    assert (accepted["object"], accepted["state"], accepted["priority"]) == ("job", "queued", "batch")
    assert accepted["position"] >= 1
    assert 0 <= accepted["estimated_wait_seconds"]["p50"] <= accepted["estimated_wait_seconds"]["p90"]
    done = http.get(reply.headers["location"], headers={"prefer": "wait=20"}).json()
    assert (done["state"], done["backend"], done["reason"]) == ("succeeded", "fake", "task-type:local")
    assert done["created_at"] <= done["started_at"] <= done["ended_at"] < done["deadline_at"]
    assert done["usage"]["total_tokens"] == done["result"]["usage"]["total_tokens"] > 0
    assert done["result"]["choices"][0]["message"]["content"]
    assert done["error"] is None


def test_prefer_wait_answers_with_the_result_or_stays_a_202(k9: Stack, http: httpx.Client) -> None:
    quick = http.post("/v1/jobs", json=job(k9), headers={"prefer": "respond-async, wait=20"})
    assert (quick.status_code, quick.json()["state"]) == (200, "succeeded")
    assert quick.headers["preference-applied"] == "wait=20"
    k9.fake.behave(**SLOW)
    slow = http.post("/v1/jobs", json=job(k9), headers={"prefer": "wait=1"})
    assert (slow.status_code, slow.json()["state"]) == (202, "running")
    assert http.delete(f"/v1/jobs/{slow.json()['id']}").json()["state"] == "cancelled"


def test_waiting_for_a_job_that_nobody_waited_for_ends_when_it_ends(k9: Stack, http: httpx.Client) -> None:
    k9.fake.behave(latency_ms=700)
    accepted = http.post("/v1/jobs", json=job(k9)).json()
    done = http.get(f"/v1/jobs/{accepted['id']}", headers={"prefer": "wait=20"}).json()
    assert done["state"] == "succeeded"
    assert time.time() - done["ended_at"] < 1


@pytest.mark.parametrize("encoding_format", ["float", "base64"])
def test_embeddings_as_a_job(k9: Stack, http: httpx.Client, encoding_format: str) -> None:
    body = {"endpoint": "/v1/embeddings", "body": {"model": k9.embed_model, "input": ["a", "b"]}}
    reply = http.post(f"/v1/jobs?encoding_format={encoding_format}", json=body, headers={"prefer": "wait=20"})
    rows = [row["embedding"] for row in reply.json()["result"]["data"]]
    floats = [unpack(b64decode(row)) for row in rows] if encoding_format == "base64" else rows
    direct = http.post("/v1/embeddings", json=body["body"]).json()
    assert floats == [row["embedding"] for row in direct["data"]]


def test_a_partial_job_names_the_inputs_that_failed(k9: Stack, http: httpx.Client) -> None:
    k9.fake.behave(fail_inputs_containing="poison")
    body = {"model": k9.embed_model, "input": ["a", "poison", "b"]}
    partial = {"endpoint": "/v1/embeddings", "body": body, "partial": True}
    done = http.post("/v1/jobs", json=partial, headers={"prefer": "wait=20"}).json()
    assert done["state"] == "succeeded"
    assert done["errors"].keys() == {"1"}
    rows = [row["embedding"] for row in done["result"]["data"]]
    assert rows[1] is None
    assert rows[0]
    assert rows[2]
    whole = http.post("/v1/jobs", json={**partial, "partial": False}, headers={"prefer": "wait=20"}).json()
    assert whole["state"] == "failed"
    assert whole["error"]["type"] == "invalid_request_error"


def test_cancelling_a_running_job_stops_the_backend_within_a_second(k9: Stack, http: httpx.Client) -> None:
    k9.fake.behave(**SLOW)
    path = http.post("/v1/jobs", json=job(k9)).headers["location"]
    k9.fake.wait(lambda seen: seen["active"] == 1)
    asked = time.monotonic()
    reply = http.delete(path)
    assert (reply.status_code, reply.json()["state"]) == (200, "cancelled")
    k9.fake.wait(lambda seen: seen["disconnects"] == 1 and seen["active"] == 0, timeout=5)
    assert time.monotonic() - asked < 1
    assert http.get(path).json()["error"]["code"] == "job_cancelled"
    assert http.delete(path).json()["state"] == "cancelled"


def test_the_same_idempotency_key_finds_the_same_job(k9: Stack, http: httpx.Client) -> None:
    key = {"idempotency-key": f"k-{time.time_ns()}"}
    first = http.post("/v1/jobs", json=job(k9), headers=key)
    again = http.post("/v1/jobs", json=job(k9), headers={**key, "prefer": "wait=20"})
    assert first.json()["id"] == again.json()["id"]
    assert again.json()["state"] == "succeeded"
    assert k9.fake.stats()["inferences"] == 1
    other = http.post("/v1/jobs", json=job(k9, priority="batch"), headers=key)
    assert (other.status_code, other.json()["error"]["code"]) == (409, "idempotency_conflict")


def test_a_job_that_is_not_there(http: httpx.Client) -> None:
    for method, path in [("GET", ""), ("DELETE", ""), ("GET", "/events")]:
        reply = http.request(method, f"/v1/jobs/job-{'0' * 26}{path}")
        assert (reply.status_code, reply.json()["error"]["code"]) == (404, "job_not_found")


@pytest.fixture
def guarded(k9: Stack) -> Iterator[str]:
    """A second API over the same Redis, which wants keys."""
    port = free_port()
    env = {**k9.env(), "K9_API__PORT": str(port), "K9_API_KEYS": "acme:k-acme,beta:k-beta"}
    api = Child("api-guarded", ["k9_api"], env, k9.folder).start()
    url = f"http://127.0.0.1:{port}"
    wait_until(lambda: ask(f"{url}/readyz")[0] == 200, "the second API is ready")
    yield url
    api.stop()


def test_a_tenant_sees_only_its_own_jobs(k9: Stack, guarded: str) -> None:
    acme, beta = (
        {"authorization": f"Bearer k-{name}", "idempotency-key": "one"} for name in ("acme", "beta")
    )
    with httpx.Client(base_url=guarded, timeout=20) as http:
        first = http.post("/v1/jobs", json=job(k9), headers=acme).json()
        path = f"/v1/jobs/{first['id']}"
        assert http.get(path, headers={**acme, "prefer": "wait=20"}).json()["state"] == "succeeded"
        for method, where in [("GET", path), ("DELETE", path), ("GET", f"{path}/events")]:
            assert http.request(method, where, headers=beta).status_code == 404
            assert http.request(method, where).status_code == 401
        assert http.post("/v1/jobs", json=job(k9), headers=beta).json()["id"] != first["id"]
    with pytest.raises(openai.AuthenticationError):
        OpenAI(base_url=f"{guarded}/v1", api_key="wrong").models.list()
    assert OpenAI(base_url=f"{guarded}/v1", api_key="k-beta").models.list().data


def test_the_events_of_a_cancelled_job_end(k9: Stack, http: httpx.Client) -> None:
    k9.fake.behave(**SLOW)
    body = job(k9)
    body["body"] |= {"stream": True}
    path = http.post("/v1/jobs", json=body).headers["location"]
    with http.stream("GET", f"{path}/events") as live:
        events = read_events(live)
        assert [next(events)["event"] for _ in range(2)] == ["running", "chunk"]
        ask(f"{k9.url}{path}", method="DELETE")
        assert [event["data"]["state"] for event in events if event["event"] == "end"] == ["cancelled"]


def read_events(reply: httpx.Response) -> Iterator[dict[str, Any]]:
    """The events that have an id, which are those that are resumed."""
    assert reply.headers["content-type"] == "text/event-stream"
    fields: dict[str, Any] = {}
    for line in reply.iter_lines():
        if line:
            name, _, value = line.partition(": ")
            fields[name] = json.loads(value) if name == "data" else value
        elif fields:
            if "id" in fields:
                yield fields
            fields = {}


def test_events_tell_a_jobs_life_and_resume(k9: Stack, http: httpx.Client) -> None:
    k9.fake.behave(tokens_per_second=100, answer_tokens=30)
    body = job(k9)
    body["body"] |= {"stream": True}
    path = http.post("/v1/jobs", json=body).headers["location"] + "/events"
    with http.stream("GET", path) as live:
        events = list(read_events(live))
    kinds = [event["event"] for event in events]
    assert kinds == ["running"] + ["chunk"] * (len(events) - 2) + ["end"]
    assert events[-1]["data"]["state"] == "succeeded"
    assert events[-2]["data"]["usage"]["completion_tokens"] == 30
    assert len({event["id"] for event in events}) == len(events)
    choices = [choice for event in events[1:-1] for choice in event["data"]["choices"]]
    text = "".join(choice["delta"].get("content") or "" for choice in choices)
    result = http.get(path.removesuffix("/events")).json()["result"]
    assert result["choices"][0]["message"]["content"] == text
    assert result["choices"][0]["finish_reason"] == "stop"

    half = len(events) // 2
    with http.stream("GET", path, headers={"last-event-id": events[half]["id"]}) as resumed:
        assert list(read_events(resumed)) == events[half + 1 :]
    assert http.get(path, headers={"last-event-id": events[-1]["id"]}).status_code == 204


def test_a_reader_of_events_may_leave_and_the_job_goes_on(k9: Stack, http: httpx.Client) -> None:
    k9.fake.behave(tokens_per_second=30, answer_tokens=30)
    body = job(k9)
    body["body"] |= {"stream": True}
    path = http.post("/v1/jobs", json=body).headers["location"]
    with httpx.Client(base_url=k9.url) as leaver, leaver.stream("GET", f"{path}/events") as live:
        seen = [next(read_events(live))]
    done = http.get(path, headers={"prefer": "wait=20"}).json()
    assert (seen[0]["event"], done["state"]) == ("running", "succeeded")
    assert k9.fake.stats()["disconnects"] == 0
