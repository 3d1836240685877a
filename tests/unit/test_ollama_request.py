"""OpenAI's requests in Ollama's words; what has no counterpart there is refused by name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from k9_broker import errors
from k9_broker.dialects.ollama.dialect import Ollama
from k9_broker.requests import InferenceRequest, Operation

DIALECT = Ollama()
USER = {"role": "user", "content": "hi"}
PNG = "data:image/png;base64,aGk="


def chat(**body: Any) -> InferenceRequest:
    return InferenceRequest(Operation.CHAT, "m", {"model": "alias", "messages": [USER], **body})


def text(**body: Any) -> InferenceRequest:
    return InferenceRequest(Operation.COMPLETIONS, "m", {"prompt": "p", **body})


def embed(given: Any, **body: Any) -> InferenceRequest:
    return InferenceRequest(Operation.EMBEDDINGS, "m", {"input": given, **body})


def sent(request: InferenceRequest, **options: Any) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(DIALECT.build(request, options).body)
    return body


def test_the_simplest_requests_in_full() -> None:
    whole = {"model": "m", "truncate": False, "shift": False}
    assert sent(chat()) == {**whole, "messages": [USER], "stream": False}
    assert sent(text(stream=True)) == {**whole, "prompt": "p", "stream": True}
    assert sent(embed("a")) == {"model": "m", "input": ["a"], "truncate": False}
    paths = [DIALECT.build(request, {}).path for request in (chat(), text(), embed("a"))]
    assert paths == ["/api/chat", "/api/generate", "/api/embed"]


@pytest.mark.parametrize(
    ("asked", "options"),
    [
        ({"max_tokens": 5}, {"num_predict": 5}),
        ({"max_completion_tokens": 6}, {"num_predict": 6}),
        ({"max_tokens": 5, "max_completion_tokens": 6}, {"num_predict": 6}),
        ({"stop": "X"}, {"stop": ["X"]}),
        ({"stop": ["X", "Y"]}, {"stop": ["X", "Y"]}),
        ({"temperature": 0, "top_p": 0.5, "seed": 7}, {"temperature": 0, "top_p": 0.5, "seed": 7}),
        ({"presence_penalty": 1, "frequency_penalty": -1}, {"presence_penalty": 1, "frequency_penalty": -1}),
        (
            {"top_k": 3, "min_p": 0.1, "repetition_penalty": 1.1},
            {"top_k": 3, "min_p": 0.1, "repeat_penalty": 1.1},
        ),
    ],
)
def test_parameters_become_options(asked: dict[str, Any], options: dict[str, Any]) -> None:
    assert sent(chat(**asked))["options"] == options
    assert sent(text(**asked))["options"] == options


def test_backend_options() -> None:
    body = sent(chat(temperature=0), num_ctx=8192, keep_alive="10m", temperature=1, truncate=True)
    assert body["options"] == {"num_ctx": 8192, "temperature": 0}
    assert (body["keep_alive"], body["truncate"]) == ("10m", True)
    assert sent(embed("a"), num_ctx=512)["options"] == {"num_ctx": 512}
    assert sent(chat(), shift=True)["shift"] is True
    assert [sent(chat(max_tokens=n), num_ctx=8192)["options"]["num_ctx"] for n in (1, 9000)] == [8192, 8192]


@pytest.mark.parametrize(
    ("asked", "made"),
    [
        ({"response_format": {"type": "json_object"}}, {"format": "json"}),
        ({"response_format": {"type": "json_object", "schema": {"a": 1}}}, {"format": {"a": 1}}),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {"b": 1}}}},
            {"format": {"b": 1}},
        ),
        ({"response_format": {"type": "text"}}, {}),
        ({"reasoning_effort": "none"}, {"think": False}),
        ({"reasoning_effort": "minimal"}, {"think": "low"}),
        ({"reasoning_effort": "high"}, {"think": "high"}),
        ({"reasoning_effort": "max"}, {"think": "max"}),
        ({"reasoning_effort": "low", "thinking": {"type": "enabled", "budget_tokens": 9}}, {"think": "low"}),
        ({"tools": [{"t": 1}]}, {"tools": [{"t": 1}]}),
        ({"tools": [{"t": 1}], "tool_choice": "auto"}, {"tools": [{"t": 1}]}),
        ({"tools": [{"t": 1}], "tool_choice": "none"}, {}),
        ({"tools": [{"t": 1, "cache_control": {"type": "ephemeral"}}]}, {"tools": [{"t": 1}]}),
    ],
)
def test_fields_of_their_own(asked: dict[str, Any], made: dict[str, Any]) -> None:
    assert sent(chat(**asked)) == {**sent(chat()), **made}


@pytest.mark.parametrize(
    "asked",
    [
        {"n": 1, "logprobs": False, "top_logprobs": 0, "logit_bias": {}, "parallel_tool_calls": True},
        {
            "user": "u",
            "metadata": {"a": "b"},
            "store": False,
            "service_tier": "auto",
            "safety_identifier": "x",
        },
        {"temperature": None, "n": None, "tools": None, "stop": None, "anything": None},
        {"modalities": ["text"], "stream_options": {"include_usage": True}},
        {"thinking": {"type": "disabled"}, "cache_control": {"type": "ephemeral"}, "tools": []},
    ],
)
def test_what_changes_nothing_is_left_out(asked: dict[str, Any]) -> None:
    assert sent(chat(**asked)) == sent(chat())


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        (chat(tool_choice="required"), "tool_choice"),
        (chat(tool_choice={"type": "function", "function": {"name": "f"}}), "tool_choice"),
        (chat(n=2), "n"),
        (chat(logprobs=True), "logprobs"),
        (chat(top_logprobs=2), "top_logprobs"),
        (chat(logit_bias={"1": 5}), "logit_bias"),
        (chat(parallel_tool_calls=False), "parallel_tool_calls"),
        (chat(modalities=["text", "audio"]), "modalities"),
        (chat(functions=[{}]), "functions"),
        (chat(num_ctx=4096), "num_ctx"),
        (chat(keep_alive=0), "keep_alive"),
        (chat(reasoning_effort="extreme"), "reasoning_effort"),
        (chat(response_format={"type": "grammar"}), "response_format"),
        (text(prompt=["a", "b"]), "prompt"),
        (text(prompt=[1, 2]), "prompt"),
        (text(logprobs=0), "logprobs"),
        (text(echo=True), "echo"),
        (text(best_of=2), "best_of"),
        (text(tools=[{}]), "tools"),
        (embed([1, 2]), "input"),
        (embed([[1, 2], [3]]), "input"),
        (embed("a", temperature=1), "temperature"),
        (
            chat(
                messages=[
                    {**USER, "content": [{"type": "image_url", "image_url": {"url": "http://x/y.png"}}]}
                ]
            ),
            "messages[0].content[0].image_url",
        ),
        (
            chat(messages=[USER, {**USER, "content": [{"type": "input_audio"}]}]),
            "messages[1].content[0].type",
        ),
        (
            chat(
                messages=[{**USER, "content": [{"type": "file", "file": {"file_data": "data:a/b;base64,"}}]}]
            ),
            "messages[0].content[0].type",
        ),
        (chat(messages=[{"role": "function", "content": "x"}]), "messages[0].role"),
    ],
)
def test_what_ollama_cannot_do_is_refused_by_name(request_: InferenceRequest, param: str) -> None:
    with pytest.raises(errors.UnsupportedParameter) as caught:
        DIALECT.build(request_, {})
    assert caught.value.param == param
    assert caught.value.message.startswith("Ollama does not support")


def call(arguments: Any) -> dict[str, Any]:
    return {
        "role": "assistant",
        "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": arguments}}],
    }


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        (chat(messages=[]), "messages"),
        (chat(messages="hi"), "messages"),
        (chat(messages=[USER, "x"]), "messages[1]"),
        (chat(messages=[call("{oops")]), "messages[0].tool_calls[0].function.arguments"),
        (chat(messages=[call("[1]")]), "messages[0].tool_calls[0].function.arguments"),
        (chat(response_format={"type": "json_schema"}), "response_format.json_schema.schema"),
        (text(prompt=""), "prompt"),
        (text(prompt=[""]), "prompt"),
        (embed(""), "input"),
        (embed(["a", ""]), "input"),
        (embed([]), "input"),
    ],
)
def test_bad_requests_name_the_field(request_: InferenceRequest, param: str) -> None:
    with pytest.raises(errors.BadRequest) as caught:
        DIALECT.build(request_, {})
    assert (type(caught.value), caught.value.param) == (errors.BadRequest, param)


def test_a_conversation_with_tools_and_images() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": PNG}}]
    messages = [
        {"role": "developer", "content": "rules"},
        {"role": "user", "name": "ann", "content": [*parts, {"type": "text", "text": "b"}]},
        {**call('{"x": 1}'), "content": None, "reasoning_content": "hm"},
        {"role": "tool", "tool_call_id": "c", "content": "42"},
        {"role": "tool", "tool_call_id": "lost", "content": [{"type": "text", "text": "43"}]},
        call(""),
    ]
    f = {"id": "c", "function": {"name": "f", "arguments": {"x": 1}}}
    assert sent(chat(messages=messages))["messages"] == [
        {"role": "system", "content": "rules"},
        {"role": "user", "content": "a\nb", "images": ["aGk="]},
        {"role": "assistant", "content": "", "thinking": "hm", "tool_calls": [f]},
        {"role": "tool", "content": "42", "tool_call_id": "c", "tool_name": "f"},
        {"role": "tool", "content": "43", "tool_call_id": "lost"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": {}}}],
        },
    ]


def test_bookkeeping_of_other_services_is_left_out_of_messages() -> None:
    cached = {"cache_control": {"type": "ephemeral"}}
    blocks = [{"type": "thinking", "thinking": "hm", "signature": "s"}]
    messages = [
        {"role": "system", "content": [{"type": "text", "text": "rules", **cached}], **cached},
        {**call("{}"), "reasoning": "hm", "thinking_blocks": blocks},
        {
            "role": "tool",
            "tool_call_id": "c",
            "is_error": True,
            "content": [{"type": "text", "text": "no"}, {"type": "image_url", "image_url": {"url": PNG}}],
        },
    ]
    assert sent(chat(messages=messages))["messages"] == [
        {"role": "system", "content": "rules"},
        {
            "role": "assistant",
            "content": "",
            "thinking": "hm",
            "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": {}}}],
        },
        {"role": "tool", "content": "no", "images": ["aGk="], "tool_call_id": "c", "tool_name": "f"},
    ]
