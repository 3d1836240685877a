"""Streams over a real socket, with a broker that plays a script: what callers see, what is cancelled."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import httpx
import pytest

from k9_api import sse
from k9_api.app import create_app
from k9_broker.errors import BackendError, BackendOverloaded, QueueFull
from k9_broker.ports import Event
from k9_broker.settings import JobSettings, Settings
from scripted import Scripted, Step, chunk, end, restart, running
from serving import Served
from stand import wait_until

HELLO: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
USAGE = {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}}


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Served, Scripted]]:
    broker = Scripted()

    async def opener(url: str, jobs: JobSettings) -> Scripted:
        return broker

    with Served(create_app(Settings(), "redis://127.0.0.1:1/0", opener=opener)) as api:
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
    with httpx.Client(base_url=served[0].url, timeout=10) as client:
        yield client


@pytest.fixture
def quick_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "KEEP_ALIVE", 0.1)


def ask(client: httpx.Client, **more: Any) -> httpx.Response:
    return client.post("/v1/chat/completions", json={**HELLO, "stream": True, **more})


def frames(text: str) -> list[Any]:
    """The frames of a stream; each is one `data:` line and a blank one, or a comment."""
    assert text.endswith("\n\n")
    found: list[Any] = []
    for part in text[:-2].split("\n\n"):
        if part.startswith(":"):
            continue
        assert part.startswith("data: ")
        assert "\n" not in part
        data = part.removeprefix("data: ")
        found.append(data if data == "[DONE]" else json.loads(data))
    return found


def test_a_stream_is_chunks_then_done(broker: Scripted, client: httpx.Client) -> None:
    broker.steps = [running(), chunk("a"), chunk("b"), Event("4-0", "chunk", USAGE), end()]
    reply = ask(client)
    assert reply.headers["content-type"] == "text/event-stream"
    said = frames(reply.text)
    assert [one["choices"][0]["delta"]["content"] for one in said[:-1]] == ["a", "b"]
    assert said[-1] == "[DONE]"
    assert len({one["id"] for one in said[:-1]}) == 1
    assert {
        "x-k9-job",
        "x-k9-backend",
        "x-k9-kind",
        "x-k9-model",
        "x-k9-reason",
        "x-k9-queue-seconds",
    } <= set(reply.headers)
    assert not broker.cancelled


def test_usage_comes_before_done_when_asked_for(broker: Scripted, client: httpx.Client) -> None:
    broker.steps = [chunk("a"), Event("4-0", "chunk", USAGE), end()]
    said = frames(ask(client, stream_options={"include_usage": True}).text)
    assert [one["usage"] for one in said[:-2]] == [None]
    assert said[-2]["usage"]["total_tokens"] == 3


def test_an_error_before_the_first_chunk_has_its_own_status(broker: Scripted, client: httpx.Client) -> None:
    broker.steps = [running(), end(BackendOverloaded("full up", retry_after=3))]
    reply = ask(client)
    assert reply.status_code == 503
    assert reply.json()["error"]["code"] == "backend_overloaded"
    assert (reply.headers["retry-after"], reply.headers["x-should-retry"]) == ("3", "false")
    assert reply.headers["x-k9-job"] in broker.jobs
    assert not broker.cancelled


def test_a_full_queue_is_refused_before_anything_is_sent(broker: Scripted, client: httpx.Client) -> None:
    broker.refusal = QueueFull(retry_after=7)
    for stream in (True, False):
        reply = ask(client, stream=stream)
        assert (reply.status_code, reply.headers["retry-after"]) == (503, "7")
        assert reply.json()["error"]["code"] == "queue_full"


def test_an_error_after_the_first_chunk_is_a_frame(broker: Scripted, client: httpx.Client) -> None:
    broker.steps = [chunk("a"), end(BackendError("it broke"))]
    said = frames(ask(client).text)
    assert said[1] == {
        "error": {"message": "it broke", "type": "server_error", "param": None, "code": "backend_error"}
    }
    assert len(said) == 2  # and no [DONE]: the answer is not complete


def test_a_restart_before_the_first_chunk_is_not_seen(broker: Scripted, client: httpx.Client) -> None:
    broker.steps = [running(), restart(), running(), chunk("a"), end()]
    assert frames(ask(client).text)[-1] == "[DONE]"


def test_a_restart_after_a_chunk_ends_the_stream_and_the_job(broker: Scripted, client: httpx.Client) -> None:
    broker.steps = [running(), chunk("a"), restart(), chunk("a"), end()]
    reply = ask(client)
    said = frames(reply.text)
    assert said[1]["error"]["code"] == "stream_interrupted"
    assert len(said) == 2
    assert list(broker.cancelled) == [reply.headers["x-k9-job"]]


@pytest.mark.usefixtures("quick_comments")
def test_silence_is_filled_with_comments(broker: Scripted, client: httpx.Client) -> None:
    go_on = threading.Event()
    broker.steps = [running(), go_on, chunk("a"), end()]
    with client.stream("POST", "/v1/chat/completions", json={**HELLO, "stream": True}) as reply:
        assert reply.status_code == 200  # headers came though no chunk has
        lines = reply.iter_lines()
        assert [next(lines) for _ in range(3)] == [": waiting", "", ": waiting"]
        go_on.set()
        rest = [line for line in lines if line.startswith("data: ")]
    assert len(rest) == 2


@pytest.mark.usefixtures("quick_comments")
def test_an_error_after_comments_is_a_frame(broker: Scripted, client: httpx.Client) -> None:
    go_on = threading.Event()
    broker.steps = [go_on, end(BackendError("it broke"))]
    with client.stream("POST", "/v1/chat/completions", json={**HELLO, "stream": True}) as reply:
        lines = reply.iter_lines()
        assert next(lines) == ": waiting"
        go_on.set()
        data = [line for line in lines if line.startswith("data: ")]
    assert json.loads(data[0].removeprefix("data: "))["error"]["code"] == "backend_error"


def first_chunk(reply: httpx.Response) -> None:
    next(line for line in reply.iter_lines() if line.startswith("data: "))


@pytest.mark.parametrize(
    ("steps", "stream", "until"),
    [
        ([running(), chunk("a")], True, first_chunk),
        ([], True, None),
        ([running()], True, None),
        ([], False, None),
    ],
    ids=["amid a stream", "a queued stream", "a stream before its first chunk", "a whole answer"],
)  # fmt: skip
def test_the_job_of_a_caller_who_hangs_up_is_cancelled(
    broker: Scripted,
    served: tuple[Served, Scripted],
    steps: list[Step],
    stream: bool,
    until: Callable[[httpx.Response], None] | None,
) -> None:
    never = threading.Event()
    broker.steps = [*steps, never]
    patience = httpx.Timeout(5, read=5 if until else 0.3)
    body: Mapping[str, Any] = {**HELLO, "stream": stream}
    try:
        with (
            httpx.Client(base_url=served[0].url, timeout=patience) as client,
            client.stream("POST", "/v1/chat/completions", json=body) as reply,
        ):
            assert until
            until(reply)
    except httpx.ReadTimeout:
        assert until is None
    hung_up = time.monotonic()
    wait_until(lambda: broker.cancelled, "the job is cancelled", 5)
    assert list(broker.cancelled) == list(broker.jobs)
    assert min(broker.cancelled.values()) - hung_up < 1
    never.set()


def test_a_whole_answer_cancels_nothing(broker: Scripted, client: httpx.Client) -> None:
    broker.steps = [running(), end()]
    reply = ask(client, stream=False)
    assert reply.json()["choices"][0]["message"]["content"] == "hi"
    assert float(reply.headers["x-k9-queue-seconds"]) >= 0
    broker.steps = [running(), end(BackendError("it broke"))]
    failed = ask(client, stream=False)
    assert (failed.status_code, failed.headers["x-should-retry"]) == (502, "false")
    assert failed.headers["x-k9-backend"] == "fake"
    assert not broker.cancelled
