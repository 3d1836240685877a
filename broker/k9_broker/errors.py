"""One tree of errors for the whole of K-9.

Each class carries what every reader of it needs: `code` (stable, for programs), `status` (the HTTP
status a caller sees), `retryable` (whether the same request may succeed later or elsewhere) and, as the
class's docstring, the message a person reads: what happened and the next step. It never contains a prompt,
an answer or a key. The one who raises says whether and when to retry; nobody downstream guesses.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

MAX_RETRY_AFTER = 60.0
"""Seconds. Some SDKs sleep for whatever they are told; none is ever told to sleep longer."""


class K9Error(Exception):
    """K-9 failed in a way it did not foresee. Please report it with the request id."""

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False
    type: ClassVar[str] = "server_error"
    """OpenAI's `error.type`: whose fault it is."""

    def __init__(
        self, message: str | None = None, *, param: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message or self.default_message())
        self.param = param
        self.retry_after = None if retry_after is None else max(0.0, min(retry_after, MAX_RETRY_AFTER))

    @classmethod
    def default_message(cls) -> str:
        """The first paragraph of the class's docstring, on one line."""
        return " ".join((cls.__doc__ or cls.__name__).split("\n\n")[0].split())

    @property
    def message(self) -> str:
        return str(self.args[0])

    def record(self) -> dict[str, Any]:
        """The error as the ledger keeps it; `from_record` is its inverse."""
        told = {"param": self.param, "retry_after": self.retry_after}
        return {"code": self.code, "message": self.message, **told}


class ConfigurationError(K9Error):
    """The configuration is wrong; the message names the key and the fix."""

    code = "configuration_error"


# -- the caller's fault: never retried ------------------------------------------------------------


class BadRequest(K9Error):
    """The request is not valid; the message names the field."""

    code = "invalid_request"
    status = 400
    type = "invalid_request_error"


class UnsupportedParameter(BadRequest):
    """The backend of this model does not support this parameter. Remove it or choose another model."""

    code = "unsupported_parameter"


class ContextTooLong(BadRequest):
    """The prompt and the tokens asked for do not fit the model's context. Shorten the prompt."""

    code = "context_length_exceeded"


class ContentFiltered(BadRequest):
    """The backend's content filter refused the request. Change the prompt or choose another model."""

    code = "content_filter"


class BodyTooLarge(BadRequest):
    """The request body is larger than this server accepts. Send fewer or shorter inputs."""

    code = "request_too_large"
    status = 413


class NotJson(BadRequest):
    """The request body must be JSON. Send it with `Content-Type: application/json`."""

    code = "unsupported_media_type"
    status = 415


class Unauthorized(K9Error):
    """The API key is missing or unknown. Send it as `Authorization: Bearer KEY`."""

    code = "invalid_api_key"
    status = 401
    type = "invalid_request_error"


class ModelNotFound(K9Error):
    """No backend serves this model. See /v1/models for what is served."""

    code = "model_not_found"
    status = 404
    type = "invalid_request_error"


class RouteNotFound(K9Error):
    """There is nothing at this path. See /docs for the API."""

    code = "not_found"
    status = 404
    type = "invalid_request_error"


class MethodNotAllowed(K9Error):
    """This path does not accept this method. See /docs for the API."""

    code = "method_not_allowed"
    status = 405
    type = "invalid_request_error"


class JobNotFound(K9Error):
    """There is no such job, or its record has expired."""

    code = "job_not_found"
    status = 404
    type = "invalid_request_error"


class PrivacyRefused(K9Error):
    """This request may go to local backends only, and none of them can take it."""

    code = "privacy_refused"
    status = 403  # not to be retried: nothing was full, it was not allowed
    type = "invalid_request_error"


class BudgetExhausted(K9Error):
    """Today's budget of this API key does not cover the request, and nothing that is free can take it.
    It is renewed at midnight UTC. With a budget, models whose prices are not known are not used.
    """

    code = "budget_exhausted"
    status = 402
    type = "insufficient_quota"


class IdempotencyConflict(K9Error):
    """This Idempotency-Key was used before with a different request. Use a new key."""

    code = "idempotency_conflict"
    status = 409
    type = "invalid_request_error"


# -- not now: the same request may succeed later --------------------------------------------------


class QueueFull(K9Error):
    """Every queue for this request is full. Try again after the time in Retry-After, or say `queue: wait`."""

    code = "queue_full"
    status = 503
    retryable = True


class BackendUnavailable(K9Error):
    """No worker of a backend that serves this model is alive. Start one: `k9 worker --backend NAME`."""

    code = "backend_unavailable"
    status = 503
    retryable = True


class LedgerUnavailable(K9Error):
    """The job ledger (Redis) cannot be reached; nothing was accepted. Try again shortly."""

    code = "ledger_unavailable"
    status = 503
    retryable = True


# -- what a backend did ---------------------------------------------------------------------------


class BackendError(K9Error):
    """The backend answered with an error."""

    code = "backend_error"
    status = 502
    retryable = True


class BackendUnreachable(BackendError):
    """The backend could not be reached. Check that its server runs and its URL is right."""

    code = "backend_unreachable"


class BackendTimeout(BackendError):
    """The backend did not answer in time."""

    code = "backend_timeout"
    status = 504


class BackendOverloaded(BackendError):
    """The backend is overloaded."""

    code = "backend_overloaded"
    status = 503


class BackendRateLimited(BackendError):
    """The backend's rate limit is reached."""

    code = "rate_limit_exceeded"
    status = 429
    type = "rate_limit_error"


class BackendQuotaExceeded(BackendError):
    """The account at the backend has no quota left. Raise its limit; retrying does not help."""

    code = "insufficient_quota"
    status = 429
    type = "insufficient_quota"
    retryable = False


class BackendCredentials(BackendError):
    """The backend refused the worker's credentials. Check the key in the worker's environment."""

    code = "backend_credentials"
    retryable = False


class CircuitOpen(BackendError):
    """No instance of the backend is fit to be called now, so none was. `k9 doctor` says what is wrong."""

    code = "circuit_open"
    status = 503


class StreamTruncated(BackendError):
    """The backend's stream ended before the answer was complete."""

    code = "stream_truncated"


# -- what became of a job -------------------------------------------------------------------------


class StreamRestarted(K9Error):
    """The worker died after part of the answer was sent; the stream cannot go on. Send the request again."""

    code = "stream_interrupted"
    status = 502
    retryable = True


class WorkerLost(K9Error):
    """Workers died while they ran this job, as often as is allowed; it is a dead letter now."""

    code = "worker_lost"
    status = 503
    retryable = True


class JobCancelled(K9Error):
    """The job was cancelled."""

    code = "job_cancelled"
    status = 409
    type = "invalid_request_error"


class JobExpired(K9Error):
    """The job's deadline passed before it was done."""

    code = "deadline_exceeded"
    status = 504


def _tree(root: type[K9Error]) -> list[type[K9Error]]:
    return [root, *(kind for child in root.__subclasses__() for kind in _tree(child))]


def from_record(record: Mapping[str, Any]) -> K9Error:
    """The error a ledger record holds; a code this version does not know becomes a plain `K9Error`."""
    kind = {one.code: one for one in _tree(K9Error)}.get(str(record.get("code")), K9Error)
    return kind(record.get("message"), param=record.get("param"), retry_after=record.get("retry_after"))
