"""The openai-compatible dialect: what it sends, and how it reads whole answers and embeddings."""

from __future__ import annotations

import json
from typing import Any

import pytest

from k9_broker import errors
from k9_broker.dialects.openai.dialect import OpenAICompatible
from k9_broker.requests import InferenceRequest, Operation
from k9_broker.results import Vectors, pack
from openai_frames import frame, replay

DIALECT = OpenAICompatible()
CHAT = InferenceRequest(Operation.CHAT, "m", {"model": "alias", "messages": []})
TEXT = InferenceRequest(Operation.COMPLETIONS, "m", {"prompt": "p"})


def sent(request: InferenceRequest, options: dict[str, Any] | None = None) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(DIALECT.build(request, options or {}).body)
    return body


def chat(**body: Any) -> InferenceRequest:
    return InferenceRequest(Operation.CHAT, "m", {"messages": [], **body})


def embed(given: Any, **body: Any) -> InferenceRequest:
    return InferenceRequest(Operation.EMBEDDINGS, "m", {"input": given, **body})


def whole(answer: Any, request: InferenceRequest = CHAT) -> dict[str, Any]:
    body = DIALECT.parse(request, json.dumps(answer).encode()).body
    assert body is not None
    return dict(body)


# -- what is sent ---------------------------------------------------------------------------------


def test_paths_and_model() -> None:
    for request, path in ((CHAT, "chat/completions"), (TEXT, "completions"), (embed("a"), "embeddings")):
        wire = DIALECT.build(request, {})
        assert (wire.method, wire.path) == ("POST", f"/v1/{path}")
        assert json.loads(wire.body)["model"] == "m"  # the resolved name, not the alias
        assert wire.headers["content-type"] == "application/json"


def test_plain_requests_have_no_stream_fields() -> None:
    body = sent(chat(stream=False, stream_options={"include_usage": True}))
    assert not {"stream", "stream_options"} & body.keys()  # vLLM refuses options without stream


def test_streams_always_ask_for_usage() -> None:
    assert sent(chat(stream=True))["stream_options"] == {"include_usage": True}
    options = {"include_usage": False, "include_obfuscation": False}
    assert sent(chat(stream=True, stream_options=options))["stream_options"] == {
        **options,
        "include_usage": True,
    }
    assert "stream_options" not in sent(chat(stream=True), {"stream_options": False})


def test_parameters_pass_untouched_but_a_lone_stop_becomes_a_list() -> None:
    asked = {
        "temperature": 0.5,
        "tools": [{"x": 1}],
        "tool_choice": "required",
        "logit_bias": {"5": 1},
        "x": 1,
    }
    body = sent(chat(**asked, stop="END"))
    assert {name: body[name] for name in asked} == asked
    assert body["stop"] == ["END"]


def test_options_are_defaults_of_text_requests() -> None:
    options = {"chat_template_kwargs": {"enable_thinking": False}, "temperature": 1}
    body = sent(chat(temperature=0), options)
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    assert body["temperature"] == 0
    assert sent(embed("a"), options) == {"input": "a", "model": "m", "encoding_format": "base64"}


@pytest.mark.parametrize("asked", [None, "float", "base64"])
def test_embeddings_are_asked_for_as_base64(asked: str | None) -> None:
    body = {} if asked is None else {"encoding_format": asked}
    assert sent(embed(["a"], dimensions=8, **body))["encoding_format"] == "base64"
    assert sent(embed(["a"]), {"encoding_format": "float"})["encoding_format"] == "float"


def test_what_a_server_refuses_is_learnt_once() -> None:
    refusal = errors.BadRequest("encoding_format: only float is supported")
    learnt = DIALECT.relax(embed("a"), refusal, {"a": 1})
    assert learnt == {"a": 1, "encoding_format": "float"}
    assert DIALECT.relax(embed("a"), refusal, learnt) is None
    assert DIALECT.relax(CHAT, refusal, {}) is None
    assert DIALECT.relax(embed("a"), errors.BackendError("base64"), {}) is None
    stream = errors.BadRequest("unknown field", param="stream_options")
    learnt = DIALECT.relax(chat(stream=True), stream, {})
    assert learnt == {"stream_options": False}
    assert DIALECT.relax(chat(stream=True), stream, learnt) is None


