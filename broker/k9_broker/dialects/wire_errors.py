"""What a server's error means, whatever shape it has.

Servers of one dialect do not agree on the shape: an `error` object, an `error` that is a string, a
`detail`, a flat object, plain text, a proxy's HTML, nothing at all. `read` takes the facts out of any
of them and `classify` turns facts into the tree of `k9_broker.errors`. Neither ever fails.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json

from k9_broker.errors import (
    BackendCredentials,
    BackendError,
    BackendOverloaded,
    BackendQuotaExceeded,
    BackendRateLimited,
    BackendTimeout,
    BadRequest,
    BodyTooLarge,
    ContentFiltered,
    ContextTooLong,
    K9Error,
    ModelNotFound,
    UnsupportedParameter,
)
from k9_broker.requests import InferenceRequest

WAIT_STATUSES = frozenset({429, 503, 529})
"""Retry-After counts on these only: some servers send it on successes and on errors that stay."""

MAX_MESSAGE = 300
"""Characters of a server's message that are repeated."""


@dataclass(frozen=True, slots=True)
class WireError:
    """The facts of a server's error. `kind` joins its type and code words, lower case."""

    status: int
    message: str = ""
    kind: str = ""
    param: str | None = None


def read(status: int, body: bytes) -> WireError:
    """The facts in the body of a response with an error status."""
    try:
        found = from_json(body)
    except ValueError:
        text = body.decode("utf-8", "replace").strip()
        return WireError(status, "" if text.startswith("<") else text)
    return _facts(status, found)


def in_band(found: Any, *, name: str = "") -> K9Error | None:
    """The error that a 2xx answer or a frame of a stream hides, or `None` when it holds an answer.

    `name` is the name of the server-sent event. The status such an error would have had comes
    from its words: TGI writes 422 into every one, overload included.
    """
    if not isinstance(found, Mapping):
        return None
    if not (found.get("error") or found.get("object") == "error" or name == "error"):
        return None
    facts = _facts(0, found)
    return classify(WireError(_status_of(facts, found), facts.message, facts.kind, facts.param))


def classify(facts: WireError, retry_after: float | None = None) -> K9Error:
    """The error to raise. Kinds decide before statuses, since statuses are shared."""
    status, kind, said = facts.status, facts.kind, _presentable(facts.message)
    low = facts.message.lower()
    wait = retry_after if status in WAIT_STATUSES else None
    answered = f"The backend answered {status}: {said}" if said else f"The backend answered {status}."
    if status in (400, 422) and _is_context(facts, low):
        return ContextTooLong(said or None, param=facts.param)
    if status in (400, 422) and ("content_filter" in kind or "content_policy" in kind):
        return ContentFiltered(said or None, param=facts.param)
    if "insufficient_quota" in kind or "billing_hard_limit" in kind or status == 402:
        return BackendQuotaExceeded()
    if status == 401 or (status == 403 and "model_not_found" not in kind):
        return BackendCredentials()  # the server's words may quote the key
    if "overloaded" in kind or (status == 422 and "model is overloaded" in low):
        return BackendOverloaded(answered, retry_after=wait)
    if status == 429:
        return BackendRateLimited(answered, retry_after=wait)
    if status in (503, 529):
        return BackendOverloaded(answered, retry_after=wait)
    if _is_missing_model(facts, low):
        words = f": {said.rstrip('.')}. See" if said else ". See"
        return ModelNotFound(
            f"The backend does not have this model{words} /v1/models for what is served.", param="model"
        )
    if status == 413:
        return BodyTooLarge()
    if status in (408, 504):
        return BackendTimeout(answered)
    if status in (409, 424, 425) or status < 400 or (status >= 500 and status != 501):
        return BackendError(answered)
    if status == 404:
        return BadRequest(f"The backend has nothing at this operation's path. {answered}", param=facts.param)
    unsupported = _unsupported(kind, low, status)
    if unsupported is not None:
        return UnsupportedParameter(said or None, param=facts.param or unsupported or None)
    return BadRequest(said or answered, param=facts.param)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds, from `retry-after-ms` or `retry-after`; a date or nonsense counts as absent."""
    lower = {name.lower(): value for name, value in headers.items()}
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(lower[name]) / unit
        except (KeyError, ValueError):
            continue
        if math.isfinite(seconds) and seconds >= 0:
            return seconds
    return None


def discreet(error: K9Error, request: InferenceRequest) -> K9Error:
    """The same error without the server's words when they repeat text of the request."""
    if not _echoes(error.message, request):
        return error
    message = "The backend refused the request; its message is withheld since it repeats the request's text."
    return type(error)(message, param=error.param, retry_after=error.retry_after)


