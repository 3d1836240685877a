"""TGI's whole answers in OpenAI's words; its errors; what it tells of itself."""

from __future__ import annotations

import json
from typing import Any

import pytest

from k9_broker import errors
from k9_broker.dialects.tgi.dialect import Tgi
from k9_broker.health import Load
from k9_broker.models import ModelCard
from k9_broker.requests import InferenceRequest, Operation
from k9_broker.results import Usage

DIALECT = Tgi()
TEXT = (Operation.CHAT, Operation.COMPLETIONS)


def chat(**body: Any) -> InferenceRequest:
    return InferenceRequest(Operation.CHAT, "org/m", {"messages": [], **body})


def text(**body: Any) -> InferenceRequest:
    return InferenceRequest(Operation.COMPLETIONS, "org/m", {"prompt": "p", **body})


# -- answers -------------------------------------------------------------------------------------


def whole(message: dict[str, Any], reason: str, **more: Any) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": reason}
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    answer = {
        "id": "",
        "object": "text_completion",
        "created": 9,
        "choices": [choice],
        "usage": usage,
        **more,
    }
    return json.dumps(answer).encode()


def test_a_whole_chat() -> None:
    result = DIALECT.parse(chat(stop="\n"), whole({"content": "a\n"}, "stop_sequence", model="org/m"))
    assert result.body is not None
    (choice,) = result.body["choices"]
    assert (choice["message"]["content"], choice["finish_reason"], choice["stop_reason"]) == (
        "a",
        "stop",
        "\n",
    )
    assert (result.model, result.usage) == ("org/m", Usage(5, 2))
    assert result.body["id"].startswith("chatcmpl-")
    assert (result.body["object"], result.body["created"]) == ("chat.completion", 9)


@pytest.mark.parametrize("named", [{}, {"model": "tgi"}, {"model": ""}, {"model": None}])
def test_the_model_goes_by_the_name_asked_for(named: dict[str, Any]) -> None:
    result = DIALECT.parse(chat(), whole({"content": "a"}, "stop", **named))
    assert result.body is not None
    assert (result.model, result.body["model"]) == ("org/m", "org/m")


def test_tool_calls_have_ids_of_their_own_and_the_right_reason() -> None:
    calls = [
        {"id": "0", "type": "function", "function": {"name": "f", "arguments": {"x": 1}, "description": None}}
    ]
    ids = set()
    for _ in range(2):
        result = DIALECT.parse(chat(), whole({"tool_calls": calls}, "stop"))
        assert result.body is not None
        (choice,) = result.body["choices"]
        (made,) = choice["message"]["tool_calls"]
        assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", None)
        assert made["function"] == {"name": "f", "arguments": '{"x":1}'}
        ids.add(made["id"])
    assert len(ids) == 2
    assert "0" not in ids


@pytest.mark.parametrize(
    ("answer", "told", "usage"),
    [
        (
            {"generated_text": "ab", "details": {"finish_reason": "length", "generated_tokens": 2}},
            {"text": "ab", "finish_reason": "length"},
            Usage(0, 2),
        ),
        (
            {"generated_text": "abX", "details": {"finish_reason": "stop_sequence", "generated_tokens": 3}},
            {"text": "ab", "finish_reason": "stop", "stop_reason": "X"},
            Usage(0, 3),
        ),
        (
            {"generated_text": "abX", "details": {"finish_reason": "length", "prefill": [{}, {}]}},
            {"text": "abX", "finish_reason": "length"},
            Usage(2, 0),
        ),
        (
            [{"generated_text": "a", "details": {"finish_reason": "eos_token", "input_length": 4}}],
            {"text": "a", "finish_reason": "stop"},
            Usage(4, 0),
        ),
        ({"generated_text": "a"}, {"text": "a", "finish_reason": "stop"}, Usage()),
    ],
)
def test_a_whole_completion(answer: Any, told: dict[str, Any], usage: Usage) -> None:
    result = DIALECT.parse(text(stop=["X"]), json.dumps(answer).encode())
    assert result.body is not None
    assert result.body["choices"] == [{"index": 0, "logprobs": None, **told}]
    assert (result.usage, result.body["usage"]) == (usage, usage.openai())
    assert (result.model, result.body["object"]) == ("org/m", "text_completion")


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", errors.BackendError),
        (b"[]", errors.BackendError),
        (b"{}", errors.BackendError),
        (b'{"generated_text":3}', errors.BackendError),
        (b'{"error":"Model is overloaded","error_type":"overloaded"}', errors.BackendOverloaded),
        (b'[{"error":"Incomplete generation","error_type":"incomplete_generation"}]', errors.BackendError),
    ],
)
def test_a_success_that_is_none(body: bytes, kind: type[errors.K9Error]) -> None:
    with pytest.raises(errors.K9Error) as caught:
        DIALECT.parse(text(), body)
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    ("headers", "prompt"),
    [
        ({"X-Prompt-Tokens": "4", "x-generated-tokens": "2"}, 4),
        ({"x-compute-tokens": "6"}, 6),
        ({"x-prompt-tokens": "many"}, 0),
        ({"x-prompt-tokens": "-1"}, 0),
        ({"x-prompt-tokens": "9" * 5000}, 0),
        ({}, 0),
    ],
)
def test_the_prompts_tokens_come_from_the_headers(headers: dict[str, str], prompt: int) -> None:
    answer = {"generated_text": "ab", "details": {"finish_reason": "length", "generated_tokens": 2}}
    result = DIALECT.complete(DIALECT.parse(text(), json.dumps(answer).encode()), headers)
    assert result.body is not None
    assert (result.usage, result.body["usage"]["prompt_tokens"]) == (Usage(prompt, 2), prompt)


