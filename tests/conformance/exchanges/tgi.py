"""TGI, and TEI for embeddings: no ids, the role in every delta, one call at most, errors of status 200."""

from __future__ import annotations

from typing import Any

from conformance import openai_wires as wires
from conformance.cases import (
    ARGUMENTS,
    COMPLETED,
    ROWS,
    SCHEMA,
    USUAL,
    Absent,
    Broken,
    Exchange,
    Refusal,
    Table,
    Wished,
    tool,
)
from k9_broker import errors
from k9_broker.health import Load
from replaying import dump

_HEAD = {
    "object": "chat.completion.chunk",
    "id": "",
    "created": 1763850000,
    "model": "org/m",
    "system_fingerprint": "3.3.6-dev0-native",
}
_CALL = {"index": 0, "id": "0", "type": "function"}
_CHAT = "/v1/chat/completions"


def _frame(at: int, delta: wires.Json, reason: str | None = None) -> bytes:
    choice = {"delta": {"role": "assistant", **delta}, "logprobs": None, "finish_reason": reason}
    return wires.frame({**_HEAD, "created": 1763850000 + at}, choice, usage=None)


def _whole(message: wires.Json, reason: str) -> bytes:
    return wires.whole({**_HEAD, "object": "chat.completion"}, {"message": message, "finish_reason": reason})


def _texts(case: str, reason: str) -> Exchange:
    said = [_frame(at, {"content": piece}) for at, piece in enumerate(wires.PIECES[case])]
    usage = wires.frame(_HEAD, None, usage=wires.USAGE)
    stream = (*said, _frame(9, {"content": ""}, reason), b":\n\n", usage, wires.DONE)
    return Exchange(_CHAT, _whole(wires.message(case), reason), stream, USUAL[case])


def _tool(arguments: Any) -> Exchange:
    """The id in every piece, a finish reason that tells of no tool, or none at all."""
    function = {"description": None, "name": "weather", "arguments": arguments}
    pieces = [
        {"tool_calls": [{**_CALL, "function": {"name": name, "arguments": piece}}]}
        for name, piece in zip(("weather", None), ARGUMENTS, strict=True)
    ]
    said = [_frame(at, piece) for at, piece in enumerate(pieces)]
    message = {
        "role": "assistant",
        "tool_calls": [{"id": "0", "type": "function", "function": function}],
    }
    stream = (*said, wires.frame(_HEAD, None, usage=wires.USAGE), wires.DONE)
    return Exchange(_CHAT, _whole(message, "stop"), stream, USUAL["tool"])


def _token(index: int, text: str, *, special: bool = False, **more: Any) -> bytes:
    token = {"id": 5, "text": text, "logprob": -0.1, "special": special}
    return b"data:" + dump({"index": index, "token": token, "generated_text": None, "details": None, **more})


_LAST = {"finish_reason": "length", "generated_tokens": 7, "input_length": 12, "seed": None}
_COMPLETIONS = Exchange(
    "/generate",
    dump(
        {
            "generated_text": "".join(COMPLETED),
            "details": {"finish_reason": "length", "generated_tokens": 7, "prefill": [], "tokens": []},
        }
    ),
    (
        _token(1, "<s>", special=True) + b"\n\n",
        _token(2, COMPLETED[0]) + b"\n\n",
        _token(3, COMPLETED[1], generated_text="".join(COMPLETED), details=_LAST) + b"\n\n",
    ),
    USUAL["completions"],
    stream_path="/generate_stream",
    headers={"x-prompt-tokens": "12", "x-generated-tokens": "7", "x-compute-type": "1-a10g"},
)
_VECTORS = Exchange("/embed", dump(ROWS), answer=USUAL["vectors"], headers={"x-compute-tokens": "4"})


def _error(message: str, kind: str) -> dict[str, str]:
    return {"error": message, "error_type": kind}


