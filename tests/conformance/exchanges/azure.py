"""Azure OpenAI, classic: the deployment in the path, a first frame of nothing, notes of a filter."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from conformance import openai_wires as wires
from conformance.cases import COMPLETED, USUAL, Broken, Exchange, Refusal, Table
from k9_broker import errors

_AT = "/openai/deployments/m/{}?api-version=2024-10-21"
_SAFE = {"hate": {"filtered": False, "severity": "safe"}}
_HEAD = {
    "id": "chatcmpl-az",
    "object": "chat.completion.chunk",
    "created": 1763850000,
    "model": "gpt-4o-2024-11-20",
    "system_fingerprint": "fp_2",
}
_NOTHING = {"id": "", "object": "", "created": 0, "model": ""}
_FIRST = wires.sse(
    {
        **_NOTHING,
        "choices": [],
        "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": _SAFE}],
    }
)
_NOTE = wires.frame(
    _NOTHING,
    {
        "finish_reason": None,
        "content_filter_offsets": {"check_offset": 44, "start_offset": 44, "end_offset": 198},
        "content_filter_results": _SAFE,
    },
)
"""Of the asynchronous filter: a choice without `delta`, also after the finish reason."""
_TEXT = {**_HEAD, "id": "cmpl-az", "object": "text_completion"}


def _chat(case: str) -> Exchange:
    choice = {
        "message": {**wires.message(case), "refusal": None},
        "finish_reason": wires.reason(case),
        "content_filter_results": _SAFE,
    }
    frames = wires.chat_frames(_HEAD, wires.deltas(case), wires.reason(case), usage=None)
    *said, ended, usage = frames
    return Exchange(
        _AT.format("chat/completions"),
        wires.whole(
            {**_HEAD, "object": "chat.completion"}, choice, prompt_filter_results=[{"prompt_index": 0}]
        ),
        (_FIRST, *said, _NOTE, ended, _NOTE, usage, wires.DONE),
        replace(USUAL[case], reasoning=""),
    )


def _error(code: str, message: str, **more: Any) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, **more}}


_BEGUN = b"".join(_chat("text").stream[:3])
TABLE = Table(
    "azure",
    {
        **{case: _chat(case) for case in ("text", "tool", "parallel", "schema", "reasoning")},
        "completions": Exchange(
            _AT.format("completions"),
            wires.whole(_TEXT, {"text": "".join(COMPLETED), "finish_reason": "length"}),
            (_FIRST, *wires.text_frames(_TEXT), wires.DONE),
            USUAL["completions"],
        ),
        "vectors": Exchange(_AT.format("embeddings"), wires.embeddings(base64=True), answer=USUAL["vectors"]),
        "floats": Exchange(_AT.format("embeddings"), wires.embeddings(base64=False), answer=USUAL["floats"]),
        "tokens": Exchange(_AT.format("embeddings"), wires.embeddings(base64=True), answer=USUAL["tokens"]),
    },
    key=("api-key", "sekret"),
    models=("/openai/models?api-version=2024-10-21", wires.models("gpt-4o"), frozenset()),
    models_configured=("m",),
    refusals={
        "invalid": Refusal(
            400,
            _error("BadRequest", "max_tokens is too large.", param="max_tokens", type=None),
            errors.BadRequest,
            param="max_tokens",
        ),
        "unsupported": Refusal(
            400,
            _error("unsupported_parameter", "Unsupported parameter.", param="seed"),
            errors.UnsupportedParameter,
            param="seed",
        ),
        "context": Refusal(
            400,
            _error("context_length_exceeded", "This model's maximum context length is 8192 tokens."),
            errors.ContextTooLong,
        ),
        "filtered": Refusal(
            400,
            _error(
                "content_filter",
                "The response was filtered.",
                innererror={"code": "ResponsibleAIPolicyViolation", "content_filter_result": _SAFE},
                status=400,
                type=None,
                param="prompt",
            ),
            errors.ContentFiltered,
            param="prompt",
        ),
        "key": Refusal(401, _error("401", "Access denied."), errors.BackendCredentials),
        "deployment": Refusal(
            404,
            _error("DeploymentNotFound", "The API deployment for this resource does not exist."),
            errors.ModelNotFound,
            param="model",
        ),
        "path": Refusal(404, _error("404", "Resource not found"), errors.BadRequest),
        "body": Refusal(413, b"", errors.BodyTooLarge),
        "rate": Refusal(
            429,
            _error("429", "Requests have exceeded the call rate limit."),
            errors.BackendRateLimited,
            {"retry-after": "37", "retry-after-ms": "36500", "x-ratelimit-reset-tokens": "37"},
            retry_after=36.5,
        ),
        "quota": Refusal(
            429, _error("insufficient_quota", "You exceeded your quota."), errors.BackendQuotaExceeded
        ),
        "broken": Refusal(500, _error("InternalServerError", "Sorry."), errors.BackendError),
        "slow": Refusal(408, _error("Timeout", "The operation was timeout."), errors.BackendTimeout),
        "busy": Refusal(
            503, _error("ServiceUnavailable", "Try again."), errors.BackendOverloaded, retry_after=None
        ),
    },
    hidden={"error": Refusal(200, _error("500", "Sorry."), errors.BackendError)},
    broken={
        "error": Broken(_BEGUN + wires.sse(_error("500", "Sorry.")), errors.BackendError),
        "error, then done": Broken(
            _BEGUN + wires.sse(_error("429", "Slow.")) + wires.DONE, errors.BackendError
        ),
    },
    wishes=wires.wishes("max_completion_tokens"),
)
