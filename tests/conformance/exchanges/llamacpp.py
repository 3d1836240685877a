"""llama.cpp's server: `reasoning_content`, `timings`, error codes that are numbers, a model that loads."""

from __future__ import annotations

from typing import Any

from conformance import openai_wires as wires
from conformance.cases import COMPLETED, USUAL, Broken, Exchange, Refusal, Table
from k9_broker import errors
from k9_broker.health import Load
from replaying import dump

_TIMINGS = {"cache_n": 0, "prompt_n": 12, "prompt_ms": 30.958, "predicted_n": 7, "predicted_ms": 661.064}
_HEAD = {
    "created": 1763850000,
    "id": "chatcmpl-xyz",
    "model": "m",
    "system_fingerprint": "b9-1",
    "object": "chat.completion.chunk",
}
_TEXT = {**_HEAD, "object": "text_completion", "id": "cmpl-xyz"}


def _chat(case: str) -> Exchange:
    ended = wires.reason(case)
    said = wires.deltas(case, "reasoning_content")
    said[0] = {"role": "assistant", "content": None}
    *frames, usage = wires.chat_frames(_HEAD, said, ended)
    message = wires.message(case, "reasoning_content")
    return Exchange(
        "/v1/chat/completions",
        wires.whole(
            {**_HEAD, "object": "chat.completion"},
            {"message": message, "finish_reason": ended},
            timings=_TIMINGS,
        ),
        (b":\n\n", *frames, usage, wires.DONE),
        USUAL[case],
    )


def _error(code: int, message: str, kind: str, **more: Any) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "type": kind, **more}}


_LOADING = _error(503, "Loading model", "unavailable_error")
_BROKEN = _error(500, "Compute error.", "server_error")
_BEGUN = b"".join(_chat("text").stream[:3])
_SLOTS = [{"id": at, "n_ctx": 4096, "is_processing": at == 1} for at in range(4)]
TABLE = Table(
    "llama.cpp",
    {
        **{case: _chat(case) for case in ("text", "tool", "parallel", "schema", "reasoning")},
        "completions": Exchange(
            "/v1/completions",
            wires.whole(_TEXT, {"text": "".join(COMPLETED), "finish_reason": "length"}, timings=_TIMINGS),
            (*wires.text_frames(_TEXT), wires.DONE),
            USUAL["completions"],
        ),
        "vectors": Exchange("/v1/embeddings", wires.embeddings(base64=True), answer=USUAL["vectors"]),
        "floats": Exchange("/v1/embeddings", wires.embeddings(base64=False), answer=USUAL["floats"]),
        "tokens": Exchange("/v1/embeddings", wires.embeddings(base64=False), answer=USUAL["tokens"]),
    },
    key=("authorization", "Bearer sekret"),
    models=(
        "/v1/models",
        wires.models("/models/a.gguf", meta={"n_ctx_train": 4096}),
        frozenset({"/models/a.gguf"}),
    ),
    load=("/slots", dump(_SLOTS), Load(running=1, slots=4)),
    refusals={
        "invalid": Refusal(
            400, _error(400, "'messages' is required", "invalid_request_error"), errors.BadRequest
        ),
        "context": Refusal(
            400,
            _error(
                400,
                "the request exceeds the available context size, try increasing it",
                "exceed_context_size_error",
                n_prompt_tokens=5000,
                n_ctx=4096,
            ),
            errors.ContextTooLong,
        ),
        "key": Refusal(
            401, _error(401, "Invalid API Key", "authentication_error"), errors.BackendCredentials
        ),
        "model, of a router": Refusal(
            400,
            _error(400, "model 'm' not found", "invalid_request_error"),
            errors.ModelNotFound,
            param="model",
        ),
        "cannot": Refusal(
            501, _error(501, "It does not do that.", "not_supported_error"), errors.UnsupportedParameter
        ),
        "images": Refusal(
            500, _error(500, "image input is not supported", "server_error"), errors.UnsupportedParameter
        ),
        "broken": Refusal(500, _BROKEN, errors.BackendError),
        "loading": Refusal(503, _LOADING, errors.BackendOverloaded),
    },
    never=frozenset(
        {
            *(errors.ContentFiltered, errors.BodyTooLarge, errors.BackendRateLimited),
            *(errors.BackendQuotaExceeded, errors.BackendTimeout),
        }
    ),
    hidden={"error": Refusal(200, _BROKEN, errors.BackendError)},
    broken={
        "error": Broken(_BEGUN + wires.sse(_BROKEN), errors.BackendError),
        "error, then done": Broken(_BEGUN + wires.sse(_BROKEN) + wires.DONE, errors.BackendError),
        "error event": Broken(
            _BEGUN + b"event: error\n" + wires.sse(_LOADING["error"]), errors.BackendOverloaded
        ),
    },
    wishes=wires.wishes("max_tokens"),
)
