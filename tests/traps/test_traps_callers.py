"""What callers do: hang up, bring keys in three headers, name models oddly, read errors strictly."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import anthropic
import httpx
import openai
import pytest

from k9_broker.backends import Backend
from k9_broker.dialects.registry import dialect_named
from k9_broker.errors import ConfigurationError
from k9_workers.callers import check
from menagerie import CHATTING, CLIENT_KEY, HELLO, ORG_MODEL, WIRES, Menagerie, only
from stand import wait_until

SLOW = {"tokens_per_second": 20, "answer_tokens": 2000}
"""More than a minute of an answer."""
STUCK = {"first_token_ms": 60_000}
SOON = 1.0
"""Seconds within which a server must learn that nobody waits any more."""
VERSION = {"anthropic-version": "2023-06-01"}


def _gone_within(k9: Menagerie, name: str, seconds: float) -> None:
    began = time.monotonic()
    k9.fakes[name].wait(lambda seen: seen["disconnects"] == 1 and not seen["active"], timeout=10)
    assert time.monotonic() - began < seconds


@pytest.mark.parametrize("name", CHATTING)
def test_trap_06_client_gone_amid_a_stream(k9: Menagerie, breaks: Any, name: str) -> None:
    breaks(name, **SLOW)
    body = {"model": only(name), "messages": HELLO, "stream": True, "max_tokens": 2000}
    with k9.http.stream("POST", "/v1/chat/completions", json=body) as reply:
        lines = (line for line in reply.iter_lines() if line.startswith("data: "))
        for _ in range(3):
            assert "error" not in json.loads(next(lines).removeprefix("data: "))
    _gone_within(k9, name, SOON)


@contextmanager
def _asking(k9: Menagerie, name: str) -> Iterator[httpx.Client]:
    """A call that is not streamed and has no answer yet; leaving hangs up."""
    body = {"model": only(name), "messages": HELLO}
    with ExitStack() as stack:
        client = stack.enter_context(httpx.Client(base_url=k9.url, headers=k9.http.headers, timeout=0.3))
        with pytest.raises(httpx.ReadTimeout):
            client.post("/v1/chat/completions", json=body)
        yield client


@pytest.mark.parametrize("name", ["anthropic", "ollama", "vllm"])
def test_trap_06_client_gone_while_it_waits_for_a_whole_answer(k9: Menagerie, breaks: Any, name: str) -> None:
    breaks(name, **STUCK)
    with _asking(k9, name):
        pass
    _gone_within(k9, name, SOON)


def test_trap_06_client_gone_while_its_job_waits(k9: Menagerie, breaks: Any) -> None:
    breaks("vllm", **STUCK)
    body = {"model": only("vllm"), "messages": HELLO}
    jobs = [
        k9.http.post("/v1/jobs", json={"endpoint": "/v1/chat/completions", "body": body}).json()["id"]
        for _ in range(4)
    ]
    k9.fakes["vllm"].wait(lambda seen: seen["active"] == 4)  # all its slots
    with _asking(k9, "vllm"):
        pass
    wait_until(lambda: not k9.queues()["vllm"]["waiting"]["interactive"], "it waits no more", 2)
    assert k9.inferences("vllm") == 4
    for job in jobs:
        k9.http.delete(f"/v1/jobs/{job}")
    k9.fakes["vllm"].wait(lambda seen: not seen["active"])
    assert k9.inferences("vllm") == 4


# -- keys ------------------------------------------------------------------------------------------

STYLES = {
    "bearer": {"authorization": f"Bearer {CLIENT_KEY}"},
    "x-api-key": {"x-api-key": CLIENT_KEY},
    "api-key": {"api-key": CLIENT_KEY},
}
UPSTREAM = {"anthropic": "x-api-key", "azure": "api-key"}
"""The header in which a server takes its key, where it is not `authorization`."""


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/v1/messages", "/v1/models", "/v1/messages/count_tokens"]
)
def test_trap_12_auth_header_of_any_style(k9: Menagerie, path: str, style: str) -> None:
    """Anthropic's SDK 2.x sends a bearer's, 0.x and 1.x `x-api-key`; AzureOpenAI `api-key`."""
    body = {"model": only("vllm"), "max_tokens": 5, "messages": HELLO}
    method = "GET" if path == "/v1/models" else "POST"
    for headers in ({}, VERSION):
        for key, status in ((STYLES[style], 200), ({style: "Bearer nobody"}, 401), ({}, 401)):
            sent = httpx.request(
                method, k9.url + path, json=body if method == "POST" else None, headers={**headers, **key}
            )
            assert sent.status_code == status, sent.text
            assert CLIENT_KEY not in sent.text


@pytest.mark.parametrize("name", WIRES)
def test_trap_12_auth_header_of_the_caller_never_goes_upstream(k9: Menagerie, name: str) -> None:
    """The fakes want a key of their own, each in its own header; vLLM refuses `x-api-key`."""
    path, body = "/v1/chat/completions", {"messages": HELLO, "user": "u"}
    if name == "tei":
        path, body = "/v1/embeddings", {"input": "a"}
    both = {**STYLES["x-api-key"], "cookie": f"key={CLIENT_KEY}", "x-trace": "t"}
    reply = k9.http.post(path, json={"model": only(name), **body}, headers=both)
    assert reply.status_code == 200, reply.text
    seen = k9.upstream(name)
    keys = {header for header, value in seen["headers"].items() if value == "***"}
    assert keys == {UPSTREAM.get(name, "authorization")}
    assert CLIENT_KEY not in json.dumps(seen)
    assert "x-trace" not in seen["headers"]


# -- errors ----------------------------------------------------------------------------------------

ODD_ERRORS: list[tuple[str, int, bytes, str, int]] = [
    ("vllm", 401, b'{"error":"Unauthorized"}', "backend_credentials", 502),
    ("vllm", 404, b'{"detail":"Not Found"}', "invalid_request", 400),
    (
        "vllm",
        400,
        b'{"object":"error","message":"no","type":"BadRequestError","code":400}',
        "invalid_request",
        400,
    ),
    (
        "vllm",
        400,
        b'{"detail":[{"loc":["body","n"],"msg":"too many","input":"secret"}]}',
        "invalid_request",
        400,
    ),
    ("ollama", 404, b'{"error":"model \'x\' not found"}', "model_not_found", 404),
    ("ollama", 503, b'{"error":"server busy, please try again"}', "backend_overloaded", 503),
    ("tgi", 401, b"", "backend_credentials", 502),
    ("tgi", 422, b"Failed to deserialize the JSON body into the target type", "invalid_request", 400),
    ("tgi", 413, b"length limit exceeded", "request_too_large", 413),
    (
        "tgi",
        424,
        b'{"error":"Request failed during generation","error_type":"generation"}',
        "backend_error",
        502,
    ),
    ("tgi", 429, b'{"error":"Model is overloaded","error_type":"overloaded"}', "backend_overloaded", 503),
    ("openai", 502, b"<html><body>Bad gateway</body></html>", "backend_error", 502),
    ("openai", 520, b"", "backend_error", 502),
    ("openai", 500, b'{"error":null}', "backend_error", 502),
    ("openai", 503, b"[]", "backend_overloaded", 503),
    ("openai", 404, b'{"error":{"code":"model_not_found","message":"no"}}', "model_not_found", 404),
    ("azure", 404, b'{"error":{"code":"DeploymentNotFound","message":"no"}}', "model_not_found", 404),
    ("azure", 429, b'{"error":{"code":"429","message":"slow"}}', "rate_limit_exceeded", 429),
    ("anthropic", 529, b'{"type":"error","error":{"type":"overloaded_error"}}', "backend_overloaded", 503),
    ("anthropic", 413, b"<html>too large</html>", "request_too_large", 413),
    ("llama.cpp", 503, b'{"error":{"code":503,"message":"Loading model"}}', "backend_overloaded", 503),
    ("llama.cpp", 400, b'{"error":{"code":400,"message":7,"type":["x"]}}', "invalid_request", 400),
    ("openai-compatible", 400, b'[{"error":{"message":"no"}}]', "invalid_request", 400),
    ("openai-compatible", 400, b"\xff\xfe\x00", "invalid_request", 400),
]


@pytest.mark.parametrize("case", ODD_ERRORS, ids=lambda case: f"{case[0]}-{case[1]}-{case[2][:14]!r}")
def test_trap_19_error_body_of_any_shape_has_its_class(case: tuple[str, int, bytes, str, int]) -> None:
    dialect, status, body, code, told = case
    error = dialect_named(dialect).error(status, {}, body)
    assert (error.code, error.status) == (code, told)
    assert "secret" not in error.message
    assert "<html" not in error.message


FAILURES = {"unknown model": "nobody", "a key refused": "ollama", "no messages": "vllm", "upstream": "tgi"}


@pytest.mark.parametrize("case", FAILURES)
def test_trap_19_error_body_is_whole_on_both_surfaces(k9: Menagerie, breaks: Any, case: str) -> None:
    name = FAILURES[case]
    body: dict[str, Any] = {"model": only(name), "max_tokens": 5, "messages": HELLO}
    if case == "no messages":
        body["messages"] = "hello"
    for path in ("/v1/chat/completions", "/v1/messages"):
        if case == "a key refused":
            breaks(name, error_rate=1.0, error_status=401)
        elif case == "upstream":
            breaks(name, error_rate=1.0, error_status=422)
        reply = k9.http.post(path, json=body)
        found = reply.json()
        assert 400 <= reply.status_code < 600
        assert reply.headers["x-request-id"]
        if path == "/v1/messages":
            assert set(found) == {"type", "error", "request_id"}
            assert (found["type"], found["request_id"]) == ("error", reply.headers["request-id"])
            assert {"type", "message"} <= set(found["error"])
        else:
            assert set(found["error"]) == {"message", "type", "param", "code"}
            assert isinstance(found["error"]["code"], str)


# -- names -----------------------------------------------------------------------------------------


def test_trap_23_model_names_with_slashes_and_tags(k9: Menagerie) -> None:
    """They arrive as `%2F`; Anthropic's SDK wants its own format."""
    with (
        openai.OpenAI(base_url=f"{k9.url}/v1", api_key=CLIENT_KEY, max_retries=0) as ours,
        anthropic.Anthropic(base_url=k9.url, api_key=CLIENT_KEY, max_retries=0) as theirs,
    ):
        assert ours.models.retrieve(ORG_MODEL).id == ORG_MODEL
        found = theirs.models.retrieve(ORG_MODEL)
        assert (found.id, found.type) == (ORG_MODEL, "model")
        listed = {model.id for model in ours.models.list()}
        assert {ORG_MODEL, *map(only, WIRES)} <= listed
        assert {model.id for model in theirs.models.list(limit=5)} == listed
        assert not [name for name in listed if name.startswith("gpt")]  # Azure's base models
        for client in (ours, theirs):
            with pytest.raises((openai.NotFoundError, anthropic.NotFoundError)):
                client.models.retrieve("org/other:tag")
    assert k9.http.get("/v1/models/org%2Fmodel%3Atag").json()["id"] == ORG_MODEL
    assert k9.chat(ORG_MODEL).headers["x-k9-model"] == ORG_MODEL


def test_trap_23_model_name_that_is_wrong_is_a_404_before_any_server(k9: Menagerie) -> None:
    """TGI takes any name and answers with what it has."""
    before = k9.inferences("tgi")
    reply = k9.chat("only-tgi2")
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "model_not_found")
    assert k9.inferences("tgi") == before
    k9.said(only("tgi"))
    assert k9.upstream("tgi")["body"]["model"] == "tgi"  # any other name would mean an adapter


def test_trap_23_model_name_without_its_latest_tag(k9: Menagerie) -> None:
    listed = dialect_named("ollama").parse_models(
        b'{"models":[{"name":"llama3:latest"},{"name":"qwen3:8b"}]}'
    )
    assert set(listed) == {"llama3", "llama3:latest", "qwen3:8b"}


def test_trap_23_model_names_of_azure_are_its_deployments() -> None:
    backend = Backend(name="az", dialect="azure", url="https://res.openai.azure.com")
    with pytest.raises(ConfigurationError, match="deployments"):
        check(backend)
    assert not dialect_named("azure").parse_models(b'{"data":[{"id":"gpt-4o-2024-08-06"}]}')
