"""Anthropic's paths over a real socket, with a broker that plays a script: envelopes, pings, lists."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import pytest
from anthropic import Anthropic

from anthropic_answers import events, gathered
from k9_api import sse
from k9_api.app import create_app
from k9_broker.errors import BackendError, QueueFull
from k9_broker.settings import ApiSettings, JobSettings, Settings
from scripted import Scripted, chunk, end, restart, running
from serving import Served
from stand import wait_until

LIMIT = 4096
ASK: dict[str, Any] = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]}
VERSION = {"anthropic-version": "2026-10-21"}


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Served, Scripted]]:
    broker = Scripted()

    async def opener(url: str, jobs: JobSettings) -> Scripted:
        return broker

    settings = Settings(api=ApiSettings(max_body_bytes=LIMIT), api_keys="acme:k-acme")
    with Served(create_app(settings, "redis://127.0.0.1:1/0", opener=opener)) as api:
        yield api, broker


@pytest.fixture
def broker(served: tuple[Served, Scripted]) -> Scripted:
    _, broker = served
    broker.steps, broker.refusal = [], None
    broker.jobs.clear()
    broker.cancelled.clear()
    return broker


@pytest.fixture
def client(served: tuple[Served, Scripted]) -> Iterator[httpx.Client]:
    headers = {"x-api-key": "k-acme"}
    with httpx.Client(base_url=served[0].url, headers=headers, timeout=10) as client:
        yield client


def sdk(served: tuple[Served, Scripted], key: str = "k-acme") -> Anthropic:
    return Anthropic(base_url=served[0].url, api_key=key, max_retries=0, timeout=10)


def said(reply: httpx.Response, status: int, kind: str) -> dict[str, Any]:
    assert reply.status_code == status, reply.text
    body = reply.json()
    assert (body["type"], body["error"]["type"]) == ("error", kind)
    assert body["error"]["message"]
    assert body["request_id"] == reply.headers["request-id"] == reply.headers["x-request-id"]
    return dict(body["error"])


@pytest.mark.usefixtures("broker")
@pytest.mark.parametrize(
    ("method", "path", "more", "status", "kind"),
    [
        ("POST", "/v1/messages", {"json": ASK, "headers": {"x-api-key": "no"}}, 401, "authentication_error"),
        ("POST", "/v1/messages/count_tokens", {"headers": {"x-api-key": ""}}, 401, "authentication_error"),
        ("POST", "/v1/messages", {"json": ASK | {"model": "nobody"}}, 404, "not_found_error"),
        ("POST", "/v1/messages", {"json": {}}, 400, "invalid_request_error"),
        ("POST", "/v1/messages/count_tokens", {"json": []}, 400, "invalid_request_error"),
        ("POST", "/v1/messages", {"json": ASK | {"system": "x" * LIMIT}}, 413, "request_too_large"),
        ("POST", "/v1/messages", {"content": b"{}"}, 415, "invalid_request_error"),
        ("GET", "/v1/messages", {}, 405, "invalid_request_error"),
        ("POST", "/v1/messages/batches", {"json": {}}, 404, "not_found_error"),
        ("GET", "/v1/messages/batches/msgbatch_1/results", {}, 404, "not_found_error"),
        ("GET", "/v1/models/org%2Fmodel:tag", {"headers": VERSION}, 404, "not_found_error"),
        ("GET", "/v1/models", {"headers": VERSION | {"x-api-key": "no"}}, 401, "authentication_error"),
        ("GET", "/v1/models?limit=0", {"headers": VERSION}, 400, "invalid_request_error"),
        ("GET", "/v1/models?after_id=secret", {"headers": VERSION}, 400, "invalid_request_error"),
        ("POST", "/v1/models", {"json": {}, "headers": VERSION}, 405, "invalid_request_error"),
    ],
)
def test_every_error_on_these_paths_is_anthropics(
    client: httpx.Client, method: str, path: str, more: Any, status: int, kind: str
) -> None:
    error = said(client.request(method, path, **more), status, kind)
    assert "secret" not in error["message"]


@pytest.mark.usefixtures("broker")
@pytest.mark.parametrize("path", ["/v1/messagesx", "/v1/nothing", "/v1/models/nobody"])
def test_other_paths_answer_as_openai_does(client: httpx.Client, path: str) -> None:
    reply = client.get(path)
    assert reply.json()["error"].keys() == {"message", "type", "param", "code"}
    assert "request-id" not in reply.headers


def test_who_is_refused_for_now_is_told_when_to_come_back(broker: Scripted, client: httpx.Client) -> None:
    broker.refusal = QueueFull(retry_after=3600)
    for stream in (False, True):
        reply = client.post("/v1/messages", json=ASK | {"stream": stream})
        said(reply, 503, "overloaded_error")
        assert 1 <= int(reply.headers["retry-after"]) <= 60
        assert "x-should-retry" not in reply.headers


def test_the_sdk_reads_the_refusals(served: tuple[Served, Scripted], broker: Scripted) -> None:
    with sdk(served, "wrong") as client, pytest.raises(anthropic.AuthenticationError) as caught:
        client.messages.create(**ASK)
    assert caught.value.type == "authentication_error"
    assert caught.value.request_id
    broker.steps = [running(), end(BackendError("it broke"))]
    with sdk(served) as client, pytest.raises(anthropic.InternalServerError) as failed:
        client.messages.create(**ASK)
    assert (failed.value.status_code, failed.value.error_code) == (502, "backend_error")
    assert failed.value.response.headers["x-should-retry"] == "false"
    assert failed.value.response.headers["x-k9-backend"] == "fake"


@pytest.mark.usefixtures("broker")
def test_keys_are_taken_from_both_headers(served: tuple[Served, Scripted]) -> None:
    with httpx.Client(base_url=served[0].url, timeout=10) as bare:
        for headers in ({"x-api-key": "k-acme"}, {"authorization": "Bearer k-acme"}):
            reply = bare.post("/v1/messages/count_tokens", json=ASK, headers=headers)
            assert reply.status_code == 200
            assert reply.headers["request-id"]


# -- streams ---------------------------------------------------------------------------------------


def test_a_stream_and_its_headers(broker: Scripted, client: httpx.Client) -> None:
    broker.steps = [running(), chunk("Hel"), chunk("lo"), end()]
    reply = client.post("/v1/messages", json=ASK | {"stream": True})
    assert reply.headers["content-type"] == "text/event-stream"
    assert reply.headers["x-k9-job"] in broker.jobs
    assert reply.headers["request-id"]
    assert gathered(events(reply.content))["content"] == [{"type": "text", "text": "Hello"}]


def test_silence_is_filled_with_pings_which_the_sdk_skips(
    broker: Scripted, served: tuple[Served, Scripted], client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "KEEP_ALIVE", 0.1)
    go_on, once_more = threading.Event(), threading.Event()
    broker.steps = [running(), go_on, chunk("a"), once_more, chunk("b"), end()]
    with client.stream("POST", "/v1/messages", json=ASK | {"stream": True}) as reply:
        assert reply.status_code == 200  # headers came though no chunk has
        lines = reply.iter_lines()
        before = [next(lines) for _ in range(6)]
        assert before == ["event: ping", 'data: {"type":"ping"}', ""] * 2
        go_on.set()
        heard = []
        for line in lines:
            heard.append(line)
            if line == "event: ping":
                once_more.set()
    found = events("\n".join([*before, *heard, ""]).encode())
    assert gathered(found)["content"] == [{"type": "text", "text": "ab"}]
    go_on.clear()
    with sdk(served) as patient, patient.messages.stream(**ASK) as stream:
        go_on.set()
        final: Any = stream.get_final_message()
    assert final.content[0].text == "ab"


def test_a_restart_before_anything_was_said_is_not_seen(broker: Scripted, client: httpx.Client) -> None:
    role = chunk("")
    broker.steps = [running(), role, restart(), running(), chunk("a"), end()]
    reply = client.post("/v1/messages", json=ASK | {"stream": True})
    assert gathered(events(reply.content))["content"] == [{"type": "text", "text": "a"}]


def test_a_restart_after_that_ends_the_stream_and_the_job(broker: Scripted, client: httpx.Client) -> None:
    broker.steps = [running(), chunk("a"), restart(), chunk("a"), end()]
    reply = client.post("/v1/messages", json=ASK | {"stream": True})
    *_, last = events(reply.content)
    assert last["error"]["details"]["error_code"] == "stream_interrupted"
    assert list(broker.cancelled) == [reply.headers["x-k9-job"]]


def test_the_job_of_a_caller_who_hangs_up_is_cancelled(broker: Scripted, client: httpx.Client) -> None:
    never = threading.Event()
    broker.steps = [running(), chunk("a"), never]
    with client.stream("POST", "/v1/messages", json=ASK | {"stream": True}) as reply:
        assert next(reply.iter_lines()) == "event: message_start"
    wait_until(lambda: broker.cancelled, "the job is cancelled", 5)
    never.set()


def test_a_whole_answer(broker: Scripted, client: httpx.Client) -> None:
    broker.steps = [running(), end()]
    message = client.post("/v1/messages", json=ASK).json()
    assert message["content"] == [{"type": "text", "text": "hi"}]
    assert message["usage"]["input_tokens"] == 1


# -- models ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("broker")
def test_models_come_in_the_format_of_the_caller(client: httpx.Client) -> None:
    openai, theirs = client.get("/v1/models").json(), client.get("/v1/models", headers=VERSION).json()
    assert openai["object"] == "list"
    assert [one["id"] for one in theirs["data"]] == [one["id"] for one in openai["data"]]
    assert {one["type"] for one in theirs["data"]} == {"model"}
    assert {one["lifecycle"] for one in theirs["data"]} == {"active"}
    assert (theirs["has_more"], theirs["first_id"]) == (False, "m")
    assert client.get("/v1/models/m", headers=VERSION).json() == theirs["data"][0]
    assert client.get("/v1/models/m").json()["object"] == "model"
    short = client.get("/v1/models/auto:cost", headers=VERSION).json()
    assert short["id"] == short["display_name"] == "auto:cost"


@pytest.mark.usefixtures("broker")
def test_models_come_in_pages(client: httpx.Client) -> None:
    every = [one["id"] for one in client.get("/v1/models", headers=VERSION).json()["data"]]
    assert len(every) > 3

    def page(query: str) -> tuple[list[str], bool]:
        told = client.get(f"/v1/models?{query}", headers=VERSION).json()
        names = [one["id"] for one in told["data"]]
        assert (told["first_id"], told["last_id"]) == ((names[0], names[-1]) if names else (None, None))
        return names, told["has_more"]

    assert page("limit=2") == (every[:2], True)
    assert page(f"limit=2&after_id={every[1]}") == (every[2:4], len(every) > 4)
    assert page(f"after_id={every[-1]}") == ([], False)
    assert page(f"limit=2&before_id={every[3]}") == (every[1:3], True)
    assert page(f"limit=9&before_id={every[3]}") == (every[:3], False)


def test_the_docs_describe_the_bodies(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    needed = {"model", "messages"}
    for path, required in (("", {*needed, "max_tokens"}), ("/count_tokens", needed)):
        body = paths[f"/v1/messages{path}"]["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert set(body["required"]) == required
        assert "$ref" not in json.dumps(body)
