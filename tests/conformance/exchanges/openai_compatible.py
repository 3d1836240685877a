"""Any server of OpenAI's family, at its worst: each exchange has something that was seen in the wild."""

from __future__ import annotations

from conformance import openai_wires as wires
from conformance.cases import (
    ARGUMENTS,
    COMPLETED,
    JSON_TEXT,
    SPOKEN,
    TEXT,
    THOUGHT,
    USUAL,
    Broken,
    Exchange,
    Refusal,
    Table,
)
from k9_broker import errors
from replaying import dump

_HEAD = {"id": "gen-1", "object": "chat.completion.chunk", "created": 1763850000, "model": "m"}
_WHOLE = {**_HEAD, "object": "chat.completion"}
_TEXT = {**_HEAD, "object": "text_completion"}
_CITY = {"city": "Zürich"}
_ROLE = {"role": "assistant", "content": ""}


def _frame(delta: dict, reason: object = None, **more: object) -> bytes:
    return wires.frame(_HEAD, {"delta": delta, "finish_reason": reason}, **more)


def _whole(case: str, *, reason: object = "stop", reasoning: str | None = None) -> bytes:
    return wires.whole(_WHOLE, {"message": wires.message(case, reasoning), "finish_reason": reason})


_CHAT = "/v1/chat/completions"
_FAILED = {"error": {"code": 502, "message": "Provider returned error", "metadata": {"provider_name": "p"}}}
_BEGUN = _frame(_ROLE) + _frame({"content": TEXT[0]})
TABLE = Table(
    "openai-compatible",
    {
        # Usage in every frame, the finish reason empty and then said twice, no `[DONE]`.
        "text": Exchange(
            _CHAT,
            _whole("text", reason="eos"),
            (
                *(
                    _frame({"role": "assistant", "content": piece}, "", usage={**wires.USAGE, "x": 1})
                    for piece in TEXT
                ),
                _frame({}, "stop", usage=wires.USAGE),
                _frame({}, "stop", usage=wires.USAGE),
            ),
            USUAL["text"],
        ),
        # No index; the id and the name in every piece; a reason that says nothing of tools.
        "tool": Exchange(
            _CHAT,
            wires.whole(
                _WHOLE,
                {
                    "message": {**_ROLE, "tool_calls": [wires.call(0, "0", "weather", _CITY)]},
                    "finish_reason": "stop",
                },
            ),
            (
                _frame({**_ROLE, "tool_calls": [wires.call(None, "c9", "weather", ARGUMENTS[0])]}),
                _frame({"tool_calls": [wires.call(None, "c9", "weather", ARGUMENTS[1])]}),
                _frame({}, "stop"),
                wires.sse({"choices": None, "usage": wires.USAGE}),
                wires.DONE,
            ),
            USUAL["tool"],
        ),
        # Both calls whole and in one delta, under one index, their arguments objects; no reason at all.
        "parallel": Exchange(
            _CHAT,
            wires.whole(
                _WHOLE,
                {
                    "message": {
                        "role": "assistant",
                        "tool_calls": [
                            wires.call(None, None, "weather", _CITY),
                            wires.call(None, None, "clock", {}),
                        ],
                    },
                },
            ),
            (
                _frame(
                    {
                        "role": "assistant",
                        "tool_calls": [
                            wires.call(0, None, "weather", _CITY),
                            wires.call(0, None, "clock", {}),
                        ],
                    }
                ),
                _frame({}, None, usage=wires.USAGE),
                wires.DONE,
            ),
            USUAL["parallel"],
        ),
        # Named events, and a finish reason of another vocabulary.
        "schema": Exchange(
            _CHAT,
            _whole("schema", reason="end_turn"),
            (
                *(b"event: message\n" + _frame({"content": piece}) for piece in JSON_TEXT),
                b"id: 7\nretry: 10\n" + _frame({}, "eos_token"),
                wires.sse({**_HEAD, "choices": [], "usage": wires.USAGE}),
                wires.DONE,
            ),
            USUAL["schema"],
        ),
        # The reasoning under two names at once; the last text and the reason in one frame.
        "reasoning": Exchange(
            _CHAT,
            _whole("reasoning", reasoning="reasoning_content"),
            (
                *(_frame({"reasoning": piece, "reasoning_content": piece}) for piece in THOUGHT),
                _frame({"content": SPOKEN[0], "reasoning": ""}),
                _frame({"content": SPOKEN[1]}, "stop", usage=wires.USAGE),
                wires.DONE,
            ),
            USUAL["reasoning"],
        ),
        "completions": Exchange(
            "/v1/completions",
            wires.whole(_TEXT, {"text": "".join(COMPLETED), "finish_reason": "length"}),
            (*wires.text_frames(_TEXT, silence=""), wires.DONE),
            USUAL["completions"],
        ),
        "vectors": Exchange(
            "/v1/embeddings", wires.embeddings(base64=True, turned=True), answer=USUAL["vectors"]
        ),
        "floats": Exchange("/v1/embeddings", wires.embeddings(base64=False), answer=USUAL["floats"]),
        "tokens": Exchange("/v1/embeddings", wires.embeddings(base64=False), answer=USUAL["tokens"]),
    },
    key=("authorization", "Bearer sekret"),
    models=("/v1/models", dump({"data": [{"id": "m"}, {"id": "org/m:tag"}]}), frozenset({"m", "org/m:tag"})),
    refusals={
        "invalid": Refusal(
            422,
            {"detail": [{"loc": ["body", "seed"], "msg": "not a number", "input": "x"}]},
            errors.BadRequest,
        ),
        "unsupported": Refusal(
            400,
            wires.error("No.", None, "unsupported_parameter", "n"),
            errors.UnsupportedParameter,
            param="n",
        ),
        "context": Refusal(
            400, {"error": "This model's maximum context length is 10 tokens."}, errors.ContextTooLong
        ),
        "filtered": Refusal(400, wires.error("No.", "content_filter"), errors.ContentFiltered),
        "key": Refusal(401, b"", errors.BackendCredentials),
        "model": Refusal(404, {"error": "model not found"}, errors.ModelNotFound, param="model"),
        "body": Refusal(413, b"Payload Too Large", errors.BodyTooLarge, {"content-type": "text/plain"}),
        "rate": Refusal(429, b"", errors.BackendRateLimited, {"retry-after": "4"}, retry_after=4.0),
        "rate until a date": Refusal(
            429, b"[]", errors.BackendRateLimited, {"retry-after": "Mon, 23 Nov 2026 00:00:00 GMT"}
        ),
        "quota": Refusal(402, wires.error("Insufficient credits", code=402), errors.BackendQuotaExceeded),
        "broken": Refusal(500, b"null", errors.BackendError, {"retry-after": "9"}),
        "edge": Refusal(521, b"<html>Web server is down</html>", errors.BackendError),
        "slow": Refusal(504, b"<html>Gateway Timeout</html>", errors.BackendTimeout),
        "busy": Refusal(529, b"", errors.BackendOverloaded),
    },
    hidden={
        "error": Refusal(200, _FAILED, errors.BackendError),
        "error and no choices": Refusal(200, {**_FAILED, "choices": None}, errors.BackendError),
        "busy": Refusal(200, {"error": "The server is overloaded"}, errors.BackendOverloaded),
        "page": Refusal(200, b"<html>Log in</html>", errors.BackendError),
        "nothing": Refusal(200, b"", errors.BackendError),
    },
    broken={
        "error": Broken(_BEGUN + wires.sse(_FAILED), errors.BackendError),
        "error, then done": Broken(
            _BEGUN + wires.sse({**_FAILED, "choices": []}) + wires.DONE, errors.BackendError
        ),
        "error beside a reason": Broken(
            _BEGUN + _frame({"content": ""}, "error", error={"code": 429, "message": "Slow"}),
            errors.BackendRateLimited,
        ),
        "reason error": Broken(_BEGUN + _frame({}, "error") + wires.DONE, errors.BackendError),
        "emptied at the end": Broken(
            _BEGUN + wires.sse({**_HEAD, "model": "", "choices": [{"index": 0, "delta": {}}]}),
            errors.StreamTruncated,
        ),
    },
    wishes=wires.wishes("max_tokens"),
)
