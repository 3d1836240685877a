"""OpenAI's requests in TGI's words; what has no counterpart there is refused by name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from k9_broker import errors
from k9_broker.dialects.registry import dialect_named
from k9_broker.dialects.tgi.dialect import Tgi
from k9_broker.requests import InferenceRequest, Operation

DIALECT = Tgi()
USER = {"role": "user", "content": "hi"}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": SCHEMA}}


def chat(**body: Any) -> InferenceRequest:
    return InferenceRequest(Operation.CHAT, "org/m", {"model": "alias", "messages": [USER], **body})


def text(**body: Any) -> InferenceRequest:
    return InferenceRequest(Operation.COMPLETIONS, "org/m", {"prompt": "p", **body})


def sent(request: InferenceRequest, **options: Any) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(DIALECT.build(request, options).body)
    return body


def test_it_is_registered() -> None:
    assert isinstance(dialect_named("tgi"), Tgi)


def test_the_simplest_requests_in_full() -> None:
    assert sent(chat()) == {"model": "tgi", "messages": [USER], "stream": False}
    assert sent(text()) == {"inputs": "p", "parameters": {"details": True, "do_sample": True}}
    asked = [chat(), chat(stream=True), text(), text(stream=True)]
    assert [DIALECT.build(request, {}).path for request in asked] == [
        "/v1/chat/completions",
        "/v1/chat/completions",
        "/generate",
        "/generate_stream",
    ]
    assert DIALECT.headers("k") == {"authorization": "Bearer k"}
    assert DIALECT.headers(None) == {}


def test_usage_is_always_asked_for() -> None:
    body = sent(chat(stream=True, stream_options={"include_usage": False}))
    assert (body["stream"], body["stream_options"]) == (True, {"include_usage": True})


def test_only_adapters_go_by_name() -> None:
    assert sent(chat(), adapters=["org/m"])["model"] == "org/m"
    assert sent(chat(), adapters=["other"])["model"] == "tgi"
    assert sent(text(), adapters=["org/m"])["parameters"]["adapter_id"] == "org/m"
    assert "adapter_id" not in sent(text())["parameters"]


@pytest.mark.parametrize(
    ("asked", "made"),
    [
        ({"stop": "X"}, {"stop": ["X"]}),
        ({"stop": ["X", "Y"]}, {"stop": ["X", "Y"]}),
        ({"max_tokens": 5}, {"max_tokens": 5}),
        ({"max_completion_tokens": 6}, {"max_tokens": 6}),
        ({"max_tokens": 5, "max_completion_tokens": 6}, {"max_tokens": 6}),
        ({"temperature": 0.7, "top_p": 0.5, "seed": 7}, {"temperature": 0.7, "top_p": 0.5, "seed": 7}),
        ({"top_p": 1}, {}),
        ({"temperature": 0, "top_p": 0.5}, {"temperature": 0}),
        ({"frequency_penalty": 0.5}, {"frequency_penalty": 0.5}),
        ({"repetition_penalty": 1.5}, {"presence_penalty": -0.5}),
        ({"repetition_penalty": 1}, {}),
        ({"logprobs": True, "top_logprobs": 2}, {"logprobs": True, "top_logprobs": 2}),
        ({"tool_prompt": "use them"}, {"tool_prompt": "use them"}),
    ],
)
def test_parameters_of_a_chat(asked: dict[str, Any], made: dict[str, Any]) -> None:
    assert sent(chat(**asked)) == {**sent(chat()), **made}


@pytest.mark.parametrize(
    ("asked", "made"),
    [
        ({"max_tokens": 5}, {"max_new_tokens": 5}),
        ({"stop": "X"}, {"stop": ["X"]}),
        ({"temperature": 0}, {"do_sample": False}),
        (
            {"temperature": 0.0, "top_p": 0.9, "top_k": 5, "typical_p": 0.5, "seed": 1},
            {"do_sample": False, "seed": 1},
        ),
        ({"temperature": 0.5, "top_p": 0.9}, {"temperature": 0.5, "top_p": 0.9}),
        ({"top_p": 1, "typical_p": 1.0, "top_k": -1}, {}),
        ({"top_k": 3, "typical_p": 0.9}, {"top_k": 3, "typical_p": 0.9}),
        (
            {"repetition_penalty": 1.1, "frequency_penalty": 0.1},
            {"repetition_penalty": 1.1, "frequency_penalty": 0.1},
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}},
            {"grammar": {"type": "json", "value": SCHEMA}},
        ),
        ({"watermark": True}, {"watermark": True}),
    ],
)
def test_parameters_of_a_completion(asked: dict[str, Any], made: dict[str, Any]) -> None:
    bare = sent(text())
    assert sent(text(**asked)) == {**bare, "parameters": {**bare["parameters"], **made}}


def test_one_prompt_in_a_list_is_one_prompt() -> None:
    assert sent(text(prompt=["a"]))["inputs"] == "a"


@pytest.mark.parametrize(
    ("given", "made"),
    [
        (
            {"type": "json_schema", "json_schema": {"schema": SCHEMA, "strict": True}},
            {"type": "json", "value": SCHEMA},
        ),
        ({"type": "json_object", "schema": SCHEMA}, {"type": "json", "value": SCHEMA}),
        ({"type": "json_object", "value": SCHEMA}, {"type": "json", "value": SCHEMA}),
        ({"type": "json", "value": SCHEMA}, {"type": "json", "value": SCHEMA}),
        ({"type": "regex", "value": "a+"}, {"type": "regex", "value": "a+"}),
        ({"type": "text"}, None),
    ],
)
def test_formats(given: dict[str, Any], made: dict[str, Any] | None) -> None:
    assert sent(chat(response_format=given)).get("response_format") == made


@pytest.mark.parametrize("parallel", [True, False])
def test_there_is_never_more_than_one_call(parallel: bool) -> None:
    assert sent(chat(tools=[TOOL], parallel_tool_calls=parallel)) == sent(chat(tools=[TOOL]))


@pytest.mark.parametrize(
    "asked",
    [
        {"n": 1, "logit_bias": {}, "parallel_tool_calls": True, "presence_penalty": 0, "tools": []},
        {"user": "u", "metadata": {"a": "b"}, "store": True, "service_tier": "auto", "prompt_cache_key": "x"},
        {"temperature": None, "n": None, "anything": None, "stop": None},
        {"reasoning_effort": "none", "thinking": {"type": "disabled"}, "cache_control": {}},
        {"top_k": -1, "min_p": 0, "modalities": ["text"]},
        {"response_format": {"type": "text"}, "tool_choice": "none"},
    ],
)
def test_what_changes_nothing_is_left_out(asked: dict[str, Any]) -> None:
    assert sent(chat(**asked)) == sent(chat())


def parts(*given: dict[str, Any]) -> list[dict[str, Any]]:
    return [{**USER, "content": list(given)}]


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        (chat(n=2), "n"),
        (chat(logit_bias={"1": 5}), "logit_bias"),
        (chat(presence_penalty=0.5), "presence_penalty"),
        (chat(reasoning_effort="low"), "reasoning_effort"),
        (chat(top_k=5), "top_k"),
        (chat(min_p=0.1), "min_p"),
        (chat(modalities=["audio"]), "modalities"),
        (chat(functions=[{}]), "functions"),
        (chat(guided_json={}), "guided_json"),
        (chat(tools=[TOOL], tool_choice={"type": "allowed_tools"}), "tool_choice"),
        (chat(tools=[TOOL], tool_choice="f"), "tool_choice"),
        (chat(tools=[{"type": "custom", "custom": {"name": "c"}}]), "tools[0]"),
        (chat(tools=[TOOL], response_format={"type": "json_object", "schema": SCHEMA}), "response_format"),
        (chat(response_format={"type": "json_object"}), "response_format"),
        (chat(response_format={"type": "grammar"}), "response_format"),
        (chat(response_format="json"), "response_format"),
        (chat(messages=parts({"type": "input_audio"})), "messages[0].content[0].type"),
        (
            chat(messages=parts({"type": "text", "text": "a"}, {"type": "file"})),
            "messages[0].content[1].type",
        ),
        (
            chat(messages=parts({"type": "image_url", "image_url": {"url": "file:///etc/x.png"}})),
            "messages[0].content[0].image_url",
        ),
        (chat(messages=[{"role": "function", "content": "x"}]), "messages[0].role"),
        (text(prompt=["a", "b"]), "prompt"),
        (text(prompt=[1, 2]), "prompt"),
        (text(prompt=None), "prompt"),
        (text(echo=True), "echo"),
        (text(suffix="s"), "suffix"),
        (text(best_of=2), "best_of"),
        (text(n=2), "n"),
        (text(logprobs=1), "logprobs"),
        (text(presence_penalty=1), "presence_penalty"),
        (text(tools=[TOOL]), "tools"),
    ],
)
def test_what_tgi_cannot_do_is_refused_by_name(request_: InferenceRequest, param: str) -> None:
    with pytest.raises(errors.UnsupportedParameter) as caught:
        DIALECT.build(request_, {})
    assert caught.value.param == param
    assert caught.value.message.startswith("TGI does not support")


def call(**function: Any) -> dict[str, Any]:
    return {"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": function}]}


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        (chat(messages=[]), "messages"),
        (chat(messages="hi"), "messages"),
        (chat(messages=[USER, "x"]), "messages[1]"),
        (chat(messages=[{"role": "assistant", "tool_calls": [{"id": "c"}]}]), "messages[0].tool_calls[0]"),
        (chat(response_format={"type": "json_schema"}), "response_format.json_schema.schema"),
    ],
)
def test_bad_requests_name_the_field(request_: InferenceRequest, param: str) -> None:
    with pytest.raises(errors.BadRequest) as caught:
        DIALECT.build(request_, {})
    assert (type(caught.value), caught.value.param) == (errors.BadRequest, param)


def test_options_are_defaults_where_the_operation_knows_them() -> None:
    options = {"repetition_penalty": 1.5, "top_k": 9, "temperature": 0.1, "truncate": True, "adapters": []}
    assert sent(text(temperature=0.9), **options)["parameters"] == {
        "details": True,
        "do_sample": True,
        "temperature": 0.9,
        "top_k": 9,
        "repetition_penalty": 1.5,
    }
    made = sent(chat(), **options)
    assert {name: value for name, value in made.items() if name not in sent(chat())} == {
        "temperature": 0.1,
        "presence_penalty": -0.5,
    }
