"""Errors as callers see them: OpenAI's body with all four keys, and headers that tell SDKs what to do."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pydantic_core import to_json
from starlette.responses import Response

from k9_api import metrics
from k9_broker.errors import (
    BackendError,
    BadRequest,
    K9Error,
    MethodNotAllowed,
    RouteNotFound,
    Unauthorized,
    WorkerLost,
)

RETRY_AFTER = 2.0
"""Seconds to wait when an error that will pass does not say how long it takes."""


def error_object(error: K9Error) -> dict[str, Any]:
    """OpenAI's `error` object."""
    return {"message": error.message, "type": error.type, "param": error.param, "code": error.code}


def error_body(error: K9Error) -> bytes:
    """The body of an error answer, which is also the data of an error frame in a stream."""
    return to_json({"error": error_object(error)})


def error_response(error: K9Error, headers: Mapping[str, str] | None = None) -> Response:
    """The whole answer, with `headers` besides the error's own."""
    metrics.REFUSED.labels(error.code).inc()
    own = {**(headers or {}), **error_headers(error)}
    return Response(error_body(error), error.status, own, media_type="application/json")


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
