"""TGI's streams in OpenAI's words."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k9_broker import errors
from k9_broker.dialects.tgi.dialect import Tgi
from k9_broker.dialects.tgi.stream import StopTail, without_stop
from k9_broker.requests import InferenceRequest, Operation

DIALECT = Tgi()
Chunks = list[dict[str, Any]]


def chat(**body: Any) -> InferenceRequest:
    return InferenceRequest(Operation.CHAT, "org/m", {"messages": [], **body})


def text(**body: Any) -> InferenceRequest:
    return InferenceRequest(Operation.COMPLETIONS, "org/m", {"prompt": "p", **body})


def frames(*given: Any, done: bool = False) -> bytes:
    raw = "".join(f"data: {json.dumps(one)}\n\n" for one in given)
    return (raw + ("data: [DONE]\n\n" if done else "")).encode()


def replay(request: InferenceRequest, raw: bytes, size: int = 7) -> Chunks:
    parser = DIALECT.parser(request)
    chunks = [dict(c) for at in range(0, len(raw), size) for c in parser.feed(raw[at : at + size])]
    return chunks + [dict(c) for c in parser.close()]


def content(chunks: Chunks) -> str:
    return "".join(
        choice["delta"].get("content") or "" if "delta" in choice else choice["text"]
        for chunk in chunks
        for choice in chunk["choices"]
    )


def ending(chunks: Chunks) -> dict[str, Any]:
    """What the one choice with a finish reason says of the end."""
    (choice,) = [one for chunk in chunks for one in chunk["choices"] if one["finish_reason"]]
    return {name: choice[name] for name in ("finish_reason", "stop_reason") if name in choice}


def delta(text: str | None, reason: str | None = None, **more: Any) -> dict[str, Any]:
    made = {"role": "assistant", **({} if text is None else {"content": text}), **more}
    choice = {"index": 0, "delta": made, "finish_reason": reason, "logprobs": None}
    return {"id": "", "created": 1, "model": "org/m", "choices": [choice], "usage": None}


def token(text: str, *, special: bool = False, **more: Any) -> dict[str, Any]:
    of = {"id": 1, "text": text, "logprob": -0.1, "special": special}
    return {"index": 1, "token": of, "generated_text": None, "details": None, **more}


def last(text: str, reason: str, *, special: bool = False) -> dict[str, Any]:
    details = {"finish_reason": reason, "generated_tokens": 3, "seed": None, "input_length": 2}
    return token(text, special=special, generated_text="…", details=details)


def test_a_chat_stream() -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
    tail = {"id": "", "created": 7, "model": "org/m", "choices": [], "usage": usage}
    moved = {**delta("b"), "created": 2}
    raw = b":\n\n" + frames(delta("a"), moved, delta("", "stop"), tail, done=True)
    *pieces, end = replay(chat(stream=True), raw)
    assert content(pieces) == "ab"
    assert [choice["delta"].get("role") for chunk in pieces for choice in chunk["choices"]] == [
        "assistant",
        None,
        None,
    ]
    assert ending(pieces) == {"finish_reason": "stop"}
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in [*pieces, end]}) == 1
    assert pieces[0]["id"].startswith("chatcmpl-")
    assert {chunk["object"] for chunk in [*pieces, end]} == {"chat.completion.chunk"}
    assert (end["choices"], end["usage"]["total_tokens"]) == ([], 8)


def test_a_stream_of_a_tool_call_without_a_reason() -> None:
    def piece(arguments: str, name: str | None = None) -> dict[str, Any]:
        function = {"name": name, "arguments": arguments}
        return delta(None, tool_calls=[{"index": 0, "id": "0", "type": "function", "function": function}])

    chunks = replay(chat(stream=True), frames(piece("{", "f"), piece('"x":1'), piece("}"), done=True))
    calls = [
        call
        for chunk in chunks
        for choice in chunk["choices"]
        for call in choice["delta"].get("tool_calls") or []
    ]
    assert "".join(call["function"]["arguments"] for call in calls) == '{"x":1}'
    assert [call["id"] for call in calls if "id" in call] == [calls[0]["id"]]
    assert calls[0]["id"] not in ("", "0")
    assert ending(chunks) == {"finish_reason": "tool_calls"}


@pytest.mark.parametrize(
    ("pieces", "reason", "stop", "expected", "told"),
    [
        (["a", "b\n"], "stop_sequence", ["\n"], "ab", "\n"),
        (["a", "#", "##"], "stop_sequence", ["###"], "a", "###"),
        (["a", "#", "#b"], "stop", ["###"], "a##b", None),
        (["a", "##"], "length", ["##"], "a##", None),
        (["a ##", ""], "length", ["###"], "a ##", None),
        (["abab", "ac"], "stop_sequence", ["abac"], "ab", "abac"),
        (["x"], "stop_sequence", [], "x", None),
        (["ENDEND"], "stop_sequence", ["END", "ENDEND"], "", "ENDEND"),
    ],
)
def test_the_stop_string_is_not_part_of_the_text(
    pieces: list[str], reason: str, stop: list[str], expected: str, told: str | None
) -> None:
    body = {"stream": True, "stop": stop}
    *begun, final = pieces
    chunks = replay(chat(**body), frames(*map(delta, begun), delta(final, reason), done=True))
    native = replay(text(**body), frames(*map(token, begun), last(final, reason)))
    ended = {"finish_reason": "length" if reason == "length" else "stop"} | (
        {"stop_reason": told} if told else {}
    )
    for found in (chunks, native):
        assert content(found) == expected
        assert ending(found) == ended


def test_text_that_was_held_back_comes_where_the_server_gives_no_reason() -> None:
    chunks = replay(chat(stream=True, stop=["##"]), frames(delta("a#"), done=True))
    assert content(chunks) == "a#"


@given(
    st.lists(st.text("ab#", max_size=4), max_size=8),
    st.lists(st.text("ab#", min_size=1, max_size=4), max_size=3),
)
def test_a_tail_loses_nothing_and_comes_early_enough(pieces: list[str], stops: list[str]) -> None:
    longest = max(map(len, stops), default=0)
    whole = "".join(pieces)
    for stopped in (False, True):
        tail, told = StopTail(stops), ""
        for count, piece in enumerate(pieces, 1):
            told += tail.push(piece)
            assert len("".join(pieces[:count])) - len(told) <= longest
        rest, stop = tail.end("", stopped=stopped)
        assert (told + rest, stop) == (without_stop(whole, stops) if stopped else (whole, None))


def test_a_native_stream() -> None:
    raw = frames(token("<s>", special=True), token("é"), token("b")) + b":\n\n"
    raw += frames(last("</s>", "eos_token", special=True)) + b"data: late\n\n"
    for size in (1, 3, 4096):
        *pieces, end = replay(text(stream=True), raw, size)
        assert [chunk["choices"][0]["text"] for chunk in pieces] == ["é", "b", ""]
        assert ending(pieces) == {"finish_reason": "stop"}
        assert len({chunk["id"] for chunk in [*pieces, end]}) == 1
        assert (end["usage"]["prompt_tokens"], end["usage"]["completion_tokens"]) == (2, 3)


def test_the_end_of_a_native_stream_needs_no_blank_line() -> None:
    parser = DIALECT.parser(text(stream=True))
    raw = frames(last("a", "length")).rstrip()
    assert not [*parser.feed(raw)]
    assert ending([dict(chunk) for chunk in parser.close()]) == {"finish_reason": "length"}
    assert parser.ended


@pytest.mark.parametrize(
    ("request_", "raw", "kind"),
    [
        (text(stream=True), b"", errors.StreamTruncated),
        (text(stream=True), frames(token("a")), errors.StreamTruncated),
        (text(stream=True), frames(token("a")) + b'data: {"ind', errors.StreamTruncated),
        (text(stream=True), b"data: oops\n\n", errors.BackendError),
        (text(stream=True), b"data: []\n\n", errors.BackendError),
        (text(stream=True), b'data: {"index":1}\n\n', errors.BackendError),
        (
            text(stream=True),
            frames({"error": "Model is overloaded", "error_type": "overloaded"}),
            errors.BackendOverloaded,
        ),
        (
            text(stream=True),
            frames(token("a"), {"error": "CUDA", "error_type": "generation"}),
            errors.BackendError,
        ),
        (
            text(stream=True),
            frames(
                {
                    "error": "Input validation error: `inputs` must have less than 9 tokens",
                    "error_type": "validation",
                }
            ),
            errors.ContextTooLong,
        ),
        (chat(stream=True), b"", errors.StreamTruncated),
        (chat(stream=True), frames(delta("a")), errors.StreamTruncated),
        (
            chat(stream=True),
            frames({"error": {"message": "Model is overloaded", "http_status_code": 422}}, done=True),
            errors.BackendOverloaded,
        ),
        (
            chat(stream=True),
            frames(
                delta("a"),
                {"error": {"message": "Incomplete generation", "http_status_code": 422}},
                done=True,
            ),
            errors.BackendError,
        ),
    ],
)
def test_broken_streams(request_: InferenceRequest, raw: bytes, kind: type[errors.K9Error]) -> None:
    with pytest.raises(errors.K9Error) as caught:
        replay(request_, raw)
    assert type(caught.value) is kind