def test_the_key_is_in_no_repr() -> None:
    assert DIALECT.headers("sk-1") == {"authorization": "Bearer sk-1"}
    assert DIALECT.headers(None) == {}
    assert "hello" not in repr(DIALECT.build(chat(messages=["hello"]), {}))


# -- whole answers --------------------------------------------------------------------------------

CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}


@pytest.mark.parametrize(
    ("said", "calls", "reason"),
    [
        ("stop", None, "stop"),
        ("stop", [CALL], "tool_calls"),
        ("length", [CALL], "length"),
        ("length", None, "length"),
        ("tool_calls", [CALL], "tool_calls"),
        ("content_filter", None, "content_filter"),
        ("function_call", None, "function_call"),
        ("stop_sequence", None, "stop"),
        ("eos_token", None, "stop"),
        ("", None, "stop"),
        (None, None, "stop"),
        (None, [CALL], "tool_calls"),
        ("whatever", None, "stop"),
        ("stop", [], "stop"),
    ],
)
def test_finish_reasons(said: Any, calls: Any, reason: str) -> None:
    message = {"role": "assistant", "content": "x", "tool_calls": calls}
    choice = whole({"choices": [{"index": 0, "message": message, "finish_reason": said}]})["choices"][0]
    assert choice["finish_reason"] == reason
    frames = [frame({"content": "x", "tool_calls": calls}), frame({}, said)]
    reasons = [c["choices"][0]["finish_reason"] for c in replay(frames) if c["choices"]]
    assert [found for found in reasons if found] == [reason]


@pytest.mark.parametrize("said", ["error", "abort"])
def test_reasons_that_mean_no_answer(said: str) -> None:
    with pytest.raises(errors.BackendError):
        whole({"choices": [{"index": 0, "message": {}, "finish_reason": said}]})
    with pytest.raises(errors.BackendError):
        replay([frame({"content": "x"}), frame({}, said)])


def test_tool_calls_of_a_whole_answer() -> None:
    calls = [
        {"id": "0", "function": {"name": "f", "arguments": {"a": [1]}}},
        {"id": "0", "function": {"name": "g", "arguments": None}},
        {"function": {"name": "h", "arguments": '{"b":2}'}},
        {"id": "call_x", "type": "function", "function": {"name": "i", "arguments": "{}"}},
        {"id": "call_x", "function": {"name": "j", "arguments": "{}"}},
    ]
    message = {"role": "assistant", "tool_calls": calls, "reasoning": "hm"}
    made = whole({"choices": [{"index": 0, "message": message}]})["choices"][0]["message"]
    arguments = [call["function"]["arguments"] for call in made["tool_calls"]]
    assert arguments == ['{"a":[1]}', "{}", '{"b":2}', "{}", "{}"]
    ids = [call["id"] for call in made["tool_calls"]]
    assert len(set(ids)) == 5
    assert ids[3] == "call_x"
    assert all(not found.isdigit() for found in ids)
    assert all(call["type"] == "function" for call in made["tool_calls"])
    assert (made["content"], made["refusal"], made["reasoning"]) == (None, None, "hm")


@pytest.mark.parametrize("choices", [{"choices": None}, {"choices": []}, {}])
def test_an_answer_without_a_choice_is_none(choices: dict[str, Any]) -> None:
    """Clients read `choices[0]` without looking; another try may have one."""
    with pytest.raises(errors.BackendError, match="no choices"):
        whole({**choices, "usage": {"prompt_tokens": 3}})


