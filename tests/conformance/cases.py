"""What is asked of every dialect, and the words in which an answer is expected, whichever server gave it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from k9_broker import errors
from k9_broker.health import Load
from k9_broker.requests import InferenceRequest, Operation
from k9_broker.results import Chunk, Result, Usage

MODEL = "m"
TEXT = ("Grüße", " aus 東京 ☕", " – naïve 🐕 end.")
"""An answer in three pieces, with letters of one to four bytes."""
THOUGHT = ("Erst ", "überlegen…")
SPOKEN = ("Dann ", "reden.")
JSON_TEXT = ('{"city":', '"Zürich"}')
COMPLETED = (" there,", " 世界")
ROWS = ((0.25, -0.5, 0.125), (0.5, 0.5, -0.5))
"""Embeddings whose numbers float32 holds exactly."""
ROWS_BASE64 = ("AACAPgAAAL8AAAA+", "AAAAPwAAAD8AAAC/")
ARGUMENTS = ('{"city": ', '"Zürich"}')
"""Of the one call of `weather`, in pieces."""

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FORMAT = {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA}}


def tool(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "description": "d", "parameters": SCHEMA}}


def _chat(**body: Any) -> InferenceRequest:
    said = {"model": MODEL, "messages": [{"role": "user", "content": "Wie ist das Wetter?"}], **body}
    return InferenceRequest(Operation.CHAT, MODEL, said)


def _embed(inputs: Any) -> InferenceRequest:
    return InferenceRequest(Operation.EMBEDDINGS, MODEL, {"model": MODEL, "input": inputs})


ASKS: Mapping[str, InferenceRequest] = {
    "text": _chat(max_completion_tokens=64),
    "tool": _chat(tools=[tool("weather")]),
    "parallel": _chat(tools=[tool("weather"), tool("clock")]),
    "schema": _chat(response_format=FORMAT),
    "reasoning": _chat(reasoning_effort="low"),
    "completions": InferenceRequest(Operation.COMPLETIONS, MODEL, {"model": MODEL, "prompt": "Hi"}),
    "vectors": _embed(["a", "b"]),
    "floats": _embed(["a", "b"]),
    "tokens": _embed([[1, 2], [3]]),
}
"""Every table of exchanges has each of these: as an `Exchange`, or as `Absent`."""


COUNTED = Usage(12, 7)
"""The tokens of every text, as far as its server counts them."""


@dataclass(frozen=True)
class Answer:
    """What a caller has in the end, whole or streamed."""

    text: str = ""
    calls: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    """Names and arguments; the ids are the server's own or invented."""
    finish: str = "stop"
    usage: Usage = COUNTED
    reasoning: str = ""
    sealed: tuple[str, ...] = ()
    """Signatures of thinking, and thinking that is not shown: what goes back to Anthropic unchanged."""
    rows: tuple[tuple[float, ...], ...] = ()


WEATHER = ("weather", {"city": "Zürich"})
CLOCK = ("clock", {})
USUAL: Mapping[str, Answer] = {
    "text": Answer("".join(TEXT)),
    "tool": Answer(calls=(WEATHER,), finish="tool_calls"),
    "parallel": Answer(calls=(WEATHER, CLOCK), finish="tool_calls"),
    "schema": Answer("".join(JSON_TEXT)),
    "reasoning": Answer("".join(SPOKEN), reasoning="".join(THOUGHT)),
    "completions": Answer("".join(COMPLETED), finish="length"),
    "vectors": Answer(finish="", usage=Usage(4), rows=ROWS),
    "floats": Answer(finish="", usage=Usage(4), rows=ROWS),
    "tokens": Answer(finish="", usage=Usage(4), rows=ROWS),
}
"""The answers of servers that tell all there is to tell."""


@dataclass(frozen=True)
class Exchange:
    """What a server answers to one of `ASKS`, whole and streamed; paths are where it must be asked."""

    path: str
    whole: bytes
    stream: tuple[bytes, ...] = ()
    """The frames, each with the line ends that close it."""
    answer: Answer = Answer()
    stream_path: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    """Of the whole answer."""


@dataclass(frozen=True)
class Absent:
    """The server cannot do it, and the caller is told so by the name of what it asked for."""

    param: str


Row = Exchange | Absent


@dataclass(frozen=True)
class Refusal:
    """An error answer of a server, and what callers see of it."""

    status: int
    body: Any
    kind: type[errors.K9Error]
    headers: Mapping[str, str] = field(default_factory=dict)
    retry_after: float | None = None
    param: str | None = None
    case: str = "text"
    """Which of `ASKS` it answers."""


@dataclass(frozen=True)
class Broken:
    """A stream with an error inside."""

    body: bytes
    kind: type[errors.K9Error]
    case: str = "text"


