"""Tokens: counted once, counted on streams, and shown to those who asked."""

from __future__ import annotations

import json
from typing import Any

import pytest

from k9_broker.dialects.registry import dialect_named
from k9_broker.requests import InferenceRequest, Operation
from menagerie import CHATTING, HELLO, Menagerie, events, only

WORDS = "These are words that are worth remembering for the next time. " * 30
MARKED: list[dict[str, Any]] = [
    {"role": "system", "content": [{"type": "text", "text": WORDS, "cache_control": {"type": "ephemeral"}}]},
    *HELLO,
]
ASKED = InferenceRequest(Operation.CHAT, "m", {"messages": HELLO})


def test_trap_13_cached_tokens_are_part_of_the_prompt(k9: Menagerie) -> None:
    """Anthropic's input_tokens leave them out, OpenAI's prompt_tokens include them."""
    first = k9.said(only("anthropic"), messages=MARKED)["usage"]
    second = k9.said(only("anthropic"), messages=MARKED)["usage"]
    *_, streamed, _ = k9.frames(only("anthropic"), messages=MARKED, stream_options={"include_usage": True})
    cached = second["prompt_tokens_details"]["cached_tokens"]
    assert cached > 200
    assert first["prompt_tokens_details"]["cached_tokens"] == 0
    assert first["prompt_tokens"] == second["prompt_tokens"] == streamed["usage"]["prompt_tokens"] > cached
    assert streamed["usage"] == second
    body = {"model": only("anthropic"), "max_tokens": 9, "messages": HELLO, "system": MARKED[0]["content"]}
    own = k9.http.post("/v1/messages", json=body).json()["usage"]
    assert own["cache_read_input_tokens"] == cached
    assert own["input_tokens"] + cached == second["prompt_tokens"]


def test_trap_13_cached_tokens_of_a_message() -> None:
    usage = {"input_tokens": 3, "cache_creation_input_tokens": 418, "cache_read_input_tokens": 1111}
    message = {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "stop_reason": "end_turn",
        "content": [{"type": "text", "text": "Hi."}], "usage": {**usage, "output_tokens": 7},
    }  # fmt: skip
    made = dialect_named("anthropic").parse(ASKED, json.dumps(message).encode()).usage
    assert (made.prompt, made.cached, made.written, made.completion) == (1532, 1111, 418, 7)


def test_trap_13_cached_tokens_of_a_stream_are_overwritten_not_added() -> None:
    """`message_delta` says all of it once more."""
    start = {"input_tokens": 3, "cache_read_input_tokens": 100, "output_tokens": 1}
    head = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [],
        "usage": start,
    }
    told: list[dict[str, Any]] = [
        {"type": "message_start", "message": head},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi."}},
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn"},
            "usage": {**start, "output_tokens": 9},
        },
        {"type": "message_stop"},
    ]
    raw = b"".join(f"event: {one['type']}\ndata: {json.dumps(one)}\n\n".encode() for one in told)
    parser = dialect_named("anthropic").parser(ASKED)
    *_, last = [*parser.feed(raw), *parser.close()]
    assert (last["usage"]["prompt_tokens"], last["usage"]["completion_tokens"]) == (103, 9)
    assert last["usage"]["prompt_tokens_details"]["cached_tokens"] == 100


def test_trap_13_counters_that_ollama_leaves_out_are_zero() -> None:
    done = {
        "model": "m",
        "message": {"role": "assistant", "content": "Hi."},
        "done": True,
        "done_reason": "stop",
    }
    dialect = dialect_named("ollama")
    assert dialect.parse(ASKED, json.dumps(done).encode()).usage.total == 0
    parser = dialect.parser(ASKED)
    *_, last = [*parser.feed(json.dumps(done).encode() + b"\n"), *parser.close()]
    assert (last["usage"]["prompt_tokens"], last["usage"]["completion_tokens"]) == (0, 0)


@pytest.mark.parametrize("name", CHATTING)
def test_trap_13_streams_count_what_whole_answers_count(k9: Menagerie, name: str) -> None:
    whole = k9.said(only(name))["usage"]
    *_, last, _ = k9.frames(only(name), stream_options={"include_usage": True})
    assert last["usage"] == whole
    assert whole["prompt_tokens"] > 0
    assert whole["completion_tokens"] > 0
    assert whole["total_tokens"] == whole["prompt_tokens"] + whole["completion_tokens"]


@pytest.mark.parametrize("name", CHATTING)
def test_trap_14_usage_of_a_stream_is_counted_though_nobody_asked(k9: Menagerie, name: str) -> None:
    """K-9 asks for it upstream and takes the chunk out again: some clients crash on `choices: []`."""
    reply = k9.chat(only(name), stream=True)
    *chunks, done = events(reply.text)
    assert done == "[DONE]"
    assert all(chunk["choices"] and not chunk.get("usage") for chunk in chunks)
    usage = k9.ended_job(reply)["usage"]
    assert usage["prompt_tokens"] > 0
    assert usage["completion_tokens"] > 0
    body = k9.upstream(name)["body"]
    if name not in ("ollama", "anthropic"):  # they tell it always
        assert body["stream_options"]["include_usage"] is True


@pytest.mark.parametrize("name", CHATTING)
def test_trap_14_usage_is_one_chunk_before_the_end_for_those_who_asked(k9: Menagerie, name: str) -> None:
    reply = k9.chat(only(name), stream=True, stream_options={"include_usage": True})
    *chunks, last, done = events(reply.text)
    assert done == "[DONE]"
    assert last["choices"] == []
    assert all(chunk["choices"] and chunk.get("usage") is None for chunk in chunks)
    told = {word: last["usage"][word] for word in ("prompt_tokens", "completion_tokens", "total_tokens")}
    assert k9.ended_job(reply)["usage"] == told