def test_usage_is_complete() -> None:
    choices = [{"index": 0, "message": {"content": "a"}, "finish_reason": "stop"}]
    answer = whole({"choices": choices, "usage": {"prompt_tokens": 3, "completion_tokens": None}})
    assert answer["usage"]["total_tokens"] == 3
    assert whole({"choices": choices, "usage": "none"})["usage"]["total_tokens"] == 0


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'{"error":{"message":"busy","code":503}}', errors.BackendOverloaded),
        (b'{"object":"error","message":"boom","code":500}', errors.BackendError),
        (b"<html>", errors.BackendError),
        (b"", errors.BackendError),
        (b"[]", errors.BackendError),
        (b'{"choices":[3]}', errors.BackendError),
        (b'{"choices":3}', errors.BackendError),
    ],
)
def test_a_success_that_is_none(body: bytes, kind: type[errors.K9Error]) -> None:
    with pytest.raises(errors.BackendError) as caught:
        DIALECT.parse(CHAT, body)
    assert type(caught.value) is kind


# -- embeddings -----------------------------------------------------------------------------------

ROWS = [[0.25, -0.5, 1.0], [2.0, 0.125, -1.5]]


@pytest.mark.parametrize("encoded", [True, False])
@pytest.mark.parametrize("indexed", [True, False])
def test_vectors_in_both_encodings_and_any_order(encoded: bool, indexed: bool) -> None:
    vectors = Vectors.from_floats(ROWS)
    items: list[dict[str, Any]] = [
        {"index": i, "embedding": vectors.row_base64(i) if encoded else ROWS[i]} for i in range(2)
    ]
    items = items[::-1] if indexed else [{"embedding": item["embedding"]} for item in items]
    answer = {"data": items, "model": "n", "usage": {"prompt_tokens": 4, "total_tokens": 4}}
    result = DIALECT.parse(embed(["a", "b"]), json.dumps(answer).encode())
    assert result.vectors == vectors
    assert (result.model, result.usage.prompt, result.body) == ("n", 4, None)


def test_other_dimensions_than_were_asked_for_are_no_answer() -> None:
    """Some servers ignore the field; a caller's index would hold vectors of two widths."""
    answer = json.dumps({"data": [{"index": 0, "embedding": [1.0, 2.0]}]}).encode()
    for asked in (None, 2):
        vectors = DIALECT.parse(embed("a", dimensions=asked), answer).vectors
        assert vectors is not None
        assert vectors.dimensions == 2
    with pytest.raises(errors.UnsupportedParameter) as caught:
        DIALECT.parse(embed("a", dimensions=3), answer)
    assert caught.value.param == "dimensions"


@pytest.mark.parametrize(("given", "count"), [("a", 1), (["a"], 1), ([1, 2, 3], 1), ([[1, 2], [3]], 2)])
def test_token_ids_count_as_inputs(given: Any, count: int) -> None:
    answer = {"data": [{"index": i, "embedding": [1.0]} for i in range(count)]}
    vectors = DIALECT.parse(embed(given), json.dumps(answer).encode()).vectors
    assert vectors == Vectors(pack([1.0] * count), 1)


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        [{"index": 0, "embedding": [1.0]}],
        [{"index": 0, "embedding": [1.0]}, {"index": 0, "embedding": [1.0]}],
        [{"index": 0, "embedding": [1.0]}, {"index": 2, "embedding": [1.0]}],
        [{"embedding": [1.0]}, {"embedding": [1.0, 2.0]}],
        [{"embedding": [1.0]}, {"embedding": [None]}],
        [{"embedding": [1.0]}, {"embedding": "AACAPg=="}],
        [{"embedding": "AACAPg=="}, {"embedding": "AACAPgAAgD4="}],
        [{"embedding": "AACA"}, {"embedding": "AACA"}],
        [{"embedding": "?"}, {"embedding": "?"}],
        [{"embedding": []}, {"embedding": []}],
        [{"embedding": None}, {"embedding": None}],
        [1, 2],
    ],
)
def test_embeddings_that_are_none_raise(data: Any) -> None:
    with pytest.raises(errors.BackendError):
        DIALECT.parse(embed(["a", "b"]), json.dumps({"data": data}).encode())


def test_models() -> None:
    assert DIALECT.models_request({}).path == "/v1/models"
    listed = DIALECT.parse_models(b'{"data":[{"id":"a"},{"id":""},{"x":1},3,{"id":"b/c:d"}]}')
    assert list(listed) == ["a", "b/c:d"]
    with pytest.raises(errors.BackendError):
        DIALECT.parse_models(b"{}")
