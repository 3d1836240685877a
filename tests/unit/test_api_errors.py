"""Bad requests and a missing ledger over a real socket: always OpenAI's error, never a traceback."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from k9_api.app import create_app
from k9_api.errors import error_headers
from k9_broker import errors
from k9_broker.settings import ApiSettings, Settings
from serving import Served
from stand import free_port

LIMIT = 4096
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture(scope="module")
def api() -> Iterator[httpx.Client]:
    """An API with two tenants and no Redis behind it."""
    settings = Settings(api=ApiSettings(max_body_bytes=LIMIT), api_keys="acme:k-acme,beta:k-beta")
    with Served(create_app(settings, f"redis://127.0.0.1:{free_port()}/0")) as served:
        headers = {"authorization": "Bearer k-acme", "content-type": "application/json"}
        with httpx.Client(base_url=served.url, headers=headers, timeout=20) as client:
            yield client


def said(reply: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert reply.status_code == status, reply.text
    error = reply.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["code"] == code
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["x-request-id"]
    return dict(error)


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": "Bearer wrong"},
        {"authorization": "Basic k-acme"},
        {"authorization": "", "x-api-key": "k-acm"},
        {"authorization": "Bearer k-ac\u00e9"},
    ],
)
@pytest.mark.parametrize(
    "path",
    [
        *("/v1/models", "/v1/queues", "/v1/usage", "/v1/jobs/job-0"),
        *("/v1/jobs/job-0/events", "/v1/jobs/job-0/route"),
    ],
)
def test_without_a_known_key_nothing_is_told(api: httpx.Client, headers: dict[str, str], path: str) -> None:
    reply = api.get(path, headers=[(name, value.encode("latin-1")) for name, value in headers.items()])
    said(reply, 401, "invalid_api_key")
    assert reply.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "headers", [{"authorization": "bearer k-beta"}, {"x-api-key": "k-beta"}, {"api-key": "k-beta"}]
)
def test_a_key_is_taken_from_any_of_three_headers(api: httpx.Client, headers: dict[str, str]) -> None:
    with httpx.Client(base_url=api.base_url) as bare:
        said(bare.get("/v1/queues", headers=headers), 503, "ledger_unavailable")


@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/jobs", "/v1/route"]
)
@pytest.mark.parametrize("raw", [b"", b"{", b'{"prompt": "secret', b"\xff", b"[1]", b"7"])
def test_what_is_no_json_object_is_a_400(api: httpx.Client, path: str, raw: bytes) -> None:
    error = said(api.post(path, content=raw), 400, "invalid_request")
    assert error["type"] == "invalid_request_error"
    assert "secret" not in error["message"]


def test_a_bad_field_is_named_and_its_value_is_not_repeated(api: httpx.Client) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": {"secret": 1}}]}
    error = said(api.post("/v1/chat/completions", json=body), 400, "invalid_request")
    assert error["param"] == "messages[0].content"
    assert "secret" not in error["message"]


def test_a_body_that_says_it_is_too_large_is_refused(api: httpx.Client) -> None:
    error = said(api.post("/v1/embeddings", content=b" " * (LIMIT + 1)), 413, "request_too_large")
    assert str(LIMIT) in error["message"]


def test_a_body_that_turns_out_too_large_is_refused(api: httpx.Client) -> None:
    pieces = (b" " * 1024 for _ in range(100))
    said(api.post("/v1/embeddings", content=pieces), 413, "request_too_large")


def test_a_body_of_just_the_limit_is_read(api: httpx.Client) -> None:
    body = json.dumps(CHAT).encode().ljust(LIMIT)
    said(api.post("/v1/chat/completions", content=body), 503, "ledger_unavailable")


def test_an_oversize_body_is_refused_before_it_is_sent(api: httpx.Client) -> None:
    with socket.create_connection((api.base_url.host, api.base_url.port or 0), timeout=10) as raw:
        raw.sendall(
            b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\nauthorization: Bearer k-acme\r\n"
            b"content-type: application/json\r\nexpect: 100-continue\r\ncontent-length: 99999999999\r\n\r\n"
        )
        assert raw.recv(4096).startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize("media", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_what_any_web_page_may_have_a_browser_send_is_refused(api: httpx.Client, media: str) -> None:
    body = b'{"model": "m", "input": "a"}'
    reply = api.post("/v1/embeddings", content=body, headers={"content-type": media})
    said(reply, 415, "unsupported_media_type")
    said(api.post("/v1/embeddings", content=body), 503, "ledger_unavailable")


@pytest.mark.parametrize(("path", "status"), [("/livez", 200), ("/readyz", 503)])
def test_health_may_be_asked_with_head(api: httpx.Client, path: str, status: int) -> None:
    assert api.head(path).status_code == status


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/nothing", "/v1/chat/completions/", "/v1/jobs/a/b/c"])
def test_an_unknown_path_is_a_404(api: httpx.Client, path: str) -> None:
    said(api.get(path), 404, "not_found")


def test_a_wrong_method_is_a_405_that_tells_the_right_one(api: httpx.Client) -> None:
    reply = api.get("/v1/chat/completions")
    said(reply, 405, "method_not_allowed")
    assert reply.headers["allow"] == "POST"


@pytest.mark.parametrize(
    ("method", "path", "headers", "param"),
    [
        ("GET", "/v1/jobs/job-0?encoding_format=secret", {}, "encoding_format"),
        ("GET", "/v1/jobs/job-0", {"prefer": "wait=secret"}, "Prefer"),
        ("GET", "/v1/jobs/job-0/events", {"last-event-id": "secret"}, "Last-Event-ID"),
        ("GET", "/v1/jobs/job-0/events", {"last-event-id": "9" * 20}, "Last-Event-ID"),
        ("GET", "/v1/jobs/job-0/events", {"last-event-id": "1-" + "9" * 20}, "Last-Event-ID"),
        ("POST", "/v1/jobs", {"idempotency-key": "secret" * 99}, "Idempotency-Key"),
        ("POST", "/v1/chat/completions", {"x-k9-deadline": "secret"}, "X-K9-Deadline"),
    ],
)
def test_a_bad_header_or_query_is_a_400(
    api: httpx.Client, method: str, path: str, headers: dict[str, str], param: str
) -> None:
    job = {"endpoint": "/v1/chat/completions", "body": CHAT}
    body = {"json": job if path == "/v1/jobs" else CHAT} if method == "POST" else {}
    error = said(api.request(method, path, headers=headers, **body), 400, "invalid_request")
    assert error["param"] == param
    assert "secret" not in error["message"]


@pytest.mark.parametrize("job_id", ["job-0", "x", "job-%0a", "job-" + "0" * 27, "JOB-" + "0" * 26])
def test_what_is_no_job_id_is_no_job(api: httpx.Client, job_id: str) -> None:
    said(api.get(f"/v1/jobs/{job_id}"), 404, "job_not_found")
    said(api.get(f"/v1/jobs/{job_id}/route"), 404, "job_not_found")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/route"),
        ("GET", "/v1/usage"),
        ("GET", "/v1/models"),
        ("GET", "/v1/models/org%2Fmodel:tag"),
        ("GET", "/v1/queues"),
        ("GET", "/v1/jobs/job-" + "0" * 26),
        ("DELETE", "/v1/jobs/job-" + "0" * 26),
        ("GET", "/v1/jobs/job-" + "0" * 26 + "/events"),
        ("GET", "/v1/jobs/job-" + "0" * 26 + "/route"),
    ],
)
def test_without_the_ledger_callers_are_told_when_to_come_back(
    api: httpx.Client, method: str, path: str
) -> None:
    reply = api.request(method, path, json=CHAT if method == "POST" else None)
    said(reply, 503, "ledger_unavailable")
    assert 1 <= int(reply.headers["retry-after"]) <= 60
    assert int(reply.headers["retry-after-ms"]) <= 60_000
    assert "x-should-retry" not in reply.headers


def test_a_stream_that_cannot_begin_has_a_status_of_its_own(api: httpx.Client) -> None:
    reply = api.post("/v1/chat/completions", json=CHAT | {"stream": True})
    said(reply, 503, "ledger_unavailable")


def test_it_lives_but_is_not_ready_and_says_why(api: httpx.Client) -> None:
    with httpx.Client(base_url=api.base_url) as bare:  # machines that watch have no key
        assert bare.get("/livez").json() == {"status": "ok"}
        ready = bare.get("/readyz")
        assert ready.status_code == 503
        assert ready.json()["reason"] == "ledger_unavailable"
        assert "retry-after" in ready.headers
        scraped = bare.get("/metrics")
        assert scraped.status_code == 200
        assert 'k9_refused_total{code="ledger_unavailable"}' in scraped.text
        assert "k9_queue_depth{" not in scraped.text


def test_the_docs_describe_the_bodies(api: httpx.Client) -> None:
    assert api.get("/docs").status_code == 200
    paths = api.get("/openapi.json").json()["paths"]
    body = paths["/v1/chat/completions"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert set(body["required"]) == {"model", "messages"}
    assert "$ref" not in json.dumps(body)
    assert {"/v1/jobs", "/v1/queues", "/readyz", "/metrics"} <= paths.keys()
    assert {"/v1/route", "/v1/jobs/{job_id}/route", "/v1/usage"} <= paths.keys()
    plan = paths["/v1/route"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert len(plan["anyOf"]) == 4


def test_the_request_id_is_the_callers_if_it_is_harmless(api: httpx.Client) -> None:
    assert api.get("/livez", headers={"x-request-id": "abc-1.2_3"}).headers["x-request-id"] == "abc-1.2_3"
    own = api.get("/livez", headers={"x-request-id": "a b" * 99}).headers["x-request-id"]
    assert own.startswith("req_")
    assert own != api.get("/livez").headers["x-request-id"]


@pytest.mark.parametrize(
    ("error", "headers"),
    [
        (errors.QueueFull(retry_after=7), {"retry-after": "7", "retry-after-ms": "7000"}),
        (errors.QueueFull(retry_after=0.2), {"retry-after": "1", "retry-after-ms": "200"}),
        (errors.BackendRateLimited(retry_after=3600),
         {"retry-after": "60", "retry-after-ms": "60000", "x-should-retry": "false"}),
        (errors.LedgerUnavailable(), {"retry-after": "2", "retry-after-ms": "2000"}),
        (errors.BackendError(), {"x-should-retry": "false"}),
        (errors.BackendQuotaExceeded(), {"x-should-retry": "false"}),
        (errors.IdempotencyConflict(), {"x-should-retry": "false"}),
        (errors.K9Error(), {"x-should-retry": "false"}),
        (errors.BadRequest(), {}),
        (errors.ContextTooLong(), {}),
        (errors.PrivacyRefused(), {}),
        (errors.BudgetExhausted(), {}),
    ],
)  # fmt: skip
def test_headers_keep_sdks_from_a_retry_storm(error: errors.K9Error, headers: dict[str, str]) -> None:
    assert error_headers(error) == headers
