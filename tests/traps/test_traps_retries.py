"""Who tries again, how often, when, and where: of 429s, 503s and what is not worth a second try."""

from __future__ import annotations

import json
import time
from typing import Any

import anthropic
import openai
import pytest

from k9_broker.dialects.registry import dialect_named
from k9_broker.errors import BackendQuotaExceeded, BackendRateLimited
from k9_broker.health import CircuitState
from menagerie import CHATTING, CLIENT_KEY, HELLO, LIMITED, SPARE, Menagerie, only, twin
from several import calling, states
from several import chat as request
from stand import wait_until
from tiny_server import Exchange, serving

BUDGET = 3
"""`jobs.max_calls` as it is unless configured."""


@pytest.mark.parametrize("status", [500, 503, 529])
def test_trap_04_retry_storms_end_at_the_budget(k9: Menagerie, breaks: Any, status: int) -> None:
    """The SDK would call three times, K-9 at two backends: nine calls and more."""
    breaks("vllm", error_rate=1.0, error_status=status)
    breaks(SPARE, error_rate=1.0, error_status=status)
    with openai.OpenAI(base_url=f"{k9.url}/v1", api_key=CLIENT_KEY) as client:
        assert client.max_retries == 2
        with pytest.raises(openai.APIStatusError) as failed:
            client.chat.completions.create(model=twin("vllm"), messages=HELLO)  # type: ignore[arg-type]
    assert failed.value.response.headers["x-should-retry"] == "false"
    assert 2 <= k9.inferences("vllm", SPARE) <= BUDGET


def test_trap_04_retry_storms_of_anthropics_sdk(k9: Menagerie, breaks: Any) -> None:
    breaks("ollama", error_rate=1.0, error_status=503)
    breaks(SPARE, error_rate=1.0, error_status=503)
    asked: Any = {"model": twin("ollama"), "max_tokens": 9, "messages": HELLO}
    with anthropic.Anthropic(base_url=k9.url, api_key=CLIENT_KEY) as client:
        assert client.max_retries == 2
        with pytest.raises(anthropic.APIStatusError) as failed:
            client.messages.create(**asked)
    assert failed.value.response.headers["x-should-retry"] == "false"
    assert 2 <= k9.inferences("ollama", SPARE) <= BUDGET


def test_trap_05_retry_after_of_an_hour_is_not_passed_on(k9: Menagerie, breaks: Any) -> None:
    """anthropic 1.x and 2.x would sleep for all of it."""
    k9.fakes[LIMITED].behave(error_rate=1.0, error_status=429, retry_after=3600)
    for path in ("/v1/chat/completions", "/v1/messages"):
        body = {"model": only(LIMITED), "max_tokens": 9, "messages": HELLO}
        reply = k9.http.post(path, json=body)
        assert reply.status_code == 429, reply.text
        assert 0 < float(reply.headers["retry-after"]) <= 60
        assert 0 < float(reply.headers["retry-after-ms"]) <= 60_000
        assert reply.headers["x-should-retry"] == "false"
    assert k9.inferences(LIMITED) == 1  # nobody calls it while it wants to be left alone


@pytest.mark.parametrize("dialect", ["anthropic", "openai-compatible", "tgi"])
async def test_trap_05_retry_after_on_a_200_means_nothing(dialect: str) -> None:
    """Anthropic and Hugging Face's router send it with answers too."""
    whole = {
        "id": "1",
        "type": "message",
        "role": "assistant",
        "model": "fake-chat",
        "content": [{"type": "text", "text": "Hi."}],
        "stop_reason": "end_turn",
        "choices": [{"index": 0, "message": {"content": "Hi."}, "finish_reason": "stop"}],
        "usage": {"input_tokens": 1, "output_tokens": 1, "prompt_tokens": 1, "completion_tokens": 1},
    }

    async def answer(exchange: Exchange) -> None:
        await exchange.reply(whole, retry_after="30")

    class Place:
        url = ""

    async with serving(answer) as (server, other):
        Place.url = other._connections._url
        async with calling(Place, dialect=dialect, watched=False) as caller:  # type: ignore[arg-type]
            for _ in range(3):
                await caller.call(request())
            assert states(caller) == [CircuitState.CLOSED]
    assert len(server.seen) == 3


