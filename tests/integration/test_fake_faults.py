"""Every fault of the fake's connections, and callers who leave."""

from __future__ import annotations

import http.client
import json
import socket
import time
from typing import Any

import pytest

from fake_calls import CHAT, EMBED, NATIVE, STREAM, ask, send
from k9_broker.testing import FakeServer


def test_a_stream_is_cut(fake: FakeServer) -> None:
    fake.behave(cut_after_tokens=3)
    for call, ends in ((STREAM, (b"[DONE]", b'"finish_reason":"')), (NATIVE, (b'"done":true',))):
        with pytest.raises(http.client.IncompleteRead) as caught:
            ask(fake, call)
        data = caught.value.partial
        assert data.count(b'"content":"') - data.count(b'"content":""') == 3
        assert not any(end in data for end in ends)


def test_a_stream_is_cut_after_its_last_token(fake: FakeServer) -> None:
    fake.behave(cut_after_tokens=16)
    with pytest.raises(http.client.IncompleteRead) as caught:
        ask(fake, STREAM)
    assert b'"content":"."' in caught.value.partial
    assert b'"finish_reason":"' not in caught.value.partial
    fake.behave(cut_after_tokens=17)
    assert ask(fake, STREAM)[2].endswith(b"data: [DONE]\n\n")


def test_a_plain_answer_is_cut(fake: FakeServer) -> None:
    fake.behave(cut_after_tokens=0)
    with pytest.raises(http.client.IncompleteRead) as caught:
        ask(fake)
    assert caught.value.partial.startswith(b'{"id"')


def test_an_error_inside_an_answer(fake: FakeServer) -> None:
    fake.behave(error_after_tokens=2)
    status, _, data = ask(fake, STREAM)
    *frames, last = data.removesuffix(b"\n\n").split(b"\n\n")
    assert status == 200
    assert len(frames) == 3
    assert json.loads(last.removeprefix(b"data: "))["error"]["type"] == "server_error"
    assert json.loads(ask(fake, NATIVE)[2].splitlines()[-1]) == {
        "error": "an error was encountered while running the model"
    }
    status, _, data = ask(fake)
    assert (status, list(json.loads(data))) == (200, ["error"])


def test_a_reset_comes_before_any_byte(fake: FakeServer) -> None:
    fake.behave(reset=True, fault_next=1)
    with pytest.raises(ConnectionResetError):
        ask(fake)
    assert ask(fake)[0] == 200


def test_the_lists_of_models_stay_well(fake: FakeServer) -> None:
    fake.behave(reset=True, error_rate=1)
    link = http.client.HTTPConnection("127.0.0.1", fake.port, timeout=10)
    for path in ("/v1/models", "/api/tags", "/"):
        link.request("GET", path)
        answer = link.getresponse()
        answer.read()
        assert answer.status == 200
    link.close()


# -- callers who leave ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "behaviour"),
    [
        (CHAT, {"latency_ms": 60_000}),
        (CHAT, {"hang": True}),
        (STREAM, {"tokens_per_second": 5}),
        (NATIVE, {"cold_load_ms": 60_000}),
        (EMBED, {"per_input_ms": 60_000}),
    ],
    ids=["latency", "hang", "stream", "load", "embed"],
)
def test_a_caller_who_leaves_is_noticed_and_frees_the_slot(
    fake: FakeServer, call: Any, behaviour: Any
) -> None:
    fake.behave(slots=1, **behaviour)
    link = send(fake, call)
    fake.wait(lambda stats: stats["active"] == 1)
    if "tokens_per_second" in behaviour:
        assert link.getresponse().readline().startswith(b"data: ")
    assert link.sock is not None
    start = time.perf_counter()
    link.sock.shutdown(socket.SHUT_RDWR)
    link.close()
    fake.wait(lambda stats: stats["disconnects"] == 1 and stats["active"] == 0)
    assert time.perf_counter() - start < 0.5  # a few milliseconds, but on a busy machine
    fake.reset()
    assert ask(fake, call)[0] == 200


def test_a_caller_who_leaves_the_queue_is_forgotten(fake: FakeServer) -> None:
    fake.behave(slots=1, hang=True, fault_next=1)
    first = send(fake, CHAT)
    fake.wait(lambda stats: stats["active"] == 1)
    second = send(fake, CHAT)
    fake.wait(lambda stats: stats["waiting"] == 1)
    second.close()
    fake.wait(lambda stats: (stats["waiting"], stats["disconnects"]) == (0, 1))
    first.close()
    fake.wait(lambda stats: (stats["active"], stats["disconnects"]) == (0, 2))
    assert ask(fake)[0] == 200
