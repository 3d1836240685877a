"""The pace of the fake, its limits, its error answers and its control routes."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from fake_calls import CHAT, EMBED, NATIVE, STREAM, Call, ask, send
from k9_broker.testing import FakeServer


def seconds(fake: FakeServer, call: Call) -> float:
    start = time.perf_counter()
    assert ask(fake, call)[0] == 200
    return time.perf_counter() - start


# -- how fast it is -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "behaviour", "least"),
    [
        (CHAT, {"latency_ms": 60}, 0.06),
        (CHAT, {"latency_ms": 30, "first_token_ms": 40}, 0.07),
        (CHAT, {"tokens_per_second": 300}, 15 / 300),
        (NATIVE, {"tokens_per_second": 300, "first_token_ms": 10}, 0.01 + 15 / 300),
        (EMBED, {"per_input_ms": 15, "first_token_ms": 5000}, 0.06),
    ],
)
def test_delays_add_up(fake: FakeServer, call: Any, behaviour: Any, least: float) -> None:
    fake.behave(**behaviour)
    assert least <= seconds(fake, call) < least + 1


def test_tokens_come_one_after_another(fake: FakeServer) -> None:
    fake.behave(tokens_per_second=50, first_token_ms=30, answer_tokens=6)
    start, came = time.perf_counter(), []
    link = send(fake, STREAM)
    answer = link.getresponse()
    while line := answer.readline():
        if b'"content":"' in line and b'"role"' not in line:
            came.append(time.perf_counter() - start)
    link.close()
    assert len(came) == 6
    assert came[0] >= 0.03
    assert all(at >= 0.03 + index / 50 for index, at in enumerate(came))


def test_more_requests_than_slots_wait(fake: FakeServer) -> None:
    fake.behave(slots=2, latency_ms=50)
    with ThreadPoolExecutor(6) as pool:
        start = time.perf_counter()
        assert {answer[0] for answer in pool.map(lambda _: ask(fake), range(6))} == {200}
    assert time.perf_counter() - start >= 0.15
    assert fake.stats()["max_active"] == 2
    assert fake.stats()["active"] == fake.stats()["waiting"] == 0


def test_waiting_requests_go_when_slots_are_added(fake: FakeServer) -> None:
    fake.behave(slots=1, hang=True, fault_next=1)
    stuck = send(fake, CHAT)
    fake.wait(lambda stats: stats["active"] == 1)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(ask, fake)
        fake.wait(lambda stats: stats["waiting"] == 1)
        fake.behave(slots=2)
        assert waiting.result()[0] == 200
    stuck.close()
    fake.wait(lambda stats: stats["active"] == 0)


def test_a_cold_model_is_loaded_once_for_all_who_wait(fake: FakeServer) -> None:
    fake.behave(cold_load_ms=200)
    with ThreadPoolExecutor(4) as pool:
        spent = list(pool.map(lambda _: seconds(fake, CHAT), range(4)))
    assert 0.2 <= max(spent) < 0.8
    assert seconds(fake, EMBED) >= 0.2


# -- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code", "kind", "expected"),
    [
        (500, None, "server_error", None),
        (503, None, "server_error", "engine_overloaded"),
        (429, None, "requests", "rate_limit_exceeded"),
        (429, "insufficient_quota", "insufficient_quota", "insufficient_quota"),
        (401, None, "invalid_request_error", "invalid_api_key"),
        (400, "context_length_exceeded", "invalid_request_error", "context_length_exceeded"),
    ],
)
def test_the_next_requests_fail(fake: FakeServer, status: int, code: Any, kind: str, expected: Any) -> None:
    fake.behave(fail_next=2, error_status=status, error_code=code, retry_after=1.5)
    for _ in range(2):
        got, headers, data = ask(fake)
        assert got == status
        assert (headers["retry-after"], headers["retry-after-ms"]) == ("1.5", "1500")
        error = json.loads(data)["error"]
        assert (error["type"], error["code"]) == (kind, expected)
    assert ask(fake)[0] == 200
    assert fake.stats()["errors"] == 2


def test_a_bad_gateway_is_a_page(fake: FakeServer) -> None:
    fake.behave(fail_next=1, error_status=502)
    status, headers, data = ask(fake)
    assert (status, headers["content-type"]) == (502, "text/html")
    assert data.startswith(b"<html>")


def test_ollama_fails_in_its_own_words(fake: FakeServer) -> None:
    fake.behave(fail_next=1, error_status=503)
    status, headers, data = ask(fake, NATIVE)
    assert status == 503
    assert "retry-after" not in headers
    assert json.loads(data) == {"error": "server busy, please try again.  maximum pending requests exceeded"}


@pytest.mark.parametrize(
    ("behaviour", "failing"),
    [
        ({"every_nth": 3}, [3, 6, 9]),
        ({"error_rate": 0.5}, [2, 4, 6, 8, 10]),
        ({"error_rate": 1}, range(1, 11)),
    ],
)
def test_a_share_of_requests_fails(fake: FakeServer, behaviour: Any, failing: Any) -> None:
    fake.behave(**behaviour)
    assert [n for n in range(1, 11) if ask(fake)[0] == 500] == list(failing)


@pytest.mark.parametrize("path", ["/v1/embeddings", "/api/embed"])
def test_an_input_that_cannot_be_embedded(fake: FakeServer, path: str) -> None:
    fake.behave(fail_inputs_containing="poison")
    inputs = ["fine", "a poisoned one"]
    status, _, data = ask(fake, (path, {"model": "fake-embed", "input": inputs}))
    assert status == 400
    assert b"poison" not in data
    assert ask(fake, (path, {"model": "fake-embed", "input": inputs[:1]}))[0] == 200


# -- control --------------------------------------------------------------------------------------


def test_behaviour_is_changed_field_by_field(fake: FakeServer) -> None:
    assert fake.behave(latency_ms=5, slots=3)["slots"] == 3
    assert fake.behave(latency_ms=0)["slots"] == 3
    for wrong in ({"latency_ms": -1}, {"nonsense": 1}, {"error_rate": 2}, {"models": "x"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            fake.behave(**wrong)
    fake.reset()
    assert fake.behave()["slots"] == 0


def test_requests_are_kept_without_keys(fake: FakeServer) -> None:
    ask(fake, CHAT, Authorization="Bearer sk-secret", **{"X-Api-Key": "sk-secret", "X-Other": "seen"})
    ask(fake, ("/v1/chat/completions", "not an object"))
    first, second = fake.requests()
    assert (first["method"], first["path"], first["body"]) == ("POST", *CHAT)
    assert first["headers"]["authorization"] == first["headers"]["x-api-key"] == "***"
    assert first["headers"]["x-other"] == "seen"
    assert second["body"] == "not an object"
    assert "sk-secret" not in json.dumps(fake.requests())
    assert fake.stats()["paths"] == {"/v1/chat/completions": 2}


def test_only_the_last_hundred_requests_are_kept(fake: FakeServer) -> None:
    for number in range(103):
        ask(fake, ("/v1/embeddings", {"model": "fake-embed", "input": str(number)}))
    assert [each["body"]["input"] for each in fake.requests()] == [str(n) for n in range(3, 103)]
    assert (fake.stats()["requests"], fake.stats()["inputs"]) == (103, 103)
