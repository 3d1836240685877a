"""TGI's own paths: `/generate`, `/generate_stream`, and `/` for both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from zlib import crc32

from pydantic_core import to_json

from k9_broker.fake.answers import Answer, Question, answer
from k9_broker.fake.script import Call, Script
from k9_broker.fake.tgi_words import (
    STREAM_HEADERS,
    TgiServer,
    answer_headers,
    error,
    generated,
    invalid,
    unread,
    within,
)

_BROKEN = error(424, "Request failed during generation: Server error: the worker died", "generation").body
_FINISH = {"stop": "eos_token", "length": "length"}


class TgiWire(TgiServer):
    """Text in, text out; the served model whatever is asked for."""

    def __init__(self) -> None:
        self.operations = {
            "/generate": lambda call: _told(call, False),
            "/generate_stream": lambda call: _told(call, True),
            "/": self.either,
        }

    def either(self, call: Call) -> Script:
        """`POST /`: a stream if it is asked for, else the answer in a list."""
        if call.body.get("stream") is True:
            return _told(call, True)
        return _told(call, False, listed=True)


def _told(call: Call, streamed: bool, listed: bool = False) -> Script:
    inputs, parameters = call.body.get("inputs"), call.body.get("parameters") or {}
    if not isinstance(inputs, str):
        raise unread(
            "missing field `inputs`" if inputs is None else "inputs: invalid type, expected a string"
        )
    if not isinstance(parameters, dict):
        raise unread("parameters: invalid type, expected struct GenerateParameters")
    if not inputs:
        raise invalid("`inputs` cannot be empty")
    question = _question(call, inputs, parameters)
    each = answer(question, call.behaviour.answer_tokens)
    finish = "stop_sequence" if each.stopped else _FINISH[each.finish]
    tokens = [_token(piece) for piece in each.pieces]
    if finish == "eos_token" and each.tokens != question.max_tokens:
        tokens.append({"id": 2, "text": "</s>", "logprob": -0.1, "special": True})
    count = generated(each, question.max_tokens)
    sizes: dict[str, Any] = {"prompt": question.tokens, "generated": count}
    if streamed:
        ends = {"finish_reason": finish, "generated_tokens": count, "seed": call.body.get("seed")}
        frames = tuple(_frames(tokens, each, {**ends, "input_length": question.tokens}))
        broken = b"data: " + _BROKEN + b"\n\n"
        kind = "text/event-stream"
        return Script(kind, frames, broken, True, each.tokens, headers=STREAM_HEADERS, **sizes)
    body: dict[str, Any] = {"generated_text": each.text}
    if parameters.get("details"):
        details = {"finish_reason": finish, "generated_tokens": count, "seed": parameters.get("seed")}
        body["details"] = {**details, "prefill": [], "tokens": tokens}
    whole = ((each.tokens, to_json([body] if listed else body)),)
    headers = answer_headers(question.tokens, count)
    return Script("application/json", whole, _BROKEN, tokens=each.tokens, headers=headers, **sizes)


def _frames(
    tokens: list[dict[str, Any]], each: Answer, ends: Mapping[str, Any]
) -> Iterator[tuple[int, bytes]]:  # fmt: skip
    """One event for each token; the last has the whole text. There is no `[DONE]`."""
    last = len(tokens)
    for index, token in enumerate(tokens, 1):
        told = {"generated_text": each.text, "details": ends} if index == last else _NOT_YET
        # What ends the stream comes after the last token's bytes, so that a fault can fall between.
        due = each.tokens + 1 if index == last else index
        yield due, b"data: " + to_json({"index": index, "token": token, **told}) + b"\n\n"


_NOT_YET: Mapping[str, Any] = {"generated_text": None, "details": None}


def _question(call: Call, inputs: str, parameters: Mapping[str, Any]) -> Question:
    temperature, top_p = parameters.get("temperature"), parameters.get("top_p")
    if temperature is not None and not temperature > 0:
        raise invalid("`temperature` must be strictly positive")
    if top_p is not None and not 0 < top_p < 1:
        raise invalid("`top_p` must be > 0.0 and < 1.0")
    wanted = parameters.get("max_new_tokens")
    if wanted is not None and (not isinstance(wanted, int) or wanted < 1):
        raise invalid("`max_new_tokens` must be strictly positive")
    stop = parameters.get("stop") or []
    if not isinstance(stop, list):
        raise unread("parameters.stop: invalid type: string, expected a sequence")
    if len(stop) > 4:
        raise invalid(f"`stop` supports up to 4 stop sequences. Given: {len(stop)}")
    grammar = parameters.get("grammar")
    schema = None
    if isinstance(grammar, dict) and grammar.get("type") in ("json", "json_schema"):
        value = grammar.get("value")
        schema = value.get("schema", value) if isinstance(value, dict) else None
    question = Question(
        said=inputs,
        asked=inputs,
        seed=int(parameters.get("seed") or 0),
        max_tokens=wanted,
        stop=tuple(str(each) for each in stop),
        schema=schema,
    )
    within(call, question.tokens, wanted)
    return question


def _token(text: str) -> dict[str, Any]:
    return {"id": crc32(text.encode()) % 32_000, "text": text, "logprob": -0.1, "special": False}
