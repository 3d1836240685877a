"""vLLM: `reasoning`, a `stop_reason` of its own, usage without details, keep-alive comments, errors in four
shapes."""

from __future__ import annotations

from typing import Any

from conformance import openai_wires as wires
from conformance.cases import COMPLETED, USUAL, Broken, Exchange, Refusal, Table
from k9_broker import errors
from k9_broker.health import Load

_USAGE = {**wires.USAGE, "prompt_tokens_details": None}
_HEAD = {"id": "chatcmpl-9f", "object": "chat.completion.chunk", "created": 1763850000, "model": "m"}
_TEXT = {**_HEAD, "id": "cmpl-9f", "object": "text_completion"}
_ALIVE = b": keep-alive\n\n"


def _chat(case: str) -> Exchange:
    message = {
        **wires.message(case, "reasoning"),
        "refusal": None,
        "annotations": None,
        "audio": None,
        "function_call": None,
    }
    ended = wires.reason(case)
    said = wires.deltas(case, "reasoning")
    frames = [
        wires.frame(_HEAD, {"delta": delta, "logprobs": None, "finish_reason": None, "token_ids": None})
        for delta in said
    ]
    end = {"delta": {"content": ""}, "logprobs": None, "finish_reason": ended, "stop_reason": None}
    return Exchange(
        "/v1/chat/completions",
        wires.whole(
            {**_HEAD, "object": "chat.completion"},
            {"message": message, "finish_reason": ended, "stop_reason": 128009, "token_ids": None},
            {**_USAGE, "completion_tokens_details": None},
            prompt_logprobs=None,
            kv_transfer_params=None,
        ),
        (
            _ALIVE,
            *frames,
            _ALIVE,
            wires.frame(_HEAD, end),
            wires.frame(_HEAD, None, usage=_USAGE),
            wires.DONE,
        ),
        USUAL[case],
    )


def _vectors(*, base64: bool) -> Exchange:
    usage = {"prompt_tokens": 4, "total_tokens": 4, "completion_tokens": 0, "prompt_tokens_details": None}
    body = wires.embeddings(base64=base64, id="embd-1", created=1763850000, usage=usage)
    return Exchange("/v1/embeddings", body, answer=USUAL["vectors"])


def _error(message: str, kind: str, code: int, param: str | None = None) -> dict[str, Any]:
    return wires.error(message, kind, code, param)


_METRICS = b"""# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 2.0
vllm:num_requests_waiting{engine="0",model_name="m"} 4.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.75
vllm:prompt_tokens_total{engine="0",model_name="m"} 99.0
"""
_BEGUN = b"".join(_chat("text").stream[:3])
_DEAD = _error("EngineCore encountered an issue.", "InternalServerError", 500)
TABLE = Table(
    "vllm",
    {
        **{case: _chat(case) for case in ("text", "tool", "parallel", "schema", "reasoning")},
        "completions": Exchange(
            "/v1/completions",
            wires.whole(
                _TEXT, {"text": "".join(COMPLETED), "finish_reason": "length", "stop_reason": None}, _USAGE
            ),
            (*wires.text_frames(_TEXT, _USAGE), wires.DONE),
            USUAL["completions"],
        ),
        "vectors": _vectors(base64=True),
        "floats": _vectors(base64=False),
        "tokens": _vectors(base64=True),
    },
    key=("authorization", "Bearer sekret"),
    models=(
        "/v1/models",
        wires.models("m", "adapter", max_model_len=8192, root="m", parent=None),
        frozenset({"m", "adapter"}),
    ),
    load=("/metrics", _METRICS, Load(running=5, waiting=4, saturation=0.5)),
    refusals={
        "invalid": Refusal(
            400,
            _error("1 validation error: temperature", "Bad Request", 400, "temperature"),
            errors.BadRequest,
            param="temperature",
        ),
        "invalid, of old": Refusal(
            400,
            {"object": "error", "message": "No.", "type": "BadRequestError", "param": None, "code": 400},
            errors.BadRequest,
        ),
        "context": Refusal(
            400,
            _error(
                "This model's maximum context length is 8192 tokens.", "BadRequestError", 400, "input_tokens"
            ),
            errors.ContextTooLong,
            param="input_tokens",
        ),
        "key": Refusal(401, {"error": "Unauthorized"}, errors.BackendCredentials),
        "model": Refusal(
            404,
            _error("The model `m` does not exist.", "NotFoundError", 404, "model"),
            errors.ModelNotFound,
            param="model",
        ),
        "route": Refusal(404, {"detail": "Not Found"}, errors.BadRequest),
        "broken": Refusal(500, _DEAD, errors.BackendError),
        "busy": Refusal(
            503,
            _error("The engine is currently busy.", "Service Unavailable", 503),
            errors.BackendOverloaded,
        ),
    },
    never=frozenset(
        {
            *(errors.UnsupportedParameter, errors.ContentFiltered, errors.BodyTooLarge),
            *(errors.BackendRateLimited, errors.BackendQuotaExceeded, errors.BackendTimeout),
        }
    ),
    hidden={"error": Refusal(200, _DEAD, errors.BackendError)},
    broken={
        "error, then done": Broken(_BEGUN + wires.sse(_DEAD) + wires.DONE, errors.BackendError),
        "busy at once": Broken(
            wires.sse(_error("The engine is currently busy.", "Service Unavailable", 503)) + wires.DONE,
            errors.BackendOverloaded,
        ),
    },
    wishes=wires.wishes("max_completion_tokens"),
)