def test_headers_do_not_change_what_an_answer_tells() -> None:
    result = DIALECT.parse(chat(), whole({"content": "a"}, "stop"))
    assert DIALECT.complete(result, {"x-prompt-tokens": "99"}) is result


# -- errors --------------------------------------------------------------------------------------


def said(error: str, kind: str) -> bytes:
    return json.dumps({"error": error, "error_type": kind}).encode()


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (
            422,
            said("Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096.", "validation"),
            errors.ContextTooLong,
        ),
        (
            422,
            said("Input validation error: `temperature` must be strictly positive", "validation"),
            errors.BadRequest,
        ),
        (422, said("Tool error: Grammar and tools are mutually exclusive", "tool_error"), errors.BadRequest),
        (422, b"Failed to deserialize the JSON body: stop: invalid type", errors.BadRequest),
        (413, b"Failed to buffer the request body: length limit exceeded", errors.BodyTooLarge),
        (429, said("Model is overloaded", "overloaded"), errors.BackendOverloaded),
        (
            424,
            said("Request failed during generation: Server error: CUDA out of memory", "generation"),
            errors.BackendError,
        ),
        (500, said("Incomplete generation", "incomplete_generation"), errors.BackendError),
        (503, said("unhealthy", "healthcheck"), errors.BackendOverloaded),
        (401, b"", errors.BackendCredentials),
        (502, b"<html>Bad Gateway</html>", errors.BackendError),
    ],
)
def test_errors(status: int, body: bytes, kind: type[errors.K9Error]) -> None:
    error = DIALECT.error(status, {}, body)
    assert type(error) is kind
    assert error.message


def test_a_tool_call_cut_off_is_not_the_callers_fault_and_not_repeated() -> None:
    words = 'Tool error: Failed to parse generated text: EOF while parsing "{\\"secret'
    error = DIALECT.error(422, {}, said(words, "tool_error"))
    assert type(error) is errors.BackendError
    assert "secret" not in error.message


# -- what it tells of itself ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "vision"), [("text-generation", False), ("image-text-to-text", True), (None, None), (3, None)]
)
def test_the_model_of_a_server(task: Any, vision: bool | None) -> None:
    info = {
        "model_id": "org/m",
        "max_input_tokens": 4095,
        "max_total_tokens": 4096,
        "model_pipeline_tag": task,
    }
    assert DIALECT.models_request({}).path == "/info"
    assert DIALECT.parse_models(json.dumps(info).encode()) == {
        "org/m": ModelCard(
            operations=TEXT, context_window=4096, tools=True, json_schema=True, vision=vision, streaming=True
        )
    }


@pytest.mark.parametrize("length", [None, 0, -1, "4096", True, 1.5])
def test_a_context_that_makes_no_sense_is_unknown(length: Any) -> None:
    body = json.dumps({"model_id": "org/m", "max_total_tokens": length}).encode()
    assert DIALECT.parse_models(body)["org/m"].context_window is None


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"model_id":""}', b'{"model_id":3}'])
def test_what_is_no_model_is_said(body: bytes) -> None:
    with pytest.raises(errors.BackendError):
        DIALECT.parse_models(body)


@pytest.mark.parametrize(
    ("body", "load"),
    [
        (b"tgi_queue_size 3\ntgi_batch_current_size 8\n", Load(running=8, waiting=3)),
        (b"tgi_queue_size 0\n", Load(waiting=0)),
        (b"te_queue_size 5\n", Load(waiting=5)),
        (b"", Load()),
        (b"<html>", Load()),
        (b"tgi_queue_size NaN\n", Load()),
    ],
)
def test_load(body: bytes, load: Load) -> None:
    wire = DIALECT.load_request({})
    assert wire is not None
    assert (wire.method, wire.path) == ("GET", "/metrics")
    assert DIALECT.parse_load(body) == load