def _facts(status: int, found: Any) -> WireError:
    if isinstance(found, list) and found:  # some gateways wrap the object in a list
        found = found[0]
    if isinstance(found, str):
        return WireError(status, found)
    if not isinstance(found, Mapping):
        return WireError(status)
    inner = found.get("error")
    source = inner if isinstance(inner, Mapping) else found
    message = inner if isinstance(inner, str) else source.get("message") or source.get("detail") or ""
    kinds = [source.get("type"), source.get("code"), found.get("error_type")]
    param = source.get("param")
    return WireError(
        status,
        _flat(message),
        " ".join(str(kind).lower() for kind in kinds if kind is not None),
        param if isinstance(param, str) and param else None,
    )


def _flat(message: Any) -> str:
    """One line. FastAPI's lists of problems become `where: what`, without the offending input."""
    if isinstance(message, list):
        problems = [problem for problem in message if isinstance(problem, Mapping)]
        message = "; ".join(f"{_place(problem.get('loc'))}: {problem.get('msg', '')}" for problem in problems)
    return " ".join(message.split()) if isinstance(message, str) else ""


def _place(where: Any) -> str:
    return ".".join(str(part) for part in where) if isinstance(where, list) else ""


_STATUS_WORDS = (
    (("insufficient_quota", "rate_limit", "ratelimit"), 429),
    (("overloaded", "unavailable", "busy", "queue"), 503),
    (("not_found", "notfound"), 404),
    (("authentication", "invalid_api_key", "permission"), 401),
    (("content_filter", "content_policy"), 400),
    (("invalid_request", "badrequest", "bad request", "exceed_context", "context_length", "validation"), 400),
)


def _status_of(facts: WireError, found: Mapping[str, Any]) -> int:
    source = found["error"] if isinstance(found.get("error"), Mapping) else found
    code = source.get("code")
    if isinstance(code, int) and 400 <= code < 600:
        return code
    words = f"{facts.kind} {facts.message.lower()[:60]}"
    for needles, status in _STATUS_WORDS:
        if any(needle in words for needle in needles):
            return status
    return 500


_CONTEXT = re.compile(
    r"maximum context length|exceeds? the (available )?context|longer than the context"
    r"|`max_new_tokens` must be <=|`inputs` must have less than|prompt is too long"
)


def _is_context(facts: WireError, low: str) -> bool:
    return (
        "context_length_exceeded" in facts.kind
        or "exceed_context_size" in facts.kind
        or facts.param == "input_tokens"
        or _CONTEXT.search(low) is not None
    )


_MISSING = re.compile(r"^model\b.{0,300}?\b(?:not found|not loaded|does not exist)\b")
"""llama.cpp's router, which answers 400."""


def _is_missing_model(facts: WireError, low: str) -> bool:
    if "model_not_found" in facts.kind or "deploymentnotfound" in facts.kind:
        return True
    if facts.status == 400 and _MISSING.search(low):
        return True
    return facts.status == 404 and ("model" in low or facts.param == "model")


_NO_SUPPORT = {"does not support tools": "tools", "does not support thinking": "reasoning_effort"}


def _unsupported(kind: str, low: str, status: int) -> str | None:
    """The parameter's name, empty when unknown; `None` when the error is of another sort."""
    for words, param in _NO_SUPPORT.items():
        if words in low:
            return param
    known = "unsupported_parameter" in kind or "unsupported_value" in kind
    return "" if known or status == 501 else None


_INPUT = re.compile(r"""[,(\s]*['"]?\binput(?:_value)?['"]?\s*[:=].*""", re.DOTALL)
_QUOTED = re.compile(r"""(['"`])(?:(?!\1).){41,}\1""", re.DOTALL)
_KEY = re.compile(r"\b(?:sk|pk|hf|gsk|xai|key)[-_][\w*-]{4,}")


def _presentable(message: str) -> str:
    """A server's words without what they may quote: offending inputs, long quotations, keys."""
    message = _KEY.sub("…", _QUOTED.sub(r"\1…\1", _INPUT.sub("", message)))
    return message if len(message) <= MAX_MESSAGE else message[:MAX_MESSAGE] + "…"


def _echoes(message: str, request: InferenceRequest) -> bool:
    plain = _letters(message)
    texts = (request.body.get(name) for name in ("messages", "prompt", "input", "suffix"))
    for text in _texts(tuple(texts)):
        letters = _letters(text)
        if len(letters) >= 12:
            if letters[:16] in plain or letters[-16:] in plain:
                return True
        elif text.strip() and any(f"{quote}{text}{quote}" in message for quote in "'\"`"):
            return True
    return False


def _letters(text: str) -> str:
    """Letters and digits alone, so that escaping and line breaks do not hide a quotation."""
    return "".join(re.findall(r"\w+", re.sub(r"\\[nrt]", " ", text)))


def _texts(value: Any) -> Iterator[str]:
    """Every text in `value`; keys and roles are the format's words, not the caller's."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, part in value.items():
            if key not in ("role", "type", "name", "id", "tool_call_id"):
                yield from _texts(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _texts(part)
