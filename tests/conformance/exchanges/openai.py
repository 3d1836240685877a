"""OpenAI itself: role and first call in one delta, `usage` null until the last frame, padding."""

from __future__ import annotations

from dataclasses import replace

from conformance import openai_wires as wires
from conformance.cases import COMPLETED, USUAL, Broken, Exchange, Refusal, Table
from k9_broker import errors
from k9_broker.results import Usage

_DETAILS = {
    "prompt_tokens_details": {"cached_tokens": 8, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 3, "audio_tokens": 0},
}
_USAGE = {**wires.USAGE, **_DETAILS}
_COUNTED = Usage(12, 7, cached=8, reasoning=3)
_HEAD = {
    "id": "chatcmpl-1",
    "object": "chat.completion.chunk",
    "created": 1763850000,
    "model": "m-2026-01-01",
    "service_tier": "default",
    "system_fingerprint": "fp_1",
}
_WHOLE = {**_HEAD, "object": "chat.completion"}
_TEXT = {"id": "cmpl-1", "object": "text_completion", "created": 1763850000, "model": "m-2026-01-01"}
_CHAT, _COMPLETIONS, _EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"


def _chat(case: str) -> Exchange:
    message = {**wires.message(case), "refusal": None, "annotations": []}
    if case in ("tool", "parallel"):
        said = wires.call_deltas(case, first={"role": "assistant", "content": None, "refusal": None})
    else:
        said = wires.deltas(case, first={"refusal": None})
    frames = wires.chat_frames(_HEAD, said, wires.reason(case), _USAGE, usage=None, obfuscation="Xx9")
    return Exchange(
        _CHAT,
        wires.whole(_WHOLE, {"message": message, "finish_reason": wires.reason(case)}, _USAGE),
        (*frames, wires.DONE),
        replace(USUAL[case], usage=_COUNTED, reasoning=""),  # its chat API never tells the reasoning
    )


_ERROR = {"error": {"message": "Sorry.", "type": "server_error", "param": None, "code": None}}
_BEGUN = b"".join(_chat("text").stream[:2])
TABLE = Table(
    "openai",
    {
        **{case: _chat(case) for case in ("text", "tool", "parallel", "schema", "reasoning")},
        "completions": Exchange(
            _COMPLETIONS,
            wires.whole(_TEXT, {"text": "".join(COMPLETED), "finish_reason": "length"}, _USAGE),
            (*wires.text_frames(_TEXT, _USAGE, usage=None), wires.DONE),
            replace(USUAL["completions"], usage=_COUNTED),
        ),
        "vectors": Exchange(_EMBEDDINGS, wires.embeddings(base64=True), answer=USUAL["vectors"]),
        "floats": Exchange(_EMBEDDINGS, wires.embeddings(base64=False), answer=USUAL["floats"]),
        "tokens": Exchange(_EMBEDDINGS, wires.embeddings(base64=True), answer=USUAL["tokens"]),
    },
    key=("authorization", "Bearer sekret"),
    models=("/v1/models", wires.models("m", "ft:m:acme"), frozenset({"m", "ft:m:acme"})),
    refusals={
        "invalid": Refusal(
            400,
            wires.error("We could not parse it.", "invalid_request_error", "invalid_value", "messages"),
            errors.BadRequest,
            param="messages",
        ),
        "unsupported": Refusal(
            400,
            wires.error("Unsupported value.", "invalid_request_error", "unsupported_value", "temperature"),
            errors.UnsupportedParameter,
            param="temperature",
        ),
        "context": Refusal(
            400,
            wires.error("Too many.", "invalid_request_error", "context_length_exceeded", "messages"),
            errors.ContextTooLong,
            param="messages",
        ),
        "filtered": Refusal(
            400,
            wires.error("Flagged.", "invalid_request_error", "content_policy_violation"),
            errors.ContentFiltered,
        ),
        "key": Refusal(
            401,
            wires.error("Wrong key: sk-abcd1234.", "invalid_request_error", "invalid_api_key"),
            errors.BackendCredentials,
        ),
        "country": Refusal(
            403,
            wires.error("Not here.", "request_forbidden", "unsupported_country_region_territory"),
            errors.BackendCredentials,
        ),
        "model": Refusal(
            404,
            wires.error("The model `m` does not exist.", "invalid_request_error", "model_not_found"),
            errors.ModelNotFound,
            param="model",
        ),
        "body": Refusal(413, wires.error("Too large."), errors.BodyTooLarge),
        "rate": Refusal(
            429,
            wires.error("Slow down.", "requests", "rate_limit_exceeded"),
            errors.BackendRateLimited,
            {"retry-after": "2", "retry-after-ms": "1500"},
            retry_after=1.5,
        ),
        "rate for an hour": Refusal(
            429,
            wires.error("Slow down.", "tokens", "rate_limit_exceeded"),
            errors.BackendRateLimited,
            {"retry-after": "3600"},
            retry_after=60.0,
        ),
        "quota": Refusal(
            429,
            wires.error("Pay.", "insufficient_quota", "insufficient_quota"),
            errors.BackendQuotaExceeded,
            {"retry-after": "5"},
        ),
        "broken": Refusal(500, wires.error("Sorry.", "server_error"), errors.BackendError),
        "edge": Refusal(
            502,
            b"<html>\n<title>502 Bad Gateway</title></html>",
            errors.BackendError,
            {"content-type": "text/html"},
        ),
        "slow": Refusal(504, b"", errors.BackendTimeout),
        "busy": Refusal(
            503,
            wires.error("Busy.", "server_error"),
            errors.BackendOverloaded,
            {"retry-after": "7"},
            retry_after=7.0,
        ),
    },
    hidden={"error": Refusal(200, _ERROR, errors.BackendError)},
    broken={
        "error": Broken(_BEGUN + wires.sse(_ERROR), errors.BackendError),
        "error, then done": Broken(_BEGUN + wires.sse(_ERROR) + wires.DONE, errors.BackendError),
        "error at once": Broken(
            wires.sse(wires.error("Slow down.", "requests", "rate_limit_exceeded")),
            errors.BackendRateLimited,
        ),
    },
    wishes=wires.wishes("max_completion_tokens"),
)
