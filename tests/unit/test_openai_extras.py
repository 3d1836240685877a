"""What servers of OpenAI's family say beside the answer: reasoning, what stopped them, names."""

from __future__ import annotations

import json
from typing import Any

import pytest

from k9_broker.dialects.openai.dialect import OpenAICompatible
from k9_broker.requests import InferenceRequest, Operation
from openai_frames import frame, replay

DIALECT = OpenAICompatible()
CHAT = InferenceRequest(Operation.CHAT, "m", {"messages": []})


@pytest.mark.parametrize(
    ("delta", "expected"),
    [
        ({"reasoning": "r"}, {"reasoning": "r"}),
        ({"reasoning_content": "r"}, {"reasoning": "r"}),
        ({"reasoning": "r", "reasoning_content": "r"}, {"reasoning": "r"}),
        ({"reasoning": None, "reasoning_content": "r", "content": None}, {"reasoning": "r", "content": None}),
        ({"reasoning": None, "content": "a"}, {"content": "a"}),
        ({"reasoning_content": "", "content": "a"}, {"content": "a"}),
        ({"reasoning": {"text": "r"}}, {}),
    ],
)
def test_reasoning_has_one_name_and_comes_once(delta: dict[str, Any], expected: dict[str, Any]) -> None:
    chunks = replay([frame(delta), frame({}, "stop")])
    assert chunks[0]["choices"][0]["delta"] == expected
    message = {"role": "assistant", **delta}
    raw = json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})
    body = DIALECT.parse(CHAT, raw.encode()).body
    assert body is not None
    assert body["choices"][0]["message"].get("reasoning") == expected.get("reasoning")
    assert "reasoning_content" not in body["choices"][0]["message"]


def test_what_stopped_it_is_a_text_or_nothing() -> None:
    last = frame({}, "stop")
    last["choices"][0] |= {"stop_reason": "END", "token_ids": None}
    first = frame({"content": "a"})
    first["choices"][0] |= {"stop_reason": 128009, "token_ids": [5]}
    one, two, _ = replay([first, last])
    assert "stop_reason" not in one["choices"][0]
    assert one["choices"][0]["token_ids"] == [5]
    assert two["choices"][0]["stop_reason"] == "END"
    assert "token_ids" not in two["choices"][0]


def test_names_come_from_the_first_chunk_that_has_them() -> None:
    nameless = {"id": "", "object": "", "created": 0, "model": ""}
    chunks = replay(
        [
            {**nameless, "choices": []},
            {**nameless, **frame({"content": "a"}), "id": "c1", "model": "n", "created": 5},
            {**frame({}, "stop"), **nameless},
        ]
    )
    assert {(chunk["id"], chunk["model"], chunk["created"]) for chunk in chunks} == {("c1", "n", 5)}
