"""Chat and completions of a real server through K-9, as OpenAI's own client meets them."""

from __future__ import annotations

import json
import time
from typing import Any

import httpx
import pytest
from jsonschema import validate
from openai import OpenAI

from real.gguf_models import CALL, END
from real.llama import LlamaServer

HELLO: list[Any] = [{"role": "user", "content": "hello"}]
WEATHER: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"enum": ["Rome", "Oslo"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 9},
    },
    "required": ["city", "days"],
    "additionalProperties": False,
}
TOOLS: dict[str, Any] = {
    "tools": [{"type": "function", "function": {"name": "get_weather", "parameters": WEATHER}}],
    "tool_choice": "required",
    "max_tokens": 500,
}
"""A random model calls a tool when it is pushed (`PUSHED`); what it says to it is the grammar's work."""


PUSHED = {str(CALL): 60.0, str(END): 59.0}
"""Scores that begin a call at once, and after it another one or the end."""


def test_chat(sdk: OpenAI) -> None:
    answer = sdk.chat.completions.create(model="quick", messages=HELLO, max_tokens=20)
    assert answer.choices[0].message.role == "assistant"
    assert len(answer.choices[0].message.content or "") == 20
    assert answer.choices[0].finish_reason == "length"
    assert answer.model == "quick"
    assert answer.usage
    assert answer.usage.completion_tokens == 20
    assert answer.usage.prompt_tokens > len("hello")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 20


def test_the_same_seed_says_the_same(sdk: OpenAI) -> None:
    def said(seed: int) -> str | None:
        answer = sdk.chat.completions.create(model="quick", messages=HELLO, max_tokens=20, seed=seed)
        return answer.choices[0].message.content

    assert said(7) == said(7) != said(8)


def test_a_stream_says_what_the_whole_answer_says(sdk: OpenAI) -> None:
    asked: dict[str, Any] = {"model": "quick", "messages": HELLO, "max_tokens": 40, "temperature": 0}
    whole = sdk.chat.completions.create(**asked)
    chunks = list(sdk.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "length"
    assert [chunk.usage is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    last, plain = chunks[-1].usage, whole.usage
    assert last
    assert plain
    assert (last.prompt_tokens, last.completion_tokens) == (plain.prompt_tokens, 40)


def test_a_stream_without_wish_for_usage_has_none_and_ends_with_done(http: httpx.Client) -> None:
    body = {"model": "quick", "messages": HELLO, "max_tokens": 3, "stream": True}
    frames = http.post("/v1/chat/completions", json=body).text.strip().split("\n\n")
    assert frames[-1] == "data: [DONE]"
    chunks = [json.loads(frame.removeprefix("data: ")) for frame in frames[:-1] if frame.startswith("data:")]
    assert not [chunk for chunk in chunks if chunk.get("usage") or not chunk["choices"]]
    assert not [chunk for chunk in chunks if "timings" in chunk["choices"][0]]


def test_the_first_token_comes_while_the_others_are_made(sdk: OpenAI) -> None:
    began = time.monotonic()
    stream = sdk.chat.completions.create(model="quick", messages=HELLO, max_tokens=600, stream=True)
    first, end = 0.0, 0.0
    for chunk in stream:
        if not first and chunk.choices and chunk.choices[0].delta.content:
            first = time.monotonic() - began
        end = time.monotonic() - began
    assert 0 < first < end / 4


def test_stop_words_end_an_answer(sdk: OpenAI) -> None:
    asked: dict[str, Any] = {"model": "quick", "messages": HELLO, "max_tokens": 40, "temperature": 0}
    whole = sdk.chat.completions.create(**asked).choices[0].message.content or ""
    cut = sdk.chat.completions.create(**asked, stop=whole[10]).choices[0]
    assert cut.finish_reason == "stop"
    assert cut.message.content == whole[: whole.index(whole[10])]


def calls_of(sdk: OpenAI, stream: bool, **more: Any) -> Any:
    """The choice of a chat with tools; streamed answers are put together by the client's own reader."""
    asked = {"model": "quick", "messages": HELLO, **TOOLS, **more}
    if not stream:
        return sdk.chat.completions.create(**asked).choices[0]
    with sdk.chat.completions.stream(**asked) as events:
        return events.get_final_completion().choices[0]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_forced_tool_calls_are_such_as_can_be_made(sdk: OpenAI, stream: bool) -> None:
    """Each has an id and arguments of its own, however many a seed brings."""
    for seed in range(10):
        choice = calls_of(sdk, stream, logit_bias=PUSHED, seed=seed)
        assert choice.finish_reason == "tool_calls"
        calls = choice.message.tool_calls
        assert len({call.id for call in calls}) == len(calls) >= 1
        for call in calls:
            assert call.function.name == "get_weather"
            validate(json.loads(call.function.arguments), WEATHER)
        if len(calls) > 1:
            return
    pytest.fail("no answer had several calls")


def test_a_tools_result_goes_back_to_the_model(sdk: OpenAI) -> None:
    call = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "get_weather", "arguments": '{"city":"Rome","days":1}'},
    }
    turns: list[Any] = [
        *HELLO,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "sun"},
    ]
    asked = {name: value for name, value in TOOLS.items() if name == "tools"}
    answer = sdk.chat.completions.create(model="quick", messages=turns, max_tokens=5, **asked)
    assert answer.choices[0].message.content
    short = sdk.chat.completions.create(model="quick", messages=HELLO, max_tokens=5, **asked)
    assert answer.usage
    assert short.usage
    assert answer.usage.prompt_tokens > short.usage.prompt_tokens + len('<tool_call>"name"')


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_json_schema_binds_the_answer(sdk: OpenAI, stream: bool) -> None:
    schema = {"name": "weather", "strict": True, "schema": WEATHER}
    asked: dict[str, Any] = {
        "response_format": {"type": "json_schema", "json_schema": schema},
        "max_tokens": 500,
    }
    if stream:
        chunks = list(sdk.chat.completions.create(model="quick", messages=HELLO, stream=True, **asked))
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    else:
        answer = sdk.chat.completions.create(model="quick", messages=HELLO, **asked)
        assert answer.choices[0].finish_reason == "stop"
        text = answer.choices[0].message.content or ""
    validate(json.loads(text), WEATHER)


@pytest.mark.parametrize("prompt", ["hello", [10, 80, 90]], ids=["text", "token ids"])
def test_completions(sdk: OpenAI, prompt: Any) -> None:
    asked: dict[str, Any] = {"model": "quick", "prompt": prompt, "max_tokens": 12, "temperature": 0}
    whole = sdk.completions.create(**asked)
    chunks = list(sdk.completions.create(**asked, stream=True))
    assert len(whole.choices[0].text) == 12
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text
    assert whole.usage
    assert whole.usage.completion_tokens == 12


def test_text_of_all_languages_arrives_whole(sdk: OpenAI, quick: LlamaServer) -> None:
    """A byte-level model reads as many tokens as the text has bytes."""

    def read(text: str) -> int:
        turn: Any = [{"role": "user", "content": text}]
        answer = sdk.chat.completions.create(model="quick", messages=turn, max_tokens=1)
        assert answer.usage
        return answer.usage.prompt_tokens

    assert read("naïve 日本語 🐕") - read("") == len("naïve 日本語 🐕".encode())
