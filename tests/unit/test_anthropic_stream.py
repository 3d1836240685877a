"""Anthropic's streams in OpenAI's chunks, however they are cut, and never silently cut short."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anthropic_events import CHAT, DIALECT, begin, block, end, folded, replay, text, thinking, tool_use, wire
from k9_broker import errors
from k9_broker.dialects.anthropic.answer import result
from k9_broker.dialects.anthropic.events import whole_message

PING = {"type": "ping"}
SIGNED = {"type": "thinking", "thinking": "", "signature": "c2ln"}
REDACTED = {"type": "redacted_thinking", "data": "xyz"}
RICH = [
    begin(cache_read_input_tokens=100, cache_creation_input_tokens=20),
    PING,
    *thinking(0, "c2ln", "H", "", "m – ü."),
    *block(1, REDACTED),
    *text(2, "Let me", " löok. 🌍"),
    *tool_use(3, "toolu_1", "", '{"ci', 'ty": "Zü', 'rich"}'),
    PING,
    *tool_use(4, "toolu_2"),
    *end("tool_use", {"output_tokens": 41, "output_tokens_details": {"thinking_tokens": 9}}),
]


def deltas(chunks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]


def test_a_plain_stream() -> None:
    *chunks, last = replay(wire([begin(), PING, *text(0, "Hello", " there"), *end()]))
    assert deltas(chunks) == [
        {"role": "assistant", "content": ""},
        {"content": "Hello"},
        {"content": " there"},
        {},
    ]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, None, None, "stop"]
    heads = [{name: chunk[name] for name in ("id", "object", "model")} for chunk in (*chunks, last)]
    assert heads == [{"id": "msg_1", "object": "chat.completion.chunk", "model": "claude-x"}] * 5
    assert len({chunk["created"] for chunk in (*chunks, last)}) == 1
    assert last["created"] > 1_700_000_000
    assert last["choices"] == []
    assert (last["usage"]["prompt_tokens"], last["usage"]["completion_tokens"]) == (11, 6)


def test_everything_at_once() -> None:
    chunks = replay(wire(RICH))
    assert folded(chunks) == {
        "message": {
            "content": "Let me löok. 🌍",
            "reasoning": "Hm – ü.",
            "thinking_blocks": [SIGNED, REDACTED],
            "tool_calls": {0: ["toolu_1", "f", '{"city": "Zürich"}'], 1: ["toolu_2", "f", "{}"]},
        },
        "finish_reason": "tool_calls",
        "usage": chunks[-1]["usage"],
    }
    usage = chunks[-1]["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (131, 41)
    assert usage["prompt_tokens_details"] == {
        "cached_tokens": 100,
        "audio_tokens": 0,
        "cache_write_tokens": 20,
    }
    assert usage["completion_tokens_details"]["reasoning_tokens"] == 9


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_cuts_line_ends_and_comments_change_nothing(data: st.DataObject) -> None:
    raw = wire(RICH)
    if data.draw(st.booleans()):
        raw = raw.replace(b"\n\n", b"\n\n: keep-alive\n\n")
    if data.draw(st.booleans()):
        raw = raw.replace(b"\n", b"\r\n")
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=40)))
    parser = DIALECT.parser(CHAT)
    made = [
        dict(chunk)
        for start, stop in zip([0, *cuts], [*cuts, len(raw)], strict=True)
        for chunk in parser.feed(raw[start:stop])
    ]
    assert parser.ended
    made += map(dict, parser.close())
    assert folded(made) == folded(replay(wire(RICH)))


def test_byte_by_byte() -> None:
    assert folded(replay(wire(RICH), size=1)) == folded(replay(wire(RICH)))


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(wire(RICH)) - 1))
def test_a_stream_cut_anywhere_is_truncated_until_it_says_why_it_stopped(cut: int) -> None:
    raw = wire(RICH)
    said = raw.index(b'"stop_reason": "tool_use"')
    finished = cut >= raw.index(b"\n", said)  # its JSON is whole then, and what follows says no more
    if finished:
        assert replay(raw[:cut])[-1]["usage"]["completion_tokens"] == 41
        return
    with pytest.raises(errors.StreamTruncated):
        replay(raw[:cut])


@pytest.mark.parametrize(
    ("events", "complete"),
    [
        ([], False),
        ([PING], False),
        ([begin()], False),
        ([begin(), *text(0, "a")], False),
        ([begin(), *text(0, "a"), *end(None)[:1]], False),
        ([begin(), *text(0, "a"), *end()[:1]], True),
        ([begin(), *text(0, "a"), {"type": "message_stop"}], True),
        ([{"type": "message_stop"}], False),
    ],
)
def test_what_counts_as_complete(events: list[Any], complete: bool) -> None:
    if not complete:
        with pytest.raises(errors.StreamTruncated):
            replay(wire(events))
        return
    assert folded(replay(wire(events)))["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("pause_turn", "stop"),
        ("something_new", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("refusal", "content_filter"),
    ],
)
def test_why_it_stopped(reason: str, finish: str) -> None:
    assert folded(replay(wire([begin(), *text(0, "a"), *end(reason)])))["finish_reason"] == finish


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("tool_use", "tool_calls"),
        ("end_turn", "tool_calls"),
        ("max_tokens", "length"),
        ("refusal", "content_filter"),
    ],
)
def test_why_it_stopped_after_a_tool_call(reason: str, finish: str) -> None:
    events = [begin(), *tool_use(0, "toolu_1", '{"a": 1}'), *end(reason)]
    assert folded(replay(wire(events)))["finish_reason"] == finish


def test_the_stop_sequence_and_the_reason_of_a_refusal_are_told() -> None:
    stopped = folded(replay(wire([begin(), *text(0, "a"), *end("stop_sequence", stop_sequence="END")])))
    assert (stopped["finish_reason"], stopped["stop_reason"]) == ("stop", "END")
    details = {"type": "refusal", "category": "cyber", "explanation": "Not that."}
    refused = folded(replay(wire([begin(), *end("refusal", stop_details=details)])))
    assert (refused["finish_reason"], refused["message"]["refusal"]) == ("content_filter", "Not that.")


def test_counts_replace_earlier_ones_and_null_replaces_nothing() -> None:
    restated = {"input_tokens": 12, "cache_read_input_tokens": 3, "output_tokens": 9}
    usages = [
        ({"output_tokens": 9}, (11, 9, 0)),
        (restated, (15, 9, 3)),
        ({"input_tokens": None, "output_tokens": 9}, (11, 9, 0)),
        ({"input_tokens": -1, "output_tokens": "x"}, (0, 0, 0)),
    ]
    for usage, counts in usages:
        made = replay(wire([begin(), *text(0, "a"), *end(usage=usage)]))[-1]["usage"]
        cached = made["prompt_tokens_details"]["cached_tokens"]
        assert (made["prompt_tokens"], made["completion_tokens"], cached) == counts


def test_what_is_not_known_is_passed_over() -> None:
    events = [
        {"type": "brand_new", "index": 0},
        begin(),
        {"type": "content_block_delta", "index": 5, "delta": {"type": "text_delta", "text": "lost"}},
        *block(0, {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}),
        *block(
            1, {"type": "text", "text": "Hi"}, {"type": "citations_delta", "citation": {}}, {"type": "new"}
        ),
        {"type": "content_block_stop", "index": 9},
        *end(),
    ]
    assert folded(replay(wire(events)))["message"]["content"] == "Hi"


def test_a_tool_whose_input_came_at_once() -> None:
    given = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": 1}}
    calls = folded(replay(wire([begin(), *block(0, given), *end("tool_use")])))["message"]["tool_calls"]
    assert json.loads(calls[0][2]) == {"a": 1}


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("overloaded_error", errors.BackendOverloaded),
        ("rate_limit_error", errors.BackendRateLimited),
        ("api_error", errors.BackendError),
        ("timeout_error", errors.BackendTimeout),
        ("billing_error", errors.BackendQuotaExceeded),
        ("authentication_error", errors.BackendCredentials),
        ("invalid_request_error", errors.BadRequest),
        ("brand_new_error", errors.BackendError),
    ],
)
def test_an_error_in_the_stream_is_raised_after_what_came_before(kind: str, expected: type) -> None:
    error = {"type": "error", "error": {"type": kind, "message": "Some words"}}
    parser = DIALECT.parser(CHAT)
    pieces = parser.feed(wire([begin(), *text(0, "Hel"), error]))
    assert [next(pieces)["choices"][0]["delta"].get("content") for _ in range(2)] == ["", "Hel"]
    with pytest.raises(errors.K9Error) as caught:
        next(pieces)
    assert type(caught.value) is expected


def test_nothing_after_the_end_is_read() -> None:
    raw = wire([begin(), *text(0, "a"), *end()]) + b"data: [DONE]\n\nevent: error\ndata: oops\n\n"
    assert folded(replay(raw))["message"]["content"] == "a"


def test_a_frame_that_is_no_event() -> None:
    with pytest.raises(errors.BackendError, match="not JSON"):
        replay(wire([begin()]) + b"data: oops\n\n" + wire(end()))
    with pytest.raises(errors.BackendError, match="not an object"):
        replay(wire([begin()]) + b"data: 5\n\n")


def test_a_stream_folds_into_the_message_it_would_have_been() -> None:
    message = whole_message(wire(RICH))
    assert message["content"] == [
        {"type": "thinking", "thinking": "Hm – ü.", "signature": "c2ln"},
        REDACTED,
        {"type": "text", "text": "Let me löok. 🌍"},
        {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"city": "Zürich"}},
        {"type": "tool_use", "id": "toolu_2", "name": "f", "input": {}},
    ]
    assert message["stop_reason"] == "tool_use"
    whole = result(CHAT, message)
    assert whole.body is not None
    streamed = folded(replay(wire(RICH)))
    choice = whole.body["choices"][0]
    assert whole.body["usage"] == streamed["usage"]
    assert choice["finish_reason"] == streamed["finish_reason"]
    assert choice["message"]["reasoning"] == streamed["message"]["reasoning"]
    assert choice["message"]["content"] == streamed["message"]["content"]
    arguments = [json.loads(call["function"]["arguments"]) for call in choice["message"]["tool_calls"]]
    assert arguments == [{"city": "Zürich"}, {}]


def test_a_long_whole_answer_comes_as_a_stream() -> None:
    made = DIALECT.parse(CHAT, wire([begin(), *text(0, "a", "b"), *end("max_tokens")]))
    assert made.body is not None
    assert made.body["object"] == "chat.completion"
    assert made.body["choices"][0]["message"]["content"] == "ab"
    assert made.body["choices"][0]["finish_reason"] == "length"
    assert (made.usage.prompt, made.usage.completion) == (11, 6)
    with pytest.raises(errors.StreamTruncated):
        DIALECT.parse(CHAT, wire([begin(), *text(0, "a")]))
    overloaded = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    with pytest.raises(errors.BackendOverloaded):
        DIALECT.parse(CHAT, wire([begin(), overloaded]))


def test_a_tool_call_cut_by_the_limit_keeps_its_text() -> None:
    raw = wire([begin(), *tool_use(0, "toolu_1", '{"a": '), *end("max_tokens")])
    made = DIALECT.parse(CHAT, raw)
    assert made.body is not None
    choice = made.body["choices"][0]
    assert choice["finish_reason"] == "length"
    assert choice["message"]["tool_calls"][0]["function"]["arguments"] == '{"a": '
