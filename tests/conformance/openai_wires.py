"""Answers in OpenAI's shape, for the tables of its family; each server bends them in its own way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from conformance.cases import (
    ARGUMENTS,
    COMPLETED,
    FORMAT,
    JSON_TEXT,
    ROWS,
    ROWS_BASE64,
    SPOKEN,
    TEXT,
    THOUGHT,
    Wished,
    tool,
)
from replaying import dump

Json = dict[str, Any]
PIECES: Mapping[str, Sequence[str]] = {"text": TEXT, "schema": JSON_TEXT}
USAGE: Json = {"prompt_tokens": 12, "completion_tokens": 7, "total_tokens": 19}
DONE = b"data: [DONE]\n\n"


def sse(value: Any) -> bytes:
    return b"data: " + dump(value) + b"\n\n"


def call(index: int | None, call_id: str | None, name: str | None, arguments: Any) -> Json:
    """A tool call, or a piece of one; what is `None` is left out."""
    function = {key: said for key, said in (("name", name), ("arguments", arguments)) if said is not None}
    given = {"index": index, "id": call_id, "type": None if call_id is None else "function"}
    return {**{key: said for key, said in given.items() if said is not None}, "function": function}


def calls(case: str) -> list[Json]:
    """The calls of a whole message, by OpenAI's own rules."""
    both = [call(None, "call_a1", "weather", "".join(ARGUMENTS)), call(None, "call_b2", "clock", "{}")]
    return both[: 1 if case == "tool" else 2]


def call_deltas(case: str, *, first: Json | None = None) -> list[Json]:
    """The same in pieces: id, type and name once, then arguments by index."""
    found = [
        {**(first or {}), "tool_calls": [call(0, "call_a1", "weather", "")]},
        {"tool_calls": [call(0, None, None, ARGUMENTS[0])]},
        {"tool_calls": [call(0, None, None, ARGUMENTS[1])]},
    ]
    if case == "parallel":
        found += [
            {"tool_calls": [call(1, "call_b2", "clock", "")]},
            {"tool_calls": [call(1, None, None, "{}")]},
        ]
    return found


def message(case: str, reasoning: str | None = None) -> Json:
    """The message of a whole answer; `reasoning` is the server's word for it."""
    if case in ("tool", "parallel"):
        return {"role": "assistant", "content": None, "tool_calls": calls(case)}
    if case == "reasoning":
        thought = {reasoning: "".join(THOUGHT)} if reasoning else {}
        return {"role": "assistant", "content": "".join(SPOKEN), **thought}
    return {"role": "assistant", "content": "".join(PIECES[case])}


def deltas(case: str, reasoning: str | None = None, *, first: Json | None = None) -> list[Json]:
    """The deltas of a streamed answer, the role in one of its own."""
    role: Json = {"role": "assistant", "content": "", **(first or {})}
    if case in ("tool", "parallel"):
        return [role, *call_deltas(case)]
    if case == "reasoning":
        thought = [{reasoning: piece} for piece in THOUGHT] if reasoning else []
        return [role, *thought, *({"content": piece} for piece in SPOKEN)]
    return [role, *({"content": piece} for piece in PIECES[case])]


def reason(case: str) -> str:
    return {"tool": "tool_calls", "parallel": "tool_calls", "completions": "length"}.get(case, "stop")


def whole(head: Json, choice: Json, usage: Json | None = USAGE, **more: Any) -> bytes:
    told = {} if usage is None else {"usage": usage}
    return dump({**head, "choices": [{"index": 0, "logprobs": None, **choice}], **told, **more})


def frame(head: Json, choice: Json | None, **more: Any) -> bytes:
    choices = [] if choice is None else [{"index": 0, **choice}]
    return sse({**head, "choices": choices, **more})


def chat_frames(
    head: Json, said: Sequence[Json], ended: str, counted: Json = USAGE, **more: Any
) -> list[bytes]:
    """A stream as OpenAI itself writes it; `more` stands in every frame but the last one, of usage."""
    return [
        *(frame(head, {"delta": delta, "logprobs": None, "finish_reason": None}, **more) for delta in said),
        frame(head, {"delta": {}, "logprobs": None, "finish_reason": ended}, **more),
        frame(head, None, usage=counted),
    ]


def text_frames(head: Json, counted: Json = USAGE, silence: Any = None, **more: Any) -> list[bytes]:
    """A stream of plain completions; `silence` is what stands for no finish reason."""
    return [
        *(frame(head, {"text": piece, "finish_reason": silence}, **more) for piece in COMPLETED),
        frame(head, {"text": "", "finish_reason": "length"}, **more),
        frame(head, None, usage=counted),
    ]


def embeddings(*, base64: bool, turned: bool = False, **more: Any) -> bytes:
    """Two vectors; `turned`: not in the order of the inputs."""
    data = [
        {"object": "embedding", "index": index, "embedding": (ROWS_BASE64 if base64 else ROWS)[index]}
        for index in ((1, 0) if turned else (0, 1))
    ]
    usage = {"prompt_tokens": 4, "total_tokens": 4}
    return dump({"object": "list", "model": "m", "data": data, "usage": usage, **more})


def models(*ids: str, **more: Any) -> bytes:
    listed = [{"id": one, "object": "model", "created": 1763850000, "owned_by": "o", **more} for one in ids]
    return dump({"object": "list", "data": listed})


def error(message: str | None, kind: str | None = None, code: Any = None, param: str | None = None) -> Json:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def wishes(most_tokens: str) -> dict[str, Wished]:
    """What goes out where nothing is refused; `most_tokens` is the server's word for an answer's length."""
    both = {
        "model": "m",
        "messages": [{"role": "user", "content": "Wetter?"}],
        "temperature": 1.2,
        "stop": ["END"],
        most_tokens: 64,
        "seed": 7,
        "user": "u-1",
        "response_format": FORMAT,
    }
    with_tools = {**both, "tools": [tool("weather")], "tool_choice": "required"}
    return {"everything": Wished(with_tools), "without tools": Wished(both)}
