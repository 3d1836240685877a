"""Anthropic's errors, events, signatures and lists."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from hashlib import sha512
from typing import Any
from urllib.parse import unquote

from pydantic_core import to_json

from k9_broker.fake.allowance import Level, Levels
from k9_broker.fake.head import Head
from k9_broker.fake.script import Headers, Reply

REQUEST = "req_011k9fake000000000000000"
_CREATED = "2023-11-14T22:13:20Z"

_ERRORS = {
    400: ("invalid_request_error", "The request is not valid."),
    401: ("authentication_error", "invalid x-api-key"),
    402: ("billing_error", "Your credit balance is too low to access the API."),
    403: ("permission_error", "Your API key does not have permission to use the specified resource."),
    404: ("not_found_error", "Not found"),
    409: ("conflict_error", "Conflict"),
    413: ("request_too_large", "Request exceeds the maximum size"),
    429: ("rate_limit_error", "This request would exceed your organization's rate limit."),
    500: ("api_error", "Internal server error"),
    504: ("timeout_error", "Request timed out"),
    529: ("overloaded_error", "Overloaded"),
}


def error(
    status: int,
    kind: str,
    message: str,
    headers: Headers = (),
    details: Mapping[str, Any] | None = None,
) -> Reply:
    """Anthropic's envelope, which names the request as the header does."""
    inner: dict[str, Any] = {"type": kind, "message": message}
    if details:
        inner["details"] = details
    body = {"type": "error", "error": inner, "request_id": REQUEST}
    return Reply(to_json(body), status, headers=(("request-id", REQUEST), *headers))


def usual(status: int, code: str | None, retry_after: float | None, message: str | None = None) -> Reply:
    """The error a fault asks for; a `code` with 429 is a limit of spending, which time does not lift."""
    kind, text = _ERRORS.get(status, _ERRORS[500 if status >= 500 else 400])
    headers: Headers = () if retry_after is None else (("retry-after", f"{retry_after:g}"),)
    if status == 529:
        headers = (*headers, ("x-should-retry", "true"))
    if status == 429 and code:
        text = "You have reached your specified API usage limits."
        return error(status, kind, text, headers, {"error_code": code})
    return error(status, kind, message or text, headers)


def event(name: str, **data: Any) -> bytes:
    """One server-sent event; its data name it again."""
    return b"event: " + name.encode() + b"\ndata: " + to_json({"type": name, **data}) + b"\n\n"


def signature(thought: str) -> str:
    """What proves that a thought is the fake's own, as base64."""
    return b64encode(sha512(f"k9-fake\0{thought}".encode(errors="replace")).digest()).decode()


def rate_headers(levels: Levels) -> Headers:
    """`anthropic-ratelimit-*-{limit,remaining,reset}`; resets are points in time (RFC 3339)."""
    now = datetime.now(UTC)

    def told(kind: str, level: Level | None) -> Iterator[tuple[str, str]]:
        if level is not None:
            reset = (now + timedelta(seconds=level.full_in)).strftime("%Y-%m-%dT%H:%M:%SZ")
            values = {"limit": str(level.limit), "remaining": str(level.left), "reset": reset}
            yield from ((f"anthropic-ratelimit-{kind}-{name}", value) for name, value in values.items())

    tokens = ("tokens", "input-tokens", "output-tokens")
    every = [header for kind in tokens for header in told(kind, levels.tokens)]
    return (*told("requests", levels.requests), *every)


def models(head: Head, names: Iterable[str]) -> Reply | None:
    """`GET /v1/models`, a page at a time, and `/v1/models/{id}`."""
    known = list(names)
    if head.path.startswith("/v1/models/"):
        name = unquote(head.path.removeprefix("/v1/models/"))
        if name in known:
            return Reply(to_json(_model(name)), headers=(("request-id", REQUEST),))
        return error(404, "not_found_error", f"model: {name}")
    if head.path != "/v1/models":
        return None
    parameters = head.parameters
    limit = parameters.get("limit", "20")
    if not limit.isdecimal() or not 1 <= int(limit) <= 1000:
        return error(400, "invalid_request_error", "limit: Input should be from 1 to 1000")
    page, more = _page(known, int(limit), parameters.get("after_id"), parameters.get("before_id"))
    body = {"data": [_model(name) for name in page], "has_more": more}
    body |= {"first_id": page[0] if page else None, "last_id": page[-1] if page else None}
    return Reply(to_json(body), headers=(("request-id", REQUEST),))


def _page(known: list[str], limit: int, after: str | None, before: str | None) -> tuple[list[str], bool]:
    if before in known:
        rest = known[: known.index(before)]
        return rest[-limit:], len(rest) > limit
    rest = known[known.index(after) + 1 :] if after in known else known
    return rest[:limit], len(rest) > limit


def _model(name: str) -> dict[str, Any]:
    model = {"type": "model", "id": name, "display_name": name, "created_at": _CREATED}
    return {**model, "lifecycle": "active"}
