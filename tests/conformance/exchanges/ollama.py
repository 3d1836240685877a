"""Ollama's own API: lines of JSON, calls whole and without ids, arguments objects, zero counters left out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from conformance.cases import (
    COMPLETED,
    ROWS,
    SCHEMA,
    SPOKEN,
    THOUGHT,
    USUAL,
    Absent,
    Broken,
    Exchange,
    Refusal,
    Row,
    Table,
    Wished,
)
from conformance.openai_wires import PIECES
from k9_broker import errors
from k9_broker.health import Load
from k9_broker.results import Usage
from replaying import dump

_COUNTERS = {
    "total_duration": 5191566416,
    "load_duration": 2154458,
    "prompt_eval_count": 12,
    "prompt_eval_duration": 383809000,
    "eval_count": 7,
    "eval_duration": 4799921000,
}
_WEATHER = {"function": {"name": "weather", "arguments": {"city": "Zürich"}}}
_CLOCK = {"function": {"index": 1, "name": "clock", "arguments": {}}}
_CALLS: dict[str, list[dict[str, Any]]] = {"tool": [_WEATHER], "parallel": [_WEATHER, _CLOCK]}


def _object(body: dict[str, Any], *, done: bool, reason: str = "stop", **more: Any) -> bytes:
    head = {"model": "m", "created_at": "2026-01-01T00:00:00.123456789Z", **body, "done": done}
    return dump({**head, **({"done_reason": reason, **_COUNTERS} if done else {}), **more})


def _message(**said: Any) -> dict[str, Any]:
    return {"message": {"role": "assistant", "content": "", **said}}


def _chat(case: str) -> Exchange:
    if case in _CALLS:
        whole = _message(tool_calls=_CALLS[case])
        pieces = [_message(tool_calls=[one]) for one in _CALLS[case]]
    elif case == "reasoning":
        whole = _message(content="".join(SPOKEN), thinking="".join(THOUGHT))
        pieces = [_message(thinking=one) for one in THOUGHT] + [_message(content=one) for one in SPOKEN]
    else:
        whole = _message(content="".join(PIECES[case]))
        pieces = [_message(content=one) for one in PIECES[case]]
    lines = (*(_object(piece, done=False) for piece in pieces), _object(_message(), done=True))
    return Exchange(
        "/api/chat", _object(whole, done=True), tuple(line + b"\n" for line in lines), USUAL[case]
    )


def _warm(found: Exchange) -> Exchange:
    """The same with a prompt that is all in the cache: its counter is 0, and left out."""
    counter = b'"prompt_eval_count":12,'
    return replace(
        found,
        whole=found.whole.replace(counter, b""),
        stream=tuple(line.replace(counter, b"") for line in found.stream),
        answer=replace(found.answer, usage=Usage(0, 7)),
    )


_VECTORS = Exchange(
    "/api/embed",
    dump({"model": "m", "embeddings": ROWS, "total_duration": 14143917, "prompt_eval_count": 4}),
    answer=USUAL["vectors"],
)
_ROWS: dict[str, Row] = {
    **{case: _chat(case) for case in ("text", "tool", "parallel", "reasoning")},
    "schema": _warm(_chat("schema")),
    "completions": Exchange(
        "/api/generate",
        _object({"response": "".join(COMPLETED)}, done=True, reason="length", context=[1, 2]),
        (
            *(_object({"response": piece}, done=False) + b"\n" for piece in COMPLETED),
            _object({"response": ""}, done=True, reason="length") + b"\n",
        ),
        USUAL["completions"],
    ),
    "vectors": _VECTORS,
    "floats": _VECTORS,
    "tokens": Absent("input"),
}
_DIED = {"error": "llama runner process no longer running: 1"}
_BEGUN = b"".join(_chat("text").stream[:2])


def _wished(**more: Any) -> dict[str, Any]:
    options = {"temperature": 1.2, "num_predict": 64, "seed": 7, "stop": ["END"]}
    head = {"model": "m", "truncate": False, "shift": False, "stream": False, "options": options}
    return {**head, "messages": [{"role": "user", "content": "Wetter?"}], "format": SCHEMA, **more}


def _tool() -> dict[str, Any]:
    function = {"name": "weather", "description": "d", "parameters": SCHEMA}
    return {"type": "function", "function": function}


TABLE = Table(
    "ollama",
    _ROWS,
    key=("authorization", "Bearer sekret"),
    models=(
        "/api/tags",
        dump({"models": [{"name": "m:latest", "model": "m:latest"}, {"name": "org/m:7b"}]}),
        frozenset({"m", "m:latest", "org/m:7b"}),
    ),
    load=(
        "/api/ps",
        dump({"models": [{"name": "m:latest", "size_vram": 1}]}),
        Load(loaded=("m:latest", "m")),
    ),
    comments=False,
    refusals={
        "invalid": Refusal(400, {"error": "missing request body"}, errors.BadRequest),
        "no tools": Refusal(
            400, {"error": '"m" does not support tools'}, errors.UnsupportedParameter, param="tools"
        ),
        "no thinking": Refusal(
            400,
            {"error": '"m" does not support thinking'},
            errors.UnsupportedParameter,
            param="reasoning_effort",
        ),
        "context": Refusal(
            400,
            {"error": "the prompt is longer than the context length"},
            errors.ContextTooLong,
        ),
        "context of embeddings": Refusal(
            400,
            {"error": "the input length exceeds the context length"},
            errors.ContextTooLong,
            case="vectors",
        ),
        "key": Refusal(401, {"error": "unauthorized"}, errors.BackendCredentials),
        "model": Refusal(404, {"error": "model 'm' not found"}, errors.ModelNotFound, param="model"),
        "rate": Refusal(
            429, {"error": "too many requests"}, errors.BackendRateLimited, {"retry-after": "3"}, 3.0
        ),
        "broken": Refusal(500, _DIED, errors.BackendError),
        "cloud": Refusal(502, {"error": "cloud unreachable"}, errors.BackendError),
        "busy": Refusal(
            503,
            {"error": "server busy, please try again.  maximum pending requests exceeded"},
            errors.BackendOverloaded,
        ),
    },
    never=frozenset(
        {
            *(errors.ContentFiltered, errors.BodyTooLarge),
            *(errors.BackendQuotaExceeded, errors.BackendTimeout),
        }
    ),
    hidden={
        "error": Refusal(200, _DIED, errors.BackendError),
        "only loaded": Refusal(200, _object(_message(), done=True, done_reason="load"), errors.BackendError),
        "not done": Refusal(200, _object(_message(content="a"), done=False), errors.StreamTruncated),
        "no embedding": Refusal(200, {"model": "m", "embeddings": []}, errors.BackendError, case="vectors"),
    },
    broken={
        "error": Broken(_BEGUN + dump(_DIED) + b"\n", errors.BackendError),
        "error, then done": Broken(
            _BEGUN + dump(_DIED) + b"\n" + _chat("text").stream[-1], errors.BackendError
        ),
        "error midway": Broken(
            _object({"response": "a"}, done=False) + b"\n" + dump(_DIED), errors.BackendError, "completions"
        ),
    },
    wishes={
        "everything": Wished(_wished(tools=[_tool()]), ("tool_choice",)),
        "without tools": Wished(_wished()),
    },
)
