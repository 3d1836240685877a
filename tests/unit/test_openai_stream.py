"""Streams of the openai-compatible dialect: put right while they pass, and never silently cut short."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k9_broker import errors
from k9_broker.dialects.openai.dialect import OpenAICompatible
from k9_broker.requests import InferenceRequest, Operation
from openai_frames import frame, replay

DIALECT = OpenAICompatible()
CHAT = InferenceRequest(Operation.CHAT, "m", {"messages": []})
TEXT = InferenceRequest(Operation.COMPLETIONS, "m", {"prompt": "p"})


def test_a_plain_stream() -> None:
    chunks = replay(
        [
            frame({"role": "assistant", "content": ""}, obfuscation="xx", usage=None, model="n", created=5),
            frame({"content": "Hi", "reasoning_content": "r"}, obfuscation="yy"),
            frame({}, "stop"),
            {"choices": [], "usage": {"prompt_tokens": 2, "completion_tokens": 1}},
        ]
    )
    assert [c["choices"][0]["delta"] for c in chunks[:-1]] == [
        {"role": "assistant", "content": ""},
        {"content": "Hi", "reasoning": "r"},
        {},
    ]
    assert not any({"obfuscation", "usage"} & chunk.keys() for chunk in chunks[:-1])
    assert chunks[-1]["usage"]["total_tokens"] == 3
    assert {name: chunks[-1][name] for name in ("id", "model", "created", "choices")} == {
        "id": "c",
        "model": "n",
        "created": 5,
        "choices": [],
    }


USAGE = {"prompt_tokens": 2, "completion_tokens": 7}


@pytest.mark.parametrize(
    "frames",
    [
        [frame({"content": "a"}), frame({}, "stop"), {"choices": [], "usage": USAGE}],
        [frame({"content": "a"}), frame({}, "stop"), {"choices": None, "usage": USAGE}],
        [frame({"content": "a"}), frame({}, "stop", usage=USAGE)],
        [frame({"content": "a"}, usage={"completion_tokens": 1}), frame({}, "stop", usage=USAGE)],
        [frame({"content": "a"}, "stop"), {"usage": USAGE}],
    ],
)
def test_usage_wherever_it_is(frames: list[Any]) -> None:
    *chunks, last = replay(frames)
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] == 9
    assert all(chunk["choices"] and "usage" not in chunk for chunk in chunks)


def test_usage_is_zeros_when_the_server_is_silent() -> None:
    assert replay([frame({"content": "a"}, "stop")])[-1]["usage"]["total_tokens"] == 0


@pytest.mark.parametrize(
    ("frames", "done", "complete"),
    [
        ([frame({"content": "a"}), frame({}, "stop")], False, True),
        ([frame({"content": "a"})], True, True),
        ([frame({"content": "a"})], False, False),
        ([], False, False),
        ([{"choices": [], "usage": USAGE}], False, False),
        ([frame({"content": "a"}), frame({}, "")], False, False),
    ],
)
def test_what_counts_as_complete(frames: list[Any], done: bool, complete: bool) -> None:
    if not complete:
        with pytest.raises(errors.StreamTruncated):
            replay(frames, done=done)
        return
    reasons = [c["choices"][0]["finish_reason"] for c in replay(frames, done=done) if c["choices"]]
    assert reasons[-1] == "stop"


def test_one_unfinished_choice_of_two_is_truncated() -> None:
    two = [{"index": i, "delta": {"content": "a"}, "finish_reason": None} for i in (0, 1)]
    with pytest.raises(errors.StreamTruncated):
        replay([{"choices": two}, frame({}, "stop")], done=False)


def test_a_frame_cut_at_the_end_is_truncation_not_nonsense() -> None:
    parser = DIALECT.parser(CHAT)
    assert len(list(parser.feed(b'data: {"choices":[{"delta":{}}]}\n\ndata: {"choi'))) == 1
    with pytest.raises(errors.StreamTruncated):
        list(parser.close())


def test_a_broken_frame_in_the_middle_is_an_error() -> None:
    with pytest.raises(errors.BackendError, match="not JSON"):
        list(DIALECT.parser(CHAT).feed(b"data: {oops\n\n"))


def test_chunks_before_an_error_are_given_first() -> None:
    parser = DIALECT.parser(CHAT)
    raw = (
        f"data: {json.dumps(frame({'content': 'a'}))}\n\n"
        + 'data: {"error":{"code":503}}\n\ndata: [DONE]\n\n'
    )
    pieces = parser.feed(raw.encode())
    assert next(pieces)["choices"][0]["delta"] == {"content": "a"}
    with pytest.raises(errors.BackendOverloaded):
        next(pieces)


def test_an_error_event_by_its_name() -> None:
    with pytest.raises(errors.BackendError):
        list(DIALECT.parser(CHAT).feed(b'event: error\ndata: {"message":"x"}\n\n'))


def test_odd_frames_pass() -> None:
    chunks = replay(
        [
            {"choices": [], "prompt_filter_results": []},
            {"choices": [{"finish_reason": None, "content_filter_offsets": {}}]},
            {"choices": [{"delta": None, "finish_reason": "stop"}], "timings": {"x": 1}},
            frame({}, "stop"),
        ]
    )
    assert [chunk["choices"][0]["delta"] for chunk in chunks[:-1]] == [{}, {}, {}]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]] == [None, "stop", None]
    assert chunks[0]["choices"][0]["index"] == 0


def test_completions_stream() -> None:
    frames = [{"choices": [{"index": i, "text": "a", "finish_reason": ""}]} for i in (0, 1)]
    frames += [{"choices": [{"index": i, "text": "", "finish_reason": "eos_token"}]} for i in (0, 1)]
    *chunks, last = replay(frames, TEXT)
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, None, "stop", "stop"]
    assert not any("delta" in chunk["choices"][0] for chunk in chunks)
    assert last["object"] == "text_completion"


def said(name: str | None = None, arguments: Any = None, **call: Any) -> dict[str, Any]:
    return {**call, "function": {"name": name, "arguments": arguments}}


@pytest.mark.parametrize(
    ("deltas", "calls"),
    [
        pytest.param(
            [said("f", "", index=0, id="a1"), said(None, '{"x":', index=0), said(None, "1}", index=0)],
            [("f", '{"x":1}', "a1")],
            id="openai",
        ),
        pytest.param(
            [
                said("f", "{", index=0, id="0"),
                said(None, '"x":1', index=0, id="0"),
                said(None, "}", index=0, id="0"),
            ],
            [("f", '{"x":1}', None)],
            id="tgi repeats id 0",
        ),
        pytest.param(
            [said("f", '{"x":', index=0, id="a1"), said("f", "1}", index=0, id="a1")],
            [("f", '{"x":1}', "a1")],
            id="id and name repeated",
        ),
        pytest.param(
            [said("f", '{"x":', id="a1"), said(None, "1}")], [("f", '{"x":1}', "a1")], id="no index"
        ),
        pytest.param(
            [said("f", '{"x":', id="a1"), said("g", "{}", id="b2"), said(None, "1}", id="a1")],
            [("f", '{"x":1}', "a1"), ("g", "{}", "b2")],
            id="no index, interleaved by id",
        ),
        pytest.param(
            [said("f", '{"x":1}', index=0, id="a1"), said("f", "{}", index=0, id="b2")],
            [("f", '{"x":1}', "a1"), ("f", "{}", "b2")],
            id="two calls under index 0",
        ),
        pytest.param(
            [said("f", {"x": 1}), said("f", {"y": 2})],
            [("f", '{"x":1}', None), ("f", '{"y":2}', None)],
            id="whole objects without id or index",
        ),
        pytest.param(
            [said("f", {"x": 1}, index=0), said("f", {"y": 2}, index=0)],
            [("f", '{"x":1}', None), ("f", '{"y":2}', None)],
            id="whole objects under index 0",
        ),
        pytest.param(
            [said("f", "{}", index=0), said("g", "{}", index=0)],
            [("f", "{}", None), ("g", "{}", None)],
            id="another name is another call",
        ),
        pytest.param(
            [said(None, "", index=0, id="a1"), said("f", "{}", index=0)],
            [("f", "{}", "a1")],
            id="name comes late",
        ),
        pytest.param([{"index": 0, "id": "a1", "function": None}], [(None, "", "a1")], id="no function"),
    ],
)
@pytest.mark.parametrize("together", [True, False])
def test_tool_call_deltas(
    deltas: list[dict[str, Any]], calls: list[tuple[str, str, str | None]], together: bool
) -> None:
    groups = [deltas] if together else [[delta] for delta in deltas]
    chunks = replay([frame({"tool_calls": group}) for group in groups] + [frame({}, "stop")])
    pieces = [
        piece
        for chunk in chunks
        if chunk["choices"]
        for piece in chunk["choices"][0]["delta"].get("tool_calls", [])
    ]
    merged: dict[int, dict[str, Any]] = {}
    for piece in pieces:
        call = merged.setdefault(piece["index"], {"arguments": "", "name": None, "id": None})
        assert call["id"] is None or "id" not in piece
        assert call["name"] is None or "name" not in piece["function"]
        call["id"] = piece.get("id", call["id"])
        call["name"] = piece["function"].get("name", call["name"])
        call["arguments"] += piece["function"]["arguments"]
    assert list(merged) == list(range(len(calls)))
    for found, (name, arguments, call_id) in zip(merged.values(), calls, strict=True):
        assert (found["name"], found["arguments"]) == (name, arguments)
        assert found["id"] == call_id if call_id else found["id"].startswith("call_")
    assert len({call["id"] for call in merged.values()}) == len(calls)
    assert [c["choices"][0]["finish_reason"] for c in chunks[:-1]][-1] == "tool_calls"


WORDS = ["choices", "index", "delta", "message", "content", "tool_calls", "function", "name", "arguments"]
WORDS += ["id", "finish_reason", "usage", "prompt_tokens", "error", "data", "embedding", "text"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(WORDS),
            inner,
            max_size=4,
        )
    ),
    max_leaves=14,
)


@settings(max_examples=400, deadline=None)
@given(frames=st.lists(JSON, max_size=3), operation=st.sampled_from(Operation))
def test_no_frame_and_no_body_breaks_the_reader(frames: list[Any], operation: Operation) -> None:
    """Whatever a server sends, what comes out is an answer or an error of the tree."""
    request = InferenceRequest(operation, "m", {"input": ["a"]})
    for read in (
        lambda: replay(frames, request),
        lambda: DIALECT.parse(request, json.dumps(frames[0]).encode()),
    ):
        if not frames:
            continue
        with contextlib.suppress(errors.K9Error):
            read()
