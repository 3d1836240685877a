"""What to tell a caller whose request nobody may take: a pure rule over the decision's removals."""

from __future__ import annotations

from collections.abc import Mapping

from k9_broker.errors import (
    BackendCredentials,
    BackendQuotaExceeded,
    BackendRateLimited,
    BackendUnavailable,
    BudgetExhausted,
    ContextTooLong,
    K9Error,
    ModelNotFound,
    PrivacyRefused,
    QueueFull,
    UnsupportedParameter,
)
from k9_broker.requests import InferenceRequest, Kind, Operation
from k9_broker.snapshot import retry_after
from k9_broker.strategy import filters
from k9_broker.strategy.admission import FULL, LATE, NO_MONEY, NO_PRICE, WAITS, Admission
from k9_broker.strategy.decision import Decision

_UNABLE = {
    filters.NO_TOOLS: ("tools", "tools"),
    filters.NO_SCHEMA: ("a JSON schema for the answer", "response_format"),
    filters.NO_VISION: ("images", "messages"),
    filters.NO_STREAM: ("streaming", "stream"),
    filters.NO_DIMENSIONS: ("these dimensions", "dimensions"),
    filters.ANSWER_TOO_LONG: ("so long an answer", "max_tokens"),
}
_DOWN: Mapping[str, tuple[type[K9Error], str]] = {
    filters.NO_QUOTA: (BackendQuotaExceeded, "has no quota left, until its operator raises it"),
    filters.NO_CREDENTIALS: (BackendCredentials, "refuses its worker's key, until its operator mends it"),
}
"""What waiting does not heal."""
_TEXT = {Operation.CHAT: "messages", Operation.COMPLETIONS: "prompt", Operation.EMBEDDINGS: "input"}


def refusal(request: InferenceRequest, decision: Decision) -> K9Error:
    """The error for a decision without candidates: about whatever came closest to taking the request."""
    reasons = {removal.reason for removal in decision.removals}
    if not reasons:
        return BackendUnavailable(
            "No backend has joined yet. Start a worker: `k9 worker --backend NAME`, or everything: `k9 up`.",
            param="model",
            retry_after=5,
        )
    if decision.embedding_model and reasons <= {filters.OTHER_SPACE, filters.NOT_SERVED, filters.NOT_CAPABLE}:
        return BackendUnavailable(
            f"`auto` embeds with {decision.embedding_model!r} only, so that all vectors can be compared, "
            "and no backend serves it now. Start one, name another model, or set `routing.embedding_model`.",
            param="model",
            retry_after=5,
        )
    stays = f"This request may go to local backends only ({_who(decision)}), and"
    if filters.NO_WORKER in reasons:
        why = (
            f"{stays} of those that could take it no worker is alive. Start one: `k9 worker --backend NAME`."
        )
        return BackendUnavailable(
            why if filters.LOCAL_ONLY in reasons else None, param="model", retry_after=5
        )
    soonest = retry_after(min((one.wait for one in decision.standby), default=5))
    if ill := reasons & filters.DOWN:
        who = f"{stays} what" if filters.LOCAL_ONLY in reasons else "What"
        for reason, (error, why) in _DOWN.items():
            if ill == {reason} and filters.RATE_LIMITED not in reasons:
                return error(f"{who} serves this model {why}.")
        return BackendUnavailable(
            f"{who} serves this model has failed lately. `k9 doctor` says what is wrong.",
            param="model",
            retry_after=soonest,
        )
    if filters.RATE_LIMITED in reasons:
        return BackendRateLimited(
            "The rate limit of every backend that serves this model is reached. Try again later.",
            retry_after=soonest,
        )
    if filters.LOCAL_ONLY in reasons:
        fix = "Start one that can, or ask for another model."
        if request.kind is Kind.CLOUD:
            fix = "Leave out `kind`."
        return PrivacyRefused(f"{stays} none of them can take it with the model {request.model!r}. {fix}")
    if filters.WRONG_KIND in reasons:
        return ModelNotFound(
            f"No {request.kind} backend serves the model {request.model!r}. See /v1/models.", param="model"
        )
    if filters.TOO_LONG in reasons:
        return ContextTooLong(
            f"The prompt (about {decision.prompt_tokens} tokens) and the tokens asked for do not fit the "
            "context of any model that could be used. Shorten it, or ask for fewer tokens.",
            param=_TEXT[request.operation],
        )
    for reason, (what, param) in _UNABLE.items():
        if reason in reasons:
            return UnsupportedParameter(
                f"No model that could be used supports {what}. Ask for another model; see /v1/models.",
                param=param,
            )
    if filters.NOT_CAPABLE in reasons:
        return ModelNotFound(
            f"No backend offers {request.operation} with the model {request.model!r}. "
            "See /v1/queues for what each can do.",
            param="model",
        )
    return ModelNotFound(
        f"No backend serves the model {request.model!r}. See /v1/models for what is served.", param="model"
    )


def turned_away(admission: Admission) -> K9Error:
    """The error for a decision whose candidates admission passed over, every one, as `submit` raises it."""
    reasons = {reason for _, reason in admission.passed}
    soonest = retry_after(admission.wait)
    if reasons & {FULL, WAITS} or not reasons:
        return QueueFull(retry_after=soonest)
    if LATE in reasons:
        return QueueFull(TOO_LATE, retry_after=soonest)
    return BudgetExhausted() if reasons & {NO_MONEY, NO_PRICE} else PrivacyRefused()


TOO_LATE = (
    "No backend that serves this model is expected to answer before the request's deadline. Try again after "
    "the time in Retry-After, allow it more seconds, or say `queue: wait`."
)


def _who(decision: Decision) -> str:
    """`detector: email` and the like: what makes it local, without what was found."""
    return ", ".join(_SAID.get(by, by.replace(":", " ", 1)) for by in decision.privacy_by)


_SAID = {
    "caller": "the caller wants it",
    "tenant": "its tenant's rule",
    "default": "the default of this broker",
}