_BUSY = _error("Model is overloaded", "overloaded")
_METRICS = b"""# TYPE tgi_queue_size gauge
tgi_queue_size 3
# TYPE tgi_batch_current_size gauge
tgi_batch_current_size 8
tgi_request_failure{err="overloaded"} 4
"""
_BEGUN = b"".join(_texts("text", "stop").stream[:2])
_MIDWAY = b"".join(_COMPLETIONS.stream[:2])
_WISHED = {
    "model": "tgi",
    "messages": [{"role": "user", "content": "Wetter?"}],
    "stream": False,
    "temperature": 1.2,
    "stop": ["END"],
    "max_tokens": 64,
    "seed": 7,
}
TABLE = Table(
    "tgi",
    {
        "text": _texts("text", "stop_sequence"),
        "tool": _tool("".join(ARGUMENTS)),
        "parallel": _tool({"city": "Zürich"}),  # it makes one call, however many tools there are
        "schema": _texts("schema", "stop"),
        "reasoning": Absent("reasoning_effort"),
        "completions": _COMPLETIONS,
        "vectors": _VECTORS,
        "floats": _VECTORS,
        "tokens": Exchange("/v1/embeddings", wires.embeddings(base64=True), answer=USUAL["tokens"]),
    },
    key=("authorization", "Bearer sekret"),
    models=(
        "/info",
        dump({"model_id": "org/m", "max_total_tokens": 4096, "max_concurrent_requests": 128}),
        frozenset({"org/m"}),
    ),
    load=("/metrics", _METRICS, Load(running=8, waiting=3)),
    refusals={
        "invalid": Refusal(
            422, _error("Input validation error: `top_p` must be < 1.0", "validation"), errors.BadRequest
        ),
        "unreadable": Refusal(
            422,
            b"Failed to deserialize the JSON body into the target type: stop: invalid type: string",
            errors.BadRequest,
            {"content-type": "text/plain; charset=utf-8"},
        ),
        "context": Refusal(
            422,
            _error(
                "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000",
                "validation",
            ),
            errors.ContextTooLong,
        ),
        "context of embeddings": Refusal(
            422,
            _error("Input validation error: `inputs` must have less than 512 tokens.", "Validation"),
            errors.ContextTooLong,
            case="vectors",
        ),
        "too many embeddings": Refusal(
            422,
            {"message": "batch size 33 > maximum allowed batch size 32", "code": 422, "type": "Validation"},
            errors.BadRequest,
            case="tokens",
        ),
        "key": Refusal(401, b"", errors.BackendCredentials),
        "body": Refusal(
            413, b"length limit exceeded", errors.BodyTooLarge, {"content-type": "text/plain; charset=utf-8"}
        ),
        "worker": Refusal(424, _error("Request failed during generation", "generation"), errors.BackendError),
        "broken": Refusal(500, _error("Incomplete generation", "incomplete_generation"), errors.BackendError),
        "busy": Refusal(429, _BUSY, errors.BackendOverloaded),
        "busy with embeddings": Refusal(
            429, _error("Model is overloaded", "Overloaded"), errors.BackendOverloaded, case="vectors"
        ),
        "ill": Refusal(503, _error("unhealthy", "healthcheck"), errors.BackendOverloaded),
    },
    never=frozenset(
        {
            *(errors.UnsupportedParameter, errors.ContentFiltered, errors.ModelNotFound),
            *(errors.BackendRateLimited, errors.BackendQuotaExceeded, errors.BackendTimeout),
        }
    ),
    hidden={
        "busy": Refusal(200, _BUSY, errors.BackendOverloaded),
        "busy with a completion": Refusal(200, _BUSY, errors.BackendOverloaded, case="completions"),
        "busy with embeddings": Refusal(200, _BUSY, errors.BackendOverloaded, case="vectors"),
    },
    broken={
        "busy, then done": Broken(
            wires.sse({"error": {"message": "Model is overloaded", "http_status_code": 422}}) + wires.DONE,
            errors.BackendOverloaded,
        ),
        "error, then done": Broken(
            _BEGUN
            + wires.sse({"error": {"message": "Request failed", "http_status_code": 422}})
            + wires.DONE,
            errors.BackendError,
        ),
        "busy at once": Broken(wires.sse(_BUSY), errors.BackendOverloaded, case="completions"),
        "error midway": Broken(
            _MIDWAY + wires.sse(_error("Request failed during generation", "generation")),
            errors.BackendError,
            case="completions",
        ),
    },
    wishes={
        "everything": Wished(
            {**_WISHED, "tools": [tool("weather")], "tool_choice": "required"}, ("response_format",)
        ),
        "without tools": Wished({**_WISHED, "response_format": {"type": "json", "value": SCHEMA}}),
    },
)
