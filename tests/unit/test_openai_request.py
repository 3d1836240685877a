"""One request in the words of every server of OpenAI's family: translated or refused, never dropped."""

from __future__ import annotations

import json
from typing import Any

import pytest

from k9_broker import errors
from k9_broker.dialects.registry import dialect_named
from k9_broker.requests import InferenceRequest, Operation

FAMILY = ("openai", "azure", "vllm", "llama.cpp", "openai-compatible")
CLOUDS = ("openai", "azure")
LOCAL = ("vllm", "llama.cpp")
USER = {"role": "user", "content": "hi"}


def sent(
    dialect: str,
    body: dict[str, Any],
    options: dict[str, Any] | None = None,
    operation: Operation = Operation.CHAT,
) -> dict[str, Any]:
    given = {Operation.CHAT: {"messages": [USER]}, Operation.COMPLETIONS: {"prompt": "p"}}
    request = InferenceRequest(operation, "m", {**given.get(operation, {"input": ["a"]}), **body})
    made: dict[str, Any] = json.loads(dialect_named(dialect).build(request, options or {}).body)
    if dialect == "llama.cpp" and not request.stream and operation is not Operation.EMBEDDINGS:
        assert (made.pop("stream"), made.pop("stream_options")) == (True, {"include_usage": True})
    return made


def refused(dialect: str, body: dict[str, Any], operation: Operation = Operation.CHAT) -> str:
    with pytest.raises(errors.UnsupportedParameter) as caught:
        sent(dialect, body, operation=operation)
    assert caught.value.param
    assert caught.value.param in caught.value.message
    return caught.value.param


@pytest.mark.parametrize("dialect", FAMILY)
def test_what_everybody_knows_passes(dialect: str) -> None:
    asked = {
        "temperature": 0.2,
        "top_p": 0.9,
        "seed": 7,
        "n": 2,
        "presence_penalty": 0.1,
        "logit_bias": {"5": 1},
        "logprobs": True,
        "top_logprobs": 2,
        "user": "u",
        "parallel_tool_calls": False,
        "tool_choice": "required",
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}}},
    }
    assert sent(dialect, asked) == {**asked, "model": "m", "messages": [USER]}


@pytest.mark.parametrize("dialect", FAMILY)
@pytest.mark.parametrize("operation", [Operation.CHAT, Operation.COMPLETIONS])
def test_null_is_absent_and_a_lone_stop_a_list(dialect: str, operation: Operation) -> None:
    made = sent(dialect, {"stop": "END", "top_k": None, "seed": None}, operation=operation)
    assert made["stop"] == ["END"]
    assert not {"top_k", "seed"} & made.keys()
    assert sent(dialect, {"stop": ["a", "b"]}, operation=operation)["stop"] == ["a", "b"]


@pytest.mark.parametrize(
    ("dialect", "asked", "expected"),
    [
        *[(name, {"max_tokens": 5}, {"max_completion_tokens": 5}) for name in CLOUDS],
        *[(name, {"max_completion_tokens": 5}, {"max_completion_tokens": 5}) for name in CLOUDS],
        *[(name, {"max_completion_tokens": 5}, {"max_tokens": 5}) for name in FAMILY[3:]],
        *[(name, {"max_tokens": 9, "max_completion_tokens": 5}, {"max_tokens": 5}) for name in FAMILY[3:]],
        ("openai", {"max_tokens": 9, "max_completion_tokens": 5}, {"max_completion_tokens": 5}),
        ("vllm", {"max_tokens": 5}, {"max_tokens": 5}),
        ("vllm", {"max_completion_tokens": 5}, {"max_completion_tokens": 5}),
    ],
)
def test_the_length_of_an_answer(dialect: str, asked: dict[str, int], expected: dict[str, int]) -> None:
    made = sent(dialect, asked)
    assert {name: made[name] for name in made if name.startswith("max_")} == expected


