"""Anthropic: named events, blocks, cumulative usage without what the cache held, signed thinking."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from conformance.cases import (
    ARGUMENTS,
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
from k9_broker.results import Usage
from replaying import dump

Json = dict[str, Any]
_COUNTED = Usage(12, 7, cached=6, written=4)
_USAGE = {
    "input_tokens": 2,
    "cache_creation_input_tokens": 4,
    "cache_read_input_tokens": 6,
    "output_tokens": 7,
    "service_tier": "standard",
}
_HEAD = {"id": "msg_01", "type": "message", "role": "assistant", "model": "claude-m"}
_SEALED = {"type": "redacted_thinking", "data": "b3BhcXVl"}
_STOPS = {"tool": "tool_use", "parallel": "tool_use"}
_PING = {"type": "ping"}


def _event(event: Json) -> bytes:
    return f"event: {event['type']}\ndata: ".encode() + dump(event) + b"  \n\n"


def _block(index: int, start: Json, *deltas: Json) -> list[Json]:
    return [
        {"type": "content_block_start", "index": index, "content_block": start},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def _said(index: int, kind: str, word: str, pieces: tuple[str, ...], signature: str = "") -> list[Json]:
    start: Json = {"type": kind, word: "", **({"signature": ""} if signature else {})}
    sealed = [{"type": "signature_delta", "signature": signature}] if signature else []
    return _block(index, start, *({"type": f"{kind}_delta", word: piece} for piece in pieces), *sealed)


def _use(index: int, call_id: str, name: str, pieces: tuple[str, ...]) -> list[Json]:
    start = {"type": "tool_use", "id": call_id, "name": name, "input": {}}
    deltas = ({"type": "input_json_delta", "partial_json": piece} for piece in pieces)
    return _block(index, start, *deltas)


def _blocks(case: str) -> list[Json]:
    if case == "reasoning":
        return [
            *_said(0, "thinking", "thinking", THOUGHT, "c2ln"),
            *_block(1, _SEALED),
            *_said(2, "text", "text", SPOKEN),
        ]
    weather = _use(0, "toolu_1", "weather", ("", *ARGUMENTS))
    if case == "tool":
        return weather
    if case == "parallel":
        return [*weather, *_use(1, "toolu_2", "clock", ())]
    return _said(0, "text", "text", tuple(PIECES[case]))


def _content(case: str) -> list[Json]:
    weather = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Zürich"}}
    clock = {"type": "tool_use", "id": "toolu_2", "name": "clock", "input": {}}
    thought = {"type": "thinking", "thinking": "".join(THOUGHT), "signature": "c2ln"}
    if case == "reasoning":
        return [thought, _SEALED, {"type": "text", "text": "".join(SPOKEN)}]
    if case in _STOPS:
        return [weather, clock][: 1 if case == "tool" else 2]
    return [{"type": "text", "text": "".join(PIECES[case])}]


def _chat(case: str) -> Exchange:
    ended = {"stop_reason": _STOPS.get(case, "end_turn"), "stop_sequence": None}
    start = {**_HEAD, "content": [], "stop_reason": None, "usage": {**_USAGE, "output_tokens": 1}}
    events: list[Json] = [
        {"type": "message_start", "message": start},
        _PING,
        *_blocks(case),
        {"type": "something_new", "of": "tomorrow"},
        {"type": "message_delta", "delta": ended, "usage": {"output_tokens": 7}},
        {"type": "message_stop"},
    ]
    return Exchange(
        "/v1/messages",
        dump({**_HEAD, "content": _content(case), **ended, "usage": _USAGE}),
        tuple(map(_event, events)),
        replace(
            USUAL[case],
            usage=_COUNTED,
            sealed=("c2ln", "b3BhcXVl") if case == "reasoning" else (),
        ),
    )


def _error(kind: str, message: str, **more: Any) -> Json:
    return {"type": "error", "error": {"type": kind, "message": message, **more}, "request_id": "req_1"}


_BEGUN = b"".join(_chat("text").stream[:4])
_BUSY = _error("overloaded_error", "Overloaded")
_WISHED = {
    "model": "m",
    "messages": [{"role": "user", "content": [{"type": "text", "text": "Wetter?"}]}],
    "temperature": 1,  # the highest there is
    "stop_sequences": ["END"],
    "max_tokens": 64,
    "metadata": {"user_id": "u-1"},
    "output_config": {"format": {"type": "json_schema", "schema": {**SCHEMA, "additionalProperties": False}}},
}
_ROWS: dict[str, Row] = {
    **{case: _chat(case) for case in ("text", "tool", "parallel", "schema", "reasoning")},
    "completions": Absent("prompt"),
    "vectors": Absent("input"),
    "floats": Absent("input"),
    "tokens": Absent("input"),
}
_LISTED = [{"type": "model", "id": one, "display_name": one} for one in ("claude-m", "claude-n")]
TABLE = Table(
    "anthropic",
    _ROWS,
    key=("x-api-key", "sekret"),
    models=(
        "/v1/models?limit=1000",
        dump({"data": _LISTED, "has_more": False, "first_id": "claude-m", "last_id": "claude-n"}),
        frozenset({"claude-m", "claude-n"}),
    ),
    refusals={
        "invalid": Refusal(
            400,
            _error("invalid_request_error", "messages: Field required"),
            errors.BadRequest,
            param="messages",
        ),
        "unsupported": Refusal(
            400,
            _error("invalid_request_error", "temperature: Extra inputs are not permitted"),
            errors.UnsupportedParameter,
            param="temperature",
        ),
        "context": Refusal(
            400,
            _error("invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum"),
            errors.ContextTooLong,
        ),
        "key": Refusal(401, _error("authentication_error", "invalid x-api-key"), errors.BackendCredentials),
        "bill": Refusal(402, _error("billing_error", "Pay."), errors.BackendQuotaExceeded),
        "forbidden": Refusal(403, _error("permission_error", "No."), errors.BackendCredentials),
        "model": Refusal(404, _error("not_found_error", "model: m"), errors.ModelNotFound, param="model"),
        "conflict": Refusal(409, _error("conflict_error", "Again."), errors.BackendError),
        "body": Refusal(413, _error("request_too_large", "Too large."), errors.BodyTooLarge),
        "rate": Refusal(
            429,
            _error("rate_limit_error", "Slow down."),
            errors.BackendRateLimited,
            {"retry-after": "21"},
            21.0,
        ),
        "spent": Refusal(429, _error("rate_limit_error", "Spent."), errors.BackendQuotaExceeded),
        "broken": Refusal(500, _error("api_error", "Sorry."), errors.BackendError),
        "slow": Refusal(504, _error("timeout_error", "Slow."), errors.BackendTimeout),
        "busy": Refusal(529, _BUSY, errors.BackendOverloaded, {"retry-after": "2"}, 2.0),
    },
    never=frozenset({errors.ContentFiltered}),
    hidden={"busy": Refusal(200, _BUSY, errors.BackendOverloaded)},
    broken={
        "busy": Broken(_BEGUN + _event(_BUSY), errors.BackendOverloaded),
        "rate": Broken(_BEGUN + _event(_error("rate_limit_error", "Slow down.")), errors.BackendRateLimited),
        "busy at once": Broken(_event(_PING) + _event(_BUSY), errors.BackendOverloaded),
        "broken, then the end": Broken(
            _BEGUN + _event(_error("api_error", "Sorry.")) + _chat("text").stream[-1], errors.BackendError
        ),
    },
    wishes={
        "everything": Wished(
            {
                **_WISHED,
                "tools": [{"name": "weather", "description": "d", "input_schema": SCHEMA}],
                "tool_choice": {"type": "any"},
            },
            ("seed",),
        ),
        "without tools": Wished(_WISHED, ("seed",)),
    },
)