@dataclass(frozen=True)
class Wished:
    """What becomes of a request: the parameters refused by name, one after the other, and the body that
    goes out without them."""

    body: Mapping[str, Any]
    refused: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """One dialect: how its servers are asked and what they answer."""

    dialect: str
    exchanges: Mapping[str, Row]
    key: tuple[str, str]
    """The header that carries the key `sekret`, and its value."""
    models: tuple[str, bytes, frozenset[str]]
    """Where the models are listed, the answer, and the names a caller may use."""
    refusals: Mapping[str, Refusal]
    load: tuple[str, bytes, Load] | None = None
    never: frozenset[type[errors.K9Error]] = frozenset()
    """Errors its servers have no words for."""
    hidden: Mapping[str, Refusal] = field(default_factory=dict)
    """Errors in whole answers of status 200."""
    broken: Mapping[str, Broken] = field(default_factory=dict)
    wishes: Mapping[str, Wished] = field(default_factory=dict)
    comments: bool = True
    """Its streams are server-sent events, which may hold comments."""
    options: Mapping[str, Any] = field(default_factory=dict)
    models_configured: tuple[str, ...] = ()


SEEN_AS: Mapping[type[errors.K9Error], tuple[int, bool]] = {
    errors.BadRequest: (400, False),
    errors.UnsupportedParameter: (400, False),
    errors.ContextTooLong: (400, False),
    errors.ContentFiltered: (400, False),
    errors.BodyTooLarge: (413, False),
    errors.ModelNotFound: (404, False),
    errors.BackendCredentials: (502, False),
    errors.BackendQuotaExceeded: (429, False),
    errors.BackendRateLimited: (429, True),
    errors.BackendOverloaded: (503, True),
    errors.BackendTimeout: (504, True),
    errors.BackendError: (502, True),
    errors.StreamTruncated: (502, True),
}
"""Each class of failure: the status callers see, and whether the same request may succeed later."""


def answer_of(result: Result) -> Answer:
    """A whole answer in the words of the suite, with what every caller relies on checked."""
    if result.vectors is not None:
        rows = tuple(tuple(result.vectors.row_floats(at)) for at in range(result.vectors.count))
        return Answer(finish="", usage=result.usage, rows=rows)
    assert result.body is not None
    assert result.body["usage"] == result.usage.openai()
    (choice,) = result.body["choices"]
    assert choice["index"] == 0
    message = choice.get("message")
    if message is None:
        return Answer(choice["text"], (), choice["finish_reason"], result.usage)
    assert message["role"] == "assistant"
    made = message.get("tool_calls") or ()
    _check_ids([call["id"] for call in made])
    assert all(call["type"] == "function" for call in made)
    return Answer(
        message["content"] or "",
        tuple((call["function"]["name"], json.loads(call["function"]["arguments"])) for call in made),
        choice["finish_reason"],
        result.usage,
        message.get("reasoning", ""),
        _sealed(message),
    )


def answer_of_chunks(chunks: Iterable[Chunk]) -> Answer:
    """The same of a stream: one head, one finish reason, one id a call, the usage last and nowhere else."""
    *pieces, last = chunks
    assert last["choices"] == []
    assert not any("usage" in chunk or len(chunk["choices"]) != 1 for chunk in pieces)
    assert not any("obfuscation" in chunk for chunk in pieces)
    heads = {tuple(chunk[name] for name in ("id", "object", "model")) for chunk in pieces}
    assert len(heads) == 1
    assert all(heads.pop())
    choices = [chunk["choices"][0] for chunk in pieces]
    assert {choice["index"] for choice in choices} == {0}
    (finish,) = [choice["finish_reason"] for choice in choices if choice["finish_reason"] is not None]
    usage = Usage.from_openai(last["usage"])
    if "text" in choices[0]:
        return Answer("".join(choice["text"] for choice in choices), (), finish, usage)
    deltas = [choice["delta"] for choice in choices]
    calls: dict[int, list[str]] = {}
    ids: list[str] = []
    for piece in (piece for delta in deltas for piece in delta.get("tool_calls") or ()):
        if piece["index"] not in calls:
            ids.append(piece["id"])
            calls[piece["index"]] = [piece["function"]["name"], ""]
        else:
            assert "id" not in piece
            assert "name" not in piece["function"]
        calls[piece["index"]][1] += piece["function"]["arguments"]
    _check_ids(ids)
    assert list(calls) == list(range(len(calls)))
    return Answer(
        "".join(delta.get("content") or "" for delta in deltas),
        tuple((name, json.loads(arguments or "{}")) for name, arguments in calls.values()),
        finish,
        usage,
        "".join(delta.get("reasoning") or "" for delta in deltas),
        tuple(seal for delta in deltas for seal in _sealed(delta)),
    )


def _sealed(said: Mapping[str, Any]) -> tuple[str, ...]:
    names = {"thinking": "signature", "redacted_thinking": "data"}
    return tuple(block[names[block["type"]]] for block in said.get("thinking_blocks") or ())


def _check_ids(ids: list[str]) -> None:
    assert len(set(ids)) == len(ids)
    assert all(one and not one.isdigit() for one in ids)