def test_completions_keep_max_tokens() -> None:
    for dialect in FAMILY:
        assert sent(dialect, {"max_tokens": 5}, operation=Operation.COMPLETIONS)["max_tokens"] == 5


@pytest.mark.parametrize(
    ("dialect", "effort", "expected"),
    [
        *[(name, "max", "xhigh") for name in CLOUDS],
        *[(name, effort, effort) for name in CLOUDS for effort in ("none", "minimal", "high", "xhigh")],
        *[(name, "max", "max") for name in FAMILY[2:]],
        *[(name, "low", "low") for name in FAMILY[2:]],
        ("llama.cpp", "none", "none"),
    ],
)
def test_reasoning_effort(dialect: str, effort: str, expected: str) -> None:
    made = sent(dialect, {"reasoning_effort": effort, "thinking": {"type": "enabled", "budget_tokens": 2048}})
    assert made["reasoning_effort"] == expected
    assert not {"thinking", "chat_template_kwargs"} & made.keys()


THINK = {"thinking": {"type": "enabled", "budget_tokens": 2048}}


@pytest.mark.parametrize("dialect", [*FAMILY[:4], "ollama", "tgi"])
@pytest.mark.parametrize("asked", [THINK, {"thinking": {"type": "enabled"}}, {"thinking": "yes"}])
def test_thinking_that_only_anthropic_understands_is_refused(dialect: str, asked: dict[str, Any]) -> None:
    assert refused(dialect, asked) == "thinking"


@pytest.mark.parametrize("dialect", [*FAMILY[:4], "ollama", "tgi"])
@pytest.mark.parametrize("kind", ["adaptive", "disabled"])
def test_thinking_left_to_the_model_asks_for_nothing(dialect: str, kind: str) -> None:
    assert "thinking" not in sent(dialect, {"thinking": {"type": kind}})


def test_a_compatible_server_may_have_a_thinking_of_its_own() -> None:
    for thinking in ({"type": "enabled"}, {"type": "disabled"}):
        assert sent("openai-compatible", {"thinking": thinking})["thinking"] == thinking
    assert "thinking" not in sent("openai-compatible", {"thinking": {"type": "adaptive"}})


@pytest.mark.parametrize("dialect", CLOUDS)
@pytest.mark.parametrize(
    "asked",
    [
        {"top_k": 5},
        {"min_p": 0.1},
        {"repetition_penalty": 1.1},
        {"chat_template_kwargs": {"enable_thinking": False}},
        {"guided_json": {}},
        {"structured_outputs": {"regex": "a"}},
        {"grammar": "root ::= x"},
        {"keep_alive": "5m"},
        {"no_such_field": 1},
    ],
)
def test_the_clouds_refuse_what_they_do_not_know(dialect: str, asked: dict[str, Any]) -> None:
    assert refused(dialect, asked) == next(iter(asked))


@pytest.mark.parametrize("dialect", FAMILY)
def test_the_operator_knows_better(dialect: str) -> None:
    """An option goes out as it is: a service may have learnt a word that K-9 has not."""
    assert sent(dialect, {}, {"no_such_field": 1, "seed": 3})["no_such_field"] == 1
    assert sent(dialect, {"seed": 4}, {"seed": 3})["seed"] == 4


