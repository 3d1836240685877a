"""Keys and limits of rate of the fake in the words of every wire, and faults of connections that last."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import time
from datetime import UTC, datetime
from typing import Any

import openai
import pytest

from fake_calls import CHAT, EMBED, NATIVE, SAID, STREAM, Call, ask, send
from k9_broker.fake.allowance import Allowance, Breach
from k9_broker.testing import FakeServer

MESSAGES: Call = ("/v1/messages", {"model": "fake-chat", "max_tokens": 50, "messages": SAID})
AZURE: Call = ("/openai/deployments/fake-chat/chat/completions?api-version=2024-10-21", {"messages": SAID})
GENERATE: Call = ("/generate", {"inputs": "hello there"})
VERSION = {"anthropic-version": "2023-06-01"}
BEARER, OWN = {"Authorization": "Bearer secret"}, {"X-Api-Key": "secret"}
AZURES = {"Api-Key": "secret"}
_UNAUTHORIZED = "Incorrect API key provided."


@pytest.mark.parametrize(
    ("flavour", "call", "good", "bad"),
    [
        ("plain", CHAT, [BEARER], [OWN, AZURES]),
        ("openai", CHAT, [BEARER], [OWN, AZURES]),
        ("vllm", CHAT, [BEARER], [OWN, AZURES]),
        ("tgi", CHAT, [BEARER], [OWN]),
        ("tei", EMBED, [BEARER], [OWN]),
        ("llamacpp", CHAT, [BEARER], [AZURES]),
        ("plain", NATIVE, [BEARER], [OWN]),
        ("plain", MESSAGES, [BEARER, OWN], [AZURES]),
        ("plain", AZURE, [BEARER, AZURES], [OWN]),
        ("plain", GENERATE, [BEARER], [OWN]),
    ],
)
def test_a_key_counts_only_in_a_header_of_its_wire(
    fake: FakeServer, flavour: str, call: Call, good: Any, bad: Any
) -> None:
    fake.behave(flavour=flavour, api_key="secret")
    for headers in good:
        assert ask(fake, call, **headers, **VERSION)[0] == 200
    wrong = {name: value.replace("secret", "other") for name, value in good[0].items()}
    for headers in [*bad, wrong, {}]:
        assert ask(fake, call, **headers, **VERSION)[0] == 401
    stats = fake.stats()
    assert (stats["unauthorized"], stats["inferences"]) == (len(bad) + 2, len(good))


@pytest.mark.parametrize(
    ("flavour", "call", "said"),
    [
        ("plain", CHAT, {"error": {"message": _UNAUTHORIZED, "type": "invalid_request_error", "param": None,
                                   "code": "invalid_api_key"}}),
        ("vllm", CHAT, {"error": "Unauthorized"}),
        ("tgi", CHAT, None),
        ("plain", NATIVE, {"error": "unauthorized"}),
    ],
)  # fmt: skip
def test_how_a_key_is_refused(fake: FakeServer, flavour: str, call: Call, said: Any) -> None:
    fake.behave(flavour=flavour, api_key="secret")
    data = ask(fake, call)[2]
    assert (json.loads(data) if data else None) == said


def test_nothing_shows_a_key(fake: FakeServer) -> None:
    shown = fake.behave(api_key="secret-value")
    ask(fake, CHAT, Authorization="Bearer secret-value")
    ask(fake, AZURE, **{"Api-Key": "secret-value"})
    kept = fake.requests()
    assert kept[0]["headers"]["authorization"] == kept[1]["headers"]["api-key"] == "***"
    assert "secret-value" not in json.dumps([shown, kept, fake.stats()])
    assert ask(fake, CHAT, Authorization="Bearer secret-value")[0] == 200


def test_open_paths_need_no_key(fake: FakeServer) -> None:
    fake.behave(flavour="vllm", api_key="secret")
    link = http.client.HTTPConnection("127.0.0.1", fake.port, timeout=10)
    statuses = {}
    for path in ("/health", "/metrics", "/version", "/v1/models"):
        link.request("GET", path)
        answer = link.getresponse()
        answer.read()
        statuses[path] = answer.status
    link.close()
    assert statuses == {"/health": 200, "/metrics": 200, "/version": 200, "/v1/models": 401}


# -- limits of rate ---------------------------------------------------------------------------------


def test_the_bucket_is_refilled_all_the_time() -> None:
    now = [0.0]
    allowance = Allowance(60, 600, 2, lambda: now[0])  # two requests and twenty tokens at once
    assert not isinstance(allowance.take(5), Breach)
    taken = allowance.take(5)
    assert not isinstance(taken, Breach)
    assert taken.requests is not None
    assert taken.tokens is not None
    assert (taken.requests.left, taken.tokens.left, taken.tokens.full_in) == (0, 10, 1.0)
    breach = allowance.take(5)
    assert isinstance(breach, Breach)
    assert (breach.kind, breach.wait, breach.seconds) == ("requests", 1.0, 1)
    now[0] = 0.5
    breach = allowance.take(5)
    assert isinstance(breach, Breach)
    assert breach.wait == 0.5
    now[0] = 1.0
    assert not isinstance(allowance.take(20), Breach)
    now[0] = 2.0
    breach = allowance.take(20)
    assert isinstance(breach, Breach)
    assert (breach.kind, breach.wait, breach.milliseconds) == ("tokens", 1.0, 1000)


GO = re.compile(r"(\d+ms|(\d+m)?[\d.]+s)")


@pytest.mark.parametrize("flavour", ["plain", "openai"])
def test_openais_limits(fake: FakeServer, flavour: str) -> None:
    fake.behave(flavour=flavour, requests_per_minute=120, tokens_per_minute=6000, rate_burst=1)
    for left in (1, 0):
        status, headers, _ = ask(fake)
        assert status == 200
        assert headers["x-ratelimit-limit-requests"] == "120"
        assert headers["x-ratelimit-remaining-requests"] == str(left)
        assert int(headers["x-ratelimit-remaining-tokens"]) <= 100 - 19 * (2 - left) + 5
    status, headers, data = ask(fake)
    error = json.loads(data)["error"]
    assert (status, error["type"], error["code"]) == (429, "requests", "rate_limit_exceeded")
    assert "Limit 120" in error["message"]
    assert headers["retry-after"] == "1"
    assert 0 < int(headers["retry-after-ms"]) <= 500
    for kind in ("requests", "tokens"):
        assert GO.fullmatch(headers[f"x-ratelimit-reset-{kind}"])
    stats = fake.stats()
    assert (stats["rate_limited"], stats["errors"], stats["inferences"]) == (1, 0, 3)
    end = time.monotonic() + int(headers["retry-after-ms"]) / 1000
    while ask(fake)[0] != 200:
        assert time.monotonic() < end + 1  # a busy machine


def test_tokens_have_a_limit_too(fake: FakeServer) -> None:
    fake.behave(tokens_per_minute=60, rate_burst=30)
    first = ask(fake)
    assert (first[0], first[1]["x-ratelimit-remaining-tokens"]) == (200, "11")  # 3 asked, 16 answered
    assert "x-ratelimit-limit-requests" not in first[1]
    status, headers, data = ask(fake)
    assert (status, json.loads(data)["error"]["type"]) == (429, "tokens")
    assert 7 <= int(headers["retry-after"]) <= 8


def test_azures_limits(fake: FakeServer) -> None:
    fake.behave(requests_per_minute=60, tokens_per_minute=600, rate_burst=10)
    call = (AZURE[0], {**AZURE[1], "max_tokens": 90})
    status, headers, _ = ask(fake, call)  # prompt and `max_tokens` are taken, not what came of them
    assert (status, headers["x-ratelimit-remaining-tokens"]) == (200, "7")
    assert headers["x-ratelimit-reset-tokens"].isdecimal()
    status, headers, data = ask(fake, call)
    assert (status, json.loads(data)["error"]["code"]) == (429, "429")
    assert int(headers["retry-after"]) * 1000 >= int(headers["retry-after-ms"]) > 8000


def test_anthropics_limits(fake: FakeServer) -> None:
    fake.behave(requests_per_minute=60, tokens_per_minute=6000, rate_burst=1)
    status, headers, _ = ask(fake, MESSAGES, **VERSION)
    assert status == 200
    for kind in ("requests", "tokens", "input-tokens", "output-tokens"):
        reset = datetime.strptime(headers[f"anthropic-ratelimit-{kind}-reset"], "%Y-%m-%dT%H:%M:%SZ")
        assert abs((reset.replace(tzinfo=UTC) - datetime.now(UTC)).total_seconds()) < 5
    assert headers["anthropic-ratelimit-requests-remaining"] == "0"
    status, headers, data = ask(fake, MESSAGES, **VERSION)
    assert (status, json.loads(data)["error"]["type"]) == (429, "rate_limit_error")
    assert headers["retry-after"] == "1"


@pytest.mark.parametrize(
    ("flavour", "call"),
    [("vllm", CHAT), ("tgi", CHAT), ("tei", EMBED), ("llamacpp", CHAT), ("plain", NATIVE)],
)
def test_servers_that_tell_no_limits_refuse_all_the_same(fake: FakeServer, flavour: str, call: Call) -> None:
    fake.behave(flavour=flavour, requests_per_minute=6, rate_burst=1)
    assert ask(fake, call)[0] == 200
    status, headers, data = ask(fake, call)
    assert (status, "error" in json.loads(data) or json.loads(data)["type"] == "Overloaded") == (429, True)
    assert not any("ratelimit" in name for name in headers)


def test_without_limits_nothing_is_told(fake: FakeServer) -> None:
    assert not any("ratelimit" in name for name in ask(fake)[1])


def test_the_sdk_waits_as_it_is_told(fake: FakeServer) -> None:
    fake.behave(requests_per_minute=120, rate_burst=0.5)
    with openai.OpenAI(base_url=f"{fake.url}/v1", api_key="k", max_retries=2) as client:
        for _ in range(3):
            client.chat.completions.create(model="fake-chat", messages=SAID)
    assert fake.stats()["rate_limited"] >= 1


# -- connections ------------------------------------------------------------------------------------


def test_an_idle_connection_is_closed(fake: FakeServer) -> None:
    fake.behave(keep_alive_seconds=0.2)
    link = send(fake, CHAT)
    link.getresponse().read()
    assert link.sock is not None
    link.sock.settimeout(5)
    start = time.perf_counter()
    assert link.sock.recv(1) == b""
    assert 0.1 < time.perf_counter() - start < 2
    link.close()


def test_a_share_of_reused_connections_is_closed(fake: FakeServer) -> None:
    fake.behave(close_reused=0.5)
    link = http.client.HTTPConnection("127.0.0.1", fake.port, timeout=10)
    link.auto_open = 0
    outcomes = []
    for _ in range(9):
        if link.sock is None:
            link.connect()
        try:
            link.request("POST", CHAT[0], json.dumps(CHAT[1]))
            outcomes.append(link.getresponse().read()[:1])
        except (http.client.RemoteDisconnected, ConnectionResetError):
            outcomes.append(b"")
            link.close()
    link.close()
    assert outcomes == [b"{", b"{", b"", b"{", b"{", b"", b"{", b"{", b""]
    assert (fake.stats()["closed_reused"], fake.stats()["inferences"]) == (3, 6)
    assert ask(fake)[0] == 200  # a new connection is never closed


@pytest.mark.parametrize("call", [CHAT, STREAM, EMBED, NATIVE])
def test_it_dies_after_the_head(fake: FakeServer, call: Call) -> None:
    fake.behave(die_after_head=True)
    link = send(fake, call)
    answer = link.getresponse()
    assert answer.status == 200
    with pytest.raises(http.client.IncompleteRead) as caught:
        answer.read()
    assert caught.value.partial == b""
    link.close()


def test_a_stream_falls_silent(fake: FakeServer) -> None:
    fake.behave(stall_after_tokens=3)
    link = send(fake, STREAM)
    answer = link.getresponse()
    got = b""
    while got.count(b'"delta"') < 4:
        got += answer.readline()
    assert link.sock is not None
    link.sock.settimeout(0.2)
    with contextlib.suppress(TimeoutError):
        while more := answer.readline():
            got += more
    assert got.count(b'"content":"') == 4  # an empty one, then three
    assert fake.stats()["active"] == 1
    link.sock.shutdown(socket.SHUT_RDWR)
    link.close()
    fake.wait(lambda stats: (stats["active"], stats["disconnects"]) == (0, 1))


def test_a_plain_answer_falls_silent_half_way(fake: FakeServer) -> None:
    fake.behave(stall_after_tokens=0)
    link = send(fake, CHAT)
    answer = link.getresponse()
    assert answer.read(10) == b'{"id":"cha'
    assert link.sock is not None
    link.sock.settimeout(0.2)
    with pytest.raises(TimeoutError):
        answer.read()
    link.close()
