"""Errors as callers see them: a body in their wire format, and headers that tell SDKs what to do."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from k9_api import metrics
from k9_api.dialects.surface import Surface
from k9_broker.errors import (
    BackendError,
    BadRequest,
    ContextTooLong,
    K9Error,
    MethodNotAllowed,
    RouteNotFound,
    Unauthorized,
    WorkerLost,
)

RETRY_AFTER = 2.0
"""Seconds to wait when an error that will pass does not say how long it takes."""


def error_object(error: K9Error) -> dict[str, Any]:
    """OpenAI's `error` object, all four keys of it."""
    message = error.message
    if isinstance(error, ContextTooLong) and error.code not in message:
        # Frameworks look for an overflow of the context in the words, which may be all they are handed.
        message = f"{message} ({error.code})"
    return {"message": message, "type": error.type, "param": error.param, "code": error.code}


def error_response(
    error: K9Error, surface: Surface, request_id: str, headers: Mapping[str, str] | None = None
) -> Response:
    """The whole answer, with `headers` besides the error's own."""
    metrics.REFUSED.labels(error.code).inc()
    own = {**(headers or {}), **error_headers(error)}
    body = surface.error(error, request_id)
    return Response(body, error.status, own, media_type="application/json")


def error_headers(error: K9Error) -> dict[str, str]:
    headers = {}
    if isinstance(error, Unauthorized):
        headers["www-authenticate"] = "Bearer"
    wait = error.retry_after
    if wait is None and error.retryable and error.status == 503:
        wait = RETRY_AFTER
    if wait is not None:
        headers["retry-after"] = str(math.ceil(wait))
        headers["retry-after-ms"] = str(math.ceil(wait * 1000))
    if _sdk_would_retry(error) and (not error.retryable or isinstance(error, (BackendError, WorkerLost))):
        # Either it cannot help, or K-9 has already tried again itself: one storm is enough.
        headers["x-should-retry"] = "false"
    return headers


def _sdk_would_retry(error: K9Error) -> bool:
    return error.status >= 500 or error.status in (408, 409, 429)


def from_status(status: int) -> K9Error:
    """The error for a status that the web framework itself answers with."""
    match status:
        case 404:
            return RouteNotFound()
        case 405:
            return MethodNotAllowed()
        case _ if 400 <= status < 500:
            return BadRequest("The request is not valid HTTP for this path. See /docs for the API.")
        case _:
            return K9Error()
