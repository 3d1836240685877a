"""What Anthropic's errors mean, in a response and within a stream.

The envelope is `{"type": "error", "error": {"type", "message", "details"}, "request_id"}`. Beyond
what statuses say, a limit on spending looks like a rate limit or like a bad request, and what a
model does not take is told only in words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic_core import from_json

from k9_broker.dialects import wire_errors
from k9_broker.dialects.wire_errors import WireError
from k9_broker.errors import (
    BackendQuotaExceeded,
    BadRequest,
    ContextTooLong,
    K9Error,
    UnsupportedParameter,
)

_STATUSES: Mapping[str, int] = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "conflict_error": 409,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""The status that goes with each type of error: within a stream nothing else tells it."""

_SPENT = re.compile(r"credit balance is too low|spend limit|specified (?:workspace )?api usage limits")
_TOO_LONG = re.compile(r"prompt is too long|exceed context limit|context window")
_NOT_TAKEN = re.compile(
    r"extra inputs are not permitted|is deprecated for this model|not support|cannot both be specified"
)
_BUDGETS_WANTED = re.compile(r"adaptive thinking|effort parameter|'adaptive'")
_NAMED = re.compile(r"""^["'`]?([a-z_]+(?:\.\w+)*)["'`]?(?=:| is | and | may | must )""")
_NAMES: Mapping[str, str] = {
    "stop_sequences": "stop",
    "metadata": "user",
    "system": "messages",
    "output_config": "response_format",
}
"""The request's names of what Anthropic calls otherwise."""


def of_response(status: int, headers: Mapping[str, str], body: bytes) -> K9Error:
    """The error in a response that is no success.

    A 429 of Anthropic's own without `retry-after`, or with an `error_code` in its details, is a
    limit on spending: waiting does not help. A 429 of something between is only a rate limit.
    """
    try:
        found = from_json(body)
    except ValueError:
        found = None
    error = _envelope(found)
    if status == 429 and error:
        waits = any(name.lower() in ("retry-after", "retry-after-ms") for name in headers)
        details = error.get("details")
        if not waits or (isinstance(details, Mapping) and details.get("error_code")):
            return BackendQuotaExceeded()
    return _classify(wire_errors.read(status, body), wire_errors.retry_after(headers))


def in_band(found: Any, *, name: str = "") -> K9Error | None:
    """The error that a 2xx answer or an event of a stream is; `name` is the event's."""
    error = _envelope(found)
    status = _STATUSES.get(str(error.get("type")), 0) if error else 0
    if error and status:
        message = error.get("message")
        return _classify(WireError(status, message if isinstance(message, str) else "", str(error["type"])))
    return wire_errors.in_band(found, name=name)


def wants_budgets(error: K9Error) -> bool:
    """Whether a model refused to be told how much to think by effort, and may take a budget instead."""
    return isinstance(error, BadRequest) and _BUDGETS_WANTED.search(error.message.lower()) is not None


def _envelope(found: Any) -> Mapping[str, Any]:
    """The `error` object of Anthropic's envelope, or an empty one."""
    if not isinstance(found, Mapping) or found.get("type") != "error":
        return {}
    error = found.get("error")
    return error if isinstance(error, Mapping) else {}


def _classify(facts: WireError, wait: float | None = None) -> K9Error:
    low = facts.message.lower()
    if facts.status in (400, 402, 403, 429) and _SPENT.search(low):
        return BackendQuotaExceeded()
    error = wire_errors.classify(facts, wait)
    if facts.status != 400 or not isinstance(error, BadRequest):
        return error
    if _TOO_LONG.search(low):
        return ContextTooLong(error.message)
    kind = UnsupportedParameter if _NOT_TAKEN.search(low) else type(error)
    return kind(error.message, param=error.param or _param(low))


def _param(low: str) -> str | None:
    """The parameter a message begins with, in the request's words."""
    if named := _NAMED.match(low):
        first, dot, rest = named[1].partition(".")
        return _NAMES.get(first) or f"{first}{dot}{rest}"
    return "reasoning_effort" if "effort" in low or "thinking" in low else None
