"""The fake's OpenAI side, seen by the official SDK."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from k9_broker.testing import FakeServer

CAPITAL = [{"role": "user", "content": "What is the capital of France?"}]
BOTH = "Use the tool get_weather, then use the tool get_traffic."
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1}},
                "required": ["city", "days"],
            },
        },
    }
    for name in ("get_weather", "get_traffic")
]


@pytest.fixture(scope="module")
def sdk(fake_server: FakeServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{fake_server.url}/v1", api_key="sk-test", max_retries=0) as client:
        yield client


def cosine(one: list[float], other: list[float]) -> float:
    return sum(x * y for x, y in zip(one, other, strict=True))


def test_chat(fake: FakeServer, sdk: openai.OpenAI) -> None:
    answer = sdk.chat.completions.create(model="fake-chat", messages=CAPITAL)
    choice = answer.choices[0]
    assert choice.finish_reason == "stop"
    assert choice.message.role == "assistant"
    assert choice.message.content.endswith(".")
    assert len(choice.message.content.split()) == 15
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (7, 16)
    assert answer.usage.total_tokens == 23


async def test_chat_async_streamed_is_the_plain_answer(fake: FakeServer, sdk: openai.OpenAI) -> None:
    plain = sdk.chat.completions.create(model="fake-chat", messages=CAPITAL)
    async with openai.AsyncOpenAI(base_url=f"{fake.url}/v1", api_key="k", max_retries=0) as client:
        stream = await client.chat.completions.create(
            model="fake-chat", messages=CAPITAL, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == plain.choices[0].message.content
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].usage == plain.usage
    assert {chunk.id for chunk in chunks} == {plain.id}


@pytest.mark.parametrize(
    ("changes", "finish", "tokens"),
    [
        ({"max_tokens": 3}, "length", 3),
        ({"max_completion_tokens": 5, "max_tokens": 3}, "length", 5),
        ({"max_tokens": 16}, "stop", 16),
        ({"max_tokens": 500}, "stop", 16),
    ],
)
def test_limits(sdk: openai.OpenAI, fake: FakeServer, changes: Any, finish: str, tokens: int) -> None:
    answer = sdk.chat.completions.create(model="fake-chat", messages=CAPITAL, **changes)
    assert answer.choices[0].finish_reason == finish
    assert answer.usage.completion_tokens == tokens


def test_stop_ends_the_text_before_it(fake: FakeServer, sdk: openai.OpenAI) -> None:
    whole = sdk.chat.completions.create(model="fake-chat", messages=CAPITAL).choices[0].message.content
    word = whole.split()[4]
    stopped = sdk.chat.completions.create(model="fake-chat", messages=CAPITAL, stop=["zzz", word]).choices[0]
    assert stopped.message.content == whole[: whole.index(word)]
    assert stopped.finish_reason == "stop"


def test_seed_and_choices_change_the_answer_and_nothing_else_does(
    fake: FakeServer, sdk: openai.OpenAI
) -> None:
    def told(**changes: Any) -> list[str]:
        answer = sdk.chat.completions.create(model="fake-chat", messages=CAPITAL, **changes)
        return [choice.message.content for choice in answer.choices]

    assert told() == told(temperature=1.3, user="somebody")
    assert told(seed=1) != told(seed=2)
    two = told(n=2)
    assert two[0] == told()[0] != two[1]


def test_streamed_choices_are_the_plain_ones(fake: FakeServer, sdk: openai.OpenAI) -> None:
    plain = sdk.chat.completions.create(model="fake-chat", messages=CAPITAL, n=3)
    told = ["", "", ""]
    for chunk in sdk.chat.completions.create(model="fake-chat", messages=CAPITAL, n=3, stream=True):
        told[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert told == [choice.message.content for choice in plain.choices]


@pytest.mark.parametrize(
    ("choice", "said", "names", "finish"),
    [
        ("required", "hello", ["get_weather"], "tool_calls"),
        ({"type": "function", "function": {"name": "get_traffic"}}, "hello", ["get_traffic"], "stop"),
        ("auto", "please use the tool get_traffic.", ["get_traffic"], "tool_calls"),
        ("auto", BOTH, ["get_weather", "get_traffic"], "tool_calls"),
        ("auto", "hello", [], "stop"),
        ("none", "use the tool get_traffic", [], "stop"),
        ("auto", "use the tool get_nothing", [], "stop"),
    ],
)  # fmt: skip
def test_tools(fake: FakeServer, sdk: openai.OpenAI, choice: Any, said: str, names: Any, finish: str) -> None:
    asked = {"model": "fake-chat", "messages": [{"role": "user", "content": said}], "tools": TOOLS}
    plain = sdk.chat.completions.create(**asked, tool_choice=choice).choices[0]
    calls = plain.message.tool_calls or []
    assert [call.function.name for call in calls] == names
    assert plain.finish_reason == finish
    assert len({call.id for call in calls}) == len(calls)
    for call in calls:
        arguments = json.loads(call.function.arguments)
        assert isinstance(arguments["city"], str)
        assert arguments["days"] >= 1
    with sdk.chat.completions.stream(**asked, tool_choice=choice) as stream:
        final = stream.get_final_completion().choices[0]
    assert final.finish_reason == finish
    streamed = final.message.tool_calls or []
    assert [(call.id, call.function.name, call.function.arguments) for call in streamed] == [
        (call.id, call.function.name, call.function.arguments) for call in calls
    ]


def test_after_a_tools_result_it_answers_in_words(fake: FakeServer, sdk: openai.OpenAI) -> None:
    messages: list[Any] = [{"role": "user", "content": "use the tool get_weather"}]
    called = sdk.chat.completions.create(model="fake-chat", messages=messages, tools=TOOLS).choices[0].message
    messages += [
        called.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": called.tool_calls[0].id, "content": "sunny"},
    ]
    answer = sdk.chat.completions.create(model="fake-chat", messages=messages, tools=TOOLS).choices[0]
    assert answer.finish_reason == "stop"
    assert answer.message.content


def test_json_answers(fake: FakeServer, sdk: openai.OpenAI) -> None:
    def told(wanted: Any) -> Any:
        answer = sdk.chat.completions.create(model="fake-chat", messages=CAPITAL, response_format=wanted)
        return json.loads(answer.choices[0].message.content)

    assert isinstance(told({"type": "json_object"}), dict)
    schema = {
        "$defs": {"point": {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"]}},
        "type": "object",
        "properties": {
            "kind": {"enum": ["a", "b"]},
            "points": {"type": "array", "items": {"$ref": "#/$defs/point"}, "minItems": 2},
            "maybe": {"anyOf": [{"type": "integer", "maximum": -3}, {"type": "null"}]},
        },
        "required": ["kind", "points", "maybe"],
    }
    value = told({"type": "json_schema", "json_schema": {"name": "shape", "schema": schema}})
    assert value["kind"] in ("a", "b")
    assert len(value["points"]) == 2
    assert all(isinstance(point["x"], float | int) for point in value["points"])
    assert value["maybe"] <= -3


def test_completions(fake: FakeServer, sdk: openai.OpenAI) -> None:
    answer = sdk.completions.create(model="fake-chat", prompt=["one", "two"], max_tokens=4, n=2)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert {choice.finish_reason for choice in answer.choices} == {"length"}
    assert answer.usage.completion_tokens == 16
    alone = sdk.completions.create(model="fake-chat", prompt="two", max_tokens=4)
    assert alone.choices[0].text == answer.choices[2].text
    streamed = sdk.completions.create(model="fake-chat", prompt="two", max_tokens=4, stream=True)
    assert "".join(chunk.choices[0].text for chunk in streamed) == alone.choices[0].text
    by_ids = sdk.completions.create(model="fake-chat", prompt=[[1, 2], [3]], max_tokens=4)
    assert len(by_ids.choices) == 2
    assert by_ids.usage.prompt_tokens == 3


def test_embeddings_in_every_shape(fake: FakeServer, sdk: openai.OpenAI) -> None:
    texts = ["run a function in a process", "running functions in processes", "flowers of the summer"]
    packed = sdk.embeddings.create(model="fake-embed", input=texts)  # the SDK asks for base64 by itself
    floats = sdk.embeddings.create(model="fake-embed", input=texts, encoding_format="float")
    assert fake.requests()[-2]["body"]["encoding_format"] == "base64"
    assert [item.embedding for item in packed.data] == [item.embedding for item in floats.data]
    assert [item.index for item in packed.data] == [0, 1, 2]
    assert packed.usage.prompt_tokens == 6 + 4 + 4
    first, like, unlike = (item.embedding for item in floats.data)
    assert all(math.isclose(math.hypot(*each), 1, abs_tol=1e-6) for each in (first, like, unlike))
    assert cosine(first, like) > 0.4 > cosine(first, unlike)
    short = sdk.embeddings.create(model="fake-embed", input="x", dimensions=8)
    assert len(short.data[0].embedding) == 8
    assert len(first) == 64


def test_embeddings_of_token_ids(fake: FakeServer, sdk: openai.OpenAI) -> None:
    one = sdk.embeddings.create(model="fake-embed", input=[1, 2, 3])
    two = sdk.embeddings.create(model="fake-embed", input=[[1, 2, 3], [4]])
    assert len(one.data) == 1
    assert two.data[0].embedding == one.data[0].embedding
    assert two.usage.prompt_tokens == 4


def test_models(fake: FakeServer, sdk: openai.OpenAI) -> None:
    fake.behave(models=["org/model:tag", "fake-chat"])
    assert [model.id for model in sdk.models.list()] == ["org/model:tag", "fake-chat"]
    assert sdk.models.retrieve("org/model:tag").id == "org/model:tag"
    with pytest.raises(openai.NotFoundError) as caught:
        sdk.models.retrieve("other")
    assert caught.value.code == "model_not_found"


def test_unknown_model(fake: FakeServer, sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        sdk.chat.completions.create(model="nope", messages=CAPITAL)
    assert caught.value.body == {
        "message": "The model `nope` does not exist or you do not have access to it.",
        "type": "invalid_request_error",
        "param": None,
        "code": "model_not_found",
    }


def test_a_prompt_that_is_too_long(fake: FakeServer, sdk: openai.OpenAI) -> None:
    fake.behave(context_tokens=20)
    sdk.chat.completions.create(model="fake-chat", messages=CAPITAL, max_tokens=13)
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.chat.completions.create(model="fake-chat", messages=CAPITAL, max_tokens=14)
    assert caught.value.code == "context_length_exceeded"


@pytest.mark.parametrize("choice", [{"type": "function", "function": 3}, {"type": "x"}])
def test_a_tool_choice_that_names_no_tool(fake: FakeServer, sdk: openai.OpenAI, choice: Any) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.chat.completions.create(model="fake-chat", messages=CAPITAL, tool_choice=choice)
    assert caught.value.param == "tool_choice"
