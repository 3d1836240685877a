"""A slot is a caller's only as long as the caller is there, and nobody waits inside the server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection
from typing import Any

import httpx
import pytest
from openai import OpenAI

from k9_broker.dialects.registry import dialect_named
from k9_broker.health import Load
from real.llama import LlamaServer
from real.served import SLOTS, Served
from stack import ask
from stand import wait_until

HELLO: list[Any] = [{"role": "user", "content": "hello"}]
LONG: dict[str, Any] = {"messages": HELLO, "max_tokens": 4000}
"""Many seconds of an answer: whoever is rid of it sooner has ended it."""
AT_ONCE = 1.0
"""Seconds."""
NOTICED = AT_ONCE + 2.5
"""Seconds. A server that writes nothing looks only once in a second whether anybody still listens."""


@pytest.fixture
def idle(narrow: LlamaServer) -> Iterator[LlamaServer]:
    """The server with two slots, both free before and after."""
    narrow.idle(20)
    yield narrow
    narrow.idle(20)


def load_of(server: LlamaServer) -> Load:
    """How busy the server is, as the dialect reads it."""
    dialect = dialect_named("llama.cpp")
    asked = dialect.load_request({})
    assert asked
    return dialect.parse_load(json.dumps(server.get(asked.path)).encode())


def asking(served: Served) -> HTTPConnection:
    """A caller who has asked for a whole long answer, and may close the connection."""
    caller = HTTPConnection("127.0.0.1", served.port)
    body = json.dumps({"model": "narrow", **LONG})
    caller.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
    return caller


def test_a_reader_who_leaves_a_stream_frees_the_slot(http: httpx.Client, idle: LlamaServer) -> None:
    body = {"model": "narrow", "stream": True, **LONG}
    with http.stream("POST", "/v1/chat/completions", json=body) as reply:
        lines = reply.iter_lines()
        assert [next(lines) for _ in range(9)]
        wait_until(lambda: idle.busy == 1, "the caller has a slot")
        assert load_of(idle) == Load(running=1, slots=SLOTS["narrow"])
    idle.idle(AT_ONCE)
    assert load_of(idle) == Load(running=0, slots=SLOTS["narrow"])


def test_a_caller_who_leaves_before_the_answer_frees_the_slot(served: Served, idle: LlamaServer) -> None:
    with closing(asking(served)):
        wait_until(lambda: idle.busy == 1, "the caller has a slot")
    idle.idle(NOTICED)


def test_a_caller_who_leaves_a_busy_server_frees_the_slot(
    served: Served, http: httpx.Client, idle: LlamaServer
) -> None:
    with http.stream(
        "POST", "/v1/chat/completions", json={"model": "narrow", "stream": True, **LONG}
    ) as other:
        lines = other.iter_lines()
        assert [next(lines) for _ in range(9)]
        with closing(asking(served)):
            wait_until(lambda: idle.busy == 2, "both have a slot")
        wait_until(lambda: idle.busy == 1, "only the other is served", NOTICED)


def test_a_cancelled_job_frees_the_slot(served: Served, idle: LlamaServer) -> None:
    job = served.submit(body={"model": "narrow", **LONG})
    wait_until(lambda: idle.busy == 1, "the job has a slot")
    assert ask(f"{served.url}/v1/jobs/{job}", method="DELETE")[0] in (200, 202, 204)
    idle.idle(NOTICED)
    assert served.job(job)["state"] == "cancelled"


def test_callers_wait_in_k9_and_not_inside_the_server(served: Served, sdk: OpenAI, idle: LlamaServer) -> None:
    slots = SLOTS["narrow"]
    before = idle.started
    holders = [served.submit(body={"model": "narrow", **LONG}) for _ in range(slots)]
    wait_until(lambda: idle.busy == slots, "every slot is taken")
    with ThreadPoolExecutor(4) as threads:
        waiting = [
            threads.submit(sdk.chat.completions.create, model="narrow", messages=HELLO, max_tokens=3)
            for _ in range(4)
        ]
        wait_until(lambda: served.queue("narrow")["waiting"]["interactive"] == 4, "four wait in K-9")
        assert idle.metric("requests_deferred") == 0
        idle.has_started(before + slots)
        for job in holders:
            ask(f"{served.url}/v1/jobs/{job}", method="DELETE")
        answers = [one.result(30) for one in waiting]
    assert [answer.choices[0].finish_reason for answer in answers] == ["length"] * 4
    idle.has_started(before + slots + 4)
    assert idle.metric("requests_deferred") == 0


def test_a_waiting_caller_who_leaves_never_reaches_the_server(served: Served, idle: LlamaServer) -> None:
    slots = SLOTS["narrow"]
    holders = [served.submit(body={"model": "narrow", **LONG}) for _ in range(slots)]
    wait_until(lambda: idle.busy == slots, "every slot is taken")
    before = idle.started
    with closing(asking(served)):
        wait_until(lambda: served.queue("narrow")["waiting"]["interactive"] == 1, "the caller waits")
    wait_until(lambda: served.queue("narrow")["waiting"]["interactive"] == 0, "nobody waits", AT_ONCE)
    for job in holders:
        ask(f"{served.url}/v1/jobs/{job}", method="DELETE")
    idle.idle(NOTICED)
    idle.has_started(before)