def test_trap_10_quota_takes_the_backend_out_until_it_is_reset(k9: Menagerie, breaks: Any) -> None:
    breaks("openai", fail_next=1, error_status=429, error_code="insufficient_quota")
    breaks(SPARE)
    reply = k9.chat(twin("openai"))
    assert (reply.status_code, reply.headers["x-k9-backend"]) == (200, SPARE)
    assert reply.headers["x-k9-reason"] == "failover:insufficient_quota"
    wait_until(lambda: k9.queues()["openai"]["down"], "routing knows")
    assert k9.queues()["openai"]["down"] == "out:insufficient_quota"
    for _ in range(3):  # it would answer again, and is not asked
        assert k9.chat(twin("openai")).headers["x-k9-backend"] == SPARE
    assert k9.inferences("openai") == 1
    k9.reset_circuits("openai")
    wait_until(lambda: not k9.queues()["openai"]["down"], "routing knows that it is back")
    assert k9.chat(twin("openai")).headers["x-k9-backend"] == "openai"


def test_trap_10_quota_is_never_tried_again(k9: Menagerie, breaks: Any) -> None:
    breaks("openai", error_rate=1.0, error_status=429, error_code="insufficient_quota")
    reply = k9.chat(only("openai"))
    assert reply.status_code == 429
    assert reply.json()["error"]["code"] == "insufficient_quota"
    assert reply.headers["x-should-retry"] == "false"
    assert k9.inferences("openai") == 1
    began = time.monotonic()
    again = k9.chat(only("openai"))  # perhaps before routing knows that it is out
    assert again.status_code in (429, 503)
    assert time.monotonic() - began < 2
    assert k9.inferences("openai") == 1


@pytest.mark.parametrize(("name", "status"), [("tgi", 429), ("anthropic", 529), ("ollama", 503)])
def test_trap_10_busy_means_elsewhere_at_once(k9: Menagerie, breaks: Any, name: str, status: int) -> None:
    breaks(name, error_rate=1.0, error_status=status)
    breaks(SPARE)
    began = time.monotonic()
    for _ in range(3):
        reply = k9.chat(twin(name))
        assert (reply.status_code, reply.headers["x-k9-backend"]) == (200, SPARE)
    assert time.monotonic() - began < 2
    assert k9.inferences(name) == 1  # its circuit is open: the other two calls did not try it


def test_trap_10_rate_limit_is_waited_for(k9: Menagerie, breaks: Any) -> None:
    breaks("azure", fail_next=1, error_status=429, retry_after=1)
    began = time.monotonic()
    reply = k9.chat(only("azure"))
    assert reply.status_code == 200, reply.text
    assert time.monotonic() - began >= 1
    assert k9.inferences("azure") == 2


@pytest.mark.parametrize(
    ("error", "headers", "kind"),
    [
        ({}, {"retry-after": "7"}, BackendRateLimited),
        ({}, {}, BackendQuotaExceeded),
        ({"details": {"error_code": "spend_limit_reached"}}, {"retry-after": "7"}, BackendQuotaExceeded),
    ],
)
def test_trap_10_anthropics_spend_limit_looks_like_a_rate_limit(error: Any, headers: Any, kind: Any) -> None:
    body = {"type": "error", "error": {"type": "rate_limit_error", "message": "No more.", **error}}
    found = dialect_named("anthropic").error(429, headers, json.dumps(body).encode())
    assert type(found) is kind


@pytest.mark.parametrize("name", CHATTING)
def test_trap_20_context_overflow_is_tried_once(k9: Menagerie, breaks: Any, name: str) -> None:
    """Five servers say it in five ways; nobody else is asked, and SDKs know the code."""
    breaks(name, context_tokens=30)
    breaks(SPARE)
    said = [{"role": "user", "content": "word " * 60}]
    for streamed in (False, True):
        body = {"model": twin(name), "messages": said, "max_tokens": 10, "stream": streamed}
        reply = k9.http.post("/v1/chat/completions", json=body)
        assert reply.status_code == 400, reply.text
        error = reply.json()["error"]
        assert (error["code"], error["type"]) == ("context_length_exceeded", "invalid_request_error")
        assert "word word" not in error["message"]
    assert (k9.inferences(name), k9.inferences(SPARE)) == (2, 0)


def test_trap_20_ollama_never_cuts_a_prompt_in_silence(k9: Menagerie) -> None:
    k9.said(only("ollama"))
    sent = k9.upstream("ollama")["body"]
    assert (sent["truncate"], sent["shift"]) == (False, False)