@pytest.mark.parametrize(
    ("dialect", "options", "asked", "expected"),
    [
        ("openai", {"max_tokens": 9}, {}, {"max_completion_tokens": 9}),
        ("openai", {"max_tokens": 9}, {"max_completion_tokens": 5}, {"max_completion_tokens": 5}),
        ("openai", {"max_completion_tokens": 9}, {"max_tokens": 5}, {"max_completion_tokens": 5}),
        ("llama.cpp", {"repetition_penalty": 1.2}, {"repeat_penalty": 1.1}, {"repeat_penalty": 1.1}),
        ("openai", {"reasoning_effort": "max"}, {}, {"reasoning_effort": "xhigh"}),
        ("vllm", {"reasoning_effort": "none"}, {"reasoning_effort": "low"}, {"reasoning_effort": "low"}),
        ("vllm", {"guided_regex": "a"}, {}, {"structured_outputs": {"regex": "a"}}),
    ],
)
def test_the_callers_value_wins_whatever_its_name(
    dialect: str, options: dict[str, Any], asked: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert sent(dialect, asked, options) == {"model": "m", "messages": [USER], **expected}


@pytest.mark.parametrize("dialect", CLOUDS)
def test_what_asks_for_nothing_is_left_out(dialect: str) -> None:
    made = sent(dialect, {"top_k": -1, "repetition_penalty": 1.0, "echo": False})
    assert made == {"model": "m", "messages": [USER]}
    embedding = sent(dialect, {"metadata": {"a": "b"}}, operation=Operation.EMBEDDINGS)
    assert "metadata" not in embedding


@pytest.mark.parametrize("dialect", FAMILY[2:])
def test_samplers_pass_where_they_are_known(dialect: str) -> None:
    asked = {"top_k": 5, "min_p": 0.1, "ignore_eos": True, "chat_template_kwargs": {"a": 1}}
    made = sent(dialect, asked)
    assert {name: made[name] for name in asked} == asked


@pytest.mark.parametrize(
    ("dialect", "asked", "expected"),
    [
        ("vllm", {"repeat_penalty": 1.1}, {"repetition_penalty": 1.1}),
        ("vllm", {"repeat_penalty": 1.1, "repetition_penalty": 1.2}, {"repetition_penalty": 1.2}),
        ("llama.cpp", {"repetition_penalty": 1.1}, {"repeat_penalty": 1.1}),
        ("openai-compatible", {"repetition_penalty": 1.1}, {"repetition_penalty": 1.1}),
        ("vllm", {"thinking_budget_tokens": 9}, {"thinking_token_budget": 9}),
        ("llama.cpp", {"thinking_token_budget": 9}, {"reasoning_budget_tokens": 9}),
        ("openai-compatible", {"anything": {"at": "all"}}, {"anything": {"at": "all"}}),
    ],
)
def test_words_of_one_server_in_those_of_another(
    dialect: str, asked: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert sent(dialect, asked) == {"model": "m", "messages": [USER], **expected}


@pytest.mark.parametrize("name", ["guided_json", "guided_regex", "guided_choice", "guided_grammar"])
def test_only_vllm_takes_what_it_once_had(name: str) -> None:
    for dialect in ("openai", "azure", "llama.cpp", "openai-compatible"):
        assert refused(dialect, {name: "x"}) == name


@pytest.mark.parametrize("dialect", LOCAL)
@pytest.mark.parametrize("name", ["functions", "web_search_options", "verbosity", "audio", "data_sources"])
def test_what_a_server_would_ignore_is_refused(dialect: str, name: str) -> None:
    assert refused(dialect, {name: "x"}) == name


# -- embeddings -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", FAMILY)
@pytest.mark.parametrize("given", ["a", ["a", "b"], [1, 2], [[1], [2, 3]]])
def test_embeddings(dialect: str, given: Any) -> None:
    body = {"input": given, "dimensions": 8, "encoding_format": "float"}
    made = sent(dialect, body, operation=Operation.EMBEDDINGS)
    assert made == {"input": given, "dimensions": 8, "encoding_format": "base64", "model": "m"}
    with_option = sent(dialect, body, {"encoding_format": "float"}, Operation.EMBEDDINGS)
    assert with_option["encoding_format"] == "float"


@pytest.mark.parametrize(
    ("dialect", "name"),
    [("openai", "truncate"), ("azure", "normalize"), ("vllm", "embed_dtype"), ("vllm", "endianness")],
)
def test_embeddings_in_no_other_shape(dialect: str, name: str) -> None:
    assert refused(dialect, {name: "x"}, Operation.EMBEDDINGS) == name
