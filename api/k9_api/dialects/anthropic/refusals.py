"""Errors in Anthropic's envelope.

The statuses are K-9's own on every surface. Where Anthropic says 529, K-9 says 503, as HTTP does: SDKs
retry both alike, and `error.type` tells the same. `error.details` has K-9's code, which tells more
than the type, and the parameter that is meant.
"""

from __future__ import annotations

import re
from typing import Any

from k9_broker.errors import (
    BackendOverloaded,
    BackendUnavailable,
    CircuitOpen,
    ContextTooLong,
    K9Error,
    QueueFull,
)

_TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
}
_BUSY = (QueueFull, BackendUnavailable, BackendOverloaded, CircuitOpen)
_WORDS = {
    "reasoning_effort": "thinking",
    "parallel_tool_calls": "tool_choice.disable_parallel_tool_use",
    "response_format": "output_config.format",
    "stop": "stop_sequences",
    "max_completion_tokens": "max_tokens",
    "user": "metadata.user_id",
}
"""What backends name in OpenAI's words → what the caller wrote."""
_TOO_LONG = "prompt is too long"
"""The words by which Anthropic's clients know an overflow of the context; there is no type for it."""


def envelope(error: K9Error, request_id: str) -> dict[str, Any]:
    """The body of an error answer, and the data of an `error` event."""
    details = {"error_code": error.code}
    if error.param:
        details["param"] = _WORDS.get(error.param.partition(".")[0], error.param)
    told = {"type": error_type(error), "message": _message(error), "details": details}
    return {"type": "error", "error": told, "request_id": request_id}


def error_type(error: K9Error) -> str:
    """Anthropic's word for an error."""
    if isinstance(error, _BUSY):
        return "overloaded_error"
    return _TYPES.get(error.status) or ("api_error" if error.status >= 500 else "invalid_request_error")


def _message(error: K9Error) -> str:
    if isinstance(error, ContextTooLong) and _TOO_LONG not in error.message.lower():
        return f"{_TOO_LONG}: {error.message}"
    if error.param and (word := _WORDS.get(error.param.partition(".")[0])):
        # Not a part of a longer name, nor of one that is in the caller's words already.
        return re.sub(rf"(?<![\w.]){re.escape(error.param)}(?!\w|\.\w)", word, error.message)
    return error.message
