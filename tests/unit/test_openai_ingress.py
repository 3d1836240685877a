"""What OpenAI requests become, and how bad ones are refused."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k9_api.dialects.openai import ingress
from k9_broker.errors import BadRequest, K9Error, UnsupportedParameter
from k9_broker.requests import InferenceRequest, Operation, Priority

HELLO = [{"role": "user", "content": "hello"}]
CHAT = {"model": "m", "messages": HELLO}
EMBED = {"model": "m", "input": "hello"}


def parse(body: Any, operation: Operation = Operation.CHAT, **headers: str) -> InferenceRequest:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return ingress.parse(operation, raw, pairs, "acme")


def refused(body: Any, operation: Operation = Operation.CHAT, **headers: str) -> K9Error:
    with pytest.raises(BadRequest) as caught:
        parse(body, operation, **headers)
    return caught.value


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"stream": True, "stream_options": {"include_usage": True}},
        {"stream": None, "stream_options": None, "tools": None, "stop": None, "k9": None},
        {"temperature": 1, "top_p": 0.5, "n": 2, "seed": 7, "stop": ["a", "b"], "max_completion_tokens": 5},
        {"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "auto"},
        {"tool_choice": {"type": "function", "function": {"name": "f"}}, "tools": []},
        {"response_format": {"type": "json_object"}, "logit_bias": {"50256": -100}},
        {"top_k": 40, "chat_template_kwargs": {"enable_thinking": False}},
        {"messages": [{"role": "assistant", "tool_calls": [{"id": "a"}]}, {"role": "tool", "content": "1"}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url"}]}]},
        {"messages": [{"role": "developer", "content": ""}]},
    ],
)
def test_a_good_chat_body_passes_as_it_is(more: dict[str, Any]) -> None:
    body = CHAT | more
    request = parse(body)
    assert request.body == {name: value for name, value in body.items() if name != "k9"}
    assert (request.operation, request.model, request.tenant) == (Operation.CHAT, "m", "acme")
    assert (request.priority, request.deadline) == (Priority.INTERACTIVE, None)


@pytest.mark.parametrize("text", ["hello", ["a", "b"], [1, 2, 3], [[1, 2], [3]]])
@pytest.mark.parametrize("operation", [Operation.COMPLETIONS, Operation.EMBEDDINGS])
def test_text_and_token_ids_are_inputs(operation: Operation, text: Any) -> None:
    name = "input" if operation is Operation.EMBEDDINGS else "prompt"
    assert parse({"model": "m", name: text}, operation).body[name] == text


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": HELLO}, "model"),
        ({"model": "", "messages": HELLO}, "model"),
        ({"model": 7, "messages": HELLO}, "model"),
        ({"model": "m"}, "messages"),
        (CHAT | {"messages": []}, "messages"),
        (CHAT | {"messages": "secret"}, "messages"),
        (CHAT | {"messages": ["secret"]}, "messages[0]"),
        (CHAT | {"messages": [*HELLO, {"content": "secret"}]}, "messages[1].role"),
        (CHAT | {"messages": [{"role": "user"}]}, "messages[0]"),
        (CHAT | {"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        (CHAT | {"messages": [{"role": "user", "content": []}]}, "messages[0].content"),
        (CHAT | {"messages": [{"role": "user", "content": [{"text": 1}]}]}, "messages[0].content[0].type"),
        (CHAT | {"stream": "yes"}, "stream"),
        (CHAT | {"stream_options": {"include_usage": True}}, "stream_options"),
        (CHAT | {"stream": True, "stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        (CHAT | {"temperature": "secret"}, "temperature"),
        (CHAT | {"temperature": -1}, "temperature"),
        (CHAT | {"max_tokens": 1.5}, "max_tokens"),
        (CHAT | {"n": 0}, "n"),
        (CHAT | {"n": 129}, "n"),
        (CHAT | {"stop": ["a", 1]}, "stop[1]"),
        (CHAT | {"tools": [{"function": {"name": "f"}}]}, "tools[0].type"),
        (CHAT | {"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        (CHAT | {"k9": {"priority": "secret"}}, "k9.priority"),
        (CHAT | {"k9": {"deadline": 0}}, "k9.deadline"),
        (CHAT | {"k9": {"privacy": "secret"}}, "k9.privacy"),
        (CHAT | {"k9": {"privacy": "LOCAL-ONLY"}}, "k9.privacy"),
        (CHAT | {"k9": {"privacy": None}}, "k9.privacy"),
        (CHAT | {"k9": {"kind": "secret"}}, "k9.kind"),
        (CHAT | {"k9": {"task_type": "secret"}}, "k9.task_type"),
        (CHAT | {"k9": {"task_type": "embeddings"}}, "k9.task_type"),
        (CHAT | {"k9": {"strategy": ""}}, "k9.strategy"),
        (CHAT | {"k9": {"strategy": 7}}, "k9.strategy"),
        (CHAT | {"k9": {"stratagy": "secret"}}, "k9.stratagy"),
        (CHAT | {"k9": []}, "k9"),
    ],
)  # fmt: skip
def test_a_bad_chat_body_is_refused_by_the_name_of_its_field(body: Any, param: str) -> None:
    error = refused(body)
    assert error.param == param
    assert f"`{param}`" in error.message
    assert "secret" not in error.message
    assert error.status == 400


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"model": "m"}, "input"),
        (EMBED | {"input": ""}, "input"),
        (EMBED | {"input": []}, "input"),
        (EMBED | {"input": ["a", ""]}, "input[1]"),
        (EMBED | {"input": ["a", 1]}, "input[1]"),
        (EMBED | {"input": [1, -2]}, "input[1]"),
        (EMBED | {"input": [[1], []]}, "input[1]"),
        (EMBED | {"input": {"text": "secret"}}, "input"),
        (EMBED | {"input": None}, "input"),
        (EMBED | {"input": ["a"] * 2049}, "input"),
        (EMBED | {"encoding_format": "secret"}, "encoding_format"),
        (EMBED | {"dimensions": 0}, "dimensions"),
        (EMBED | {"stream": True}, "stream"),
    ],
)
def test_a_bad_embeddings_body_is_refused_by_the_name_of_its_field(body: Any, param: str) -> None:
    error = refused(body, Operation.EMBEDDINGS)
    assert error.param == param
    assert "secret" not in error.message


def test_a_batch_may_have_more_inputs_than_an_interactive_request() -> None:
    many = EMBED | {"input": ["a"] * 5000}
    assert refused(many, Operation.EMBEDDINGS).param == "input"
    assert len(parse(many | {"k9": {"priority": "batch"}}, Operation.EMBEDDINGS).body["input"]) == 5000
    assert len(parse(EMBED | {"input": [7] * 5000}, Operation.EMBEDDINGS).body["input"]) == 5000


def test_controls_come_from_headers_and_from_the_body_which_wins() -> None:
    request = parse(CHAT, x_k9_priority="batch", x_k9_deadline="2.5")
    assert (request.priority, request.deadline) == (Priority.BATCH, 2.5)
    both = parse(CHAT | {"k9": {"priority": "interactive", "deadline": 9}}, x_k9_priority="batch")
    assert (both.priority, both.deadline) == (Priority.INTERACTIVE, 9)
    assert "k9" not in both.body


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("x_k9_priority", "secret"),
        ("x_k9_deadline", "secret"),
        ("x_k9_deadline", "-1"),
        ("x_k9_deadline", "nan"),
    ],
)
def test_a_bad_header_is_refused_by_its_name(header: str, value: str) -> None:
    error = refused(CHAT, **{header: value})
    assert str(error.param).lower() == header.replace("_", "-")
    assert "secret" not in error.message


def test_a_control_that_is_not_understood_is_never_dropped_in_silence() -> None:
    assert isinstance(refused(CHAT, x_k9_privcy="local-only"), UnsupportedParameter)
    assert isinstance(refused(CHAT | {"k9": {"stratagy": "cost"}}), UnsupportedParameter)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b'{"secret": }',
        b"\xff\xfe",
        b'{"a": "\xff secret"}',
        b'{"a": NaN}',
        b"[]",
        b'"secret"',
        b"null",
        b"[" * 100_000,
        b'{"a": "\\ud800"}',
    ],
)
def test_what_is_no_json_object_is_refused_without_repeating_it(raw: bytes) -> None:
    error = refused(raw)
    assert error.code == "invalid_request"
    assert "secret" not in error.message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(
    operation=st.sampled_from(Operation),
    body=st.dictionaries(
        st.sampled_from(["model", "messages", "prompt", "input", "stream", "stop", "tools", "k9", "n", "x"]),
        JSON | st.just("m") | st.just(HELLO),
    ),
)
def test_any_object_is_a_request_or_a_bad_request(operation: Operation, body: dict[str, Any]) -> None:
    try:
        request = parse(body, operation)
    except BadRequest:
        return
    assert InferenceRequest.load(request.dump()) == request


@pytest.mark.parametrize("depth", range(150, 250, 5))
@pytest.mark.parametrize("more", range(5))
def test_what_is_accepted_can_be_read_from_its_record(depth: int, more: int) -> None:
    """The body lies one level deeper there, and no attempt ends a job that no worker can read."""
    deep = "[" * (depth + more) + "]" * (depth + more)
    raw = f'{{"model": "m", "input": "x", "metadata": {deep}}}'.encode()
    if depth <= 190:
        request = parse(raw, Operation.EMBEDDINGS)
        assert InferenceRequest.load(request.dump()) == request
    elif depth >= 200:
        assert "nested too deeply (line 1 column" in refused(raw, Operation.EMBEDDINGS).message
    else:
        with suppress(BadRequest):
            InferenceRequest.load(parse(raw, Operation.EMBEDDINGS).dump())


def test_ten_thousand_levels_are_refused() -> None:
    assert "nested too deeply" in refused(b'{"messages": ' + b"[" * 10_000).message


def test_a_job_is_the_request_inside_it() -> None:
    raw = json.dumps(
        {
            "endpoint": "/v1/embeddings",
            "body": EMBED | {"k9": {"deadline": 5}},
            "priority": "batch",
            "partial": True,
        }
    ).encode()
    request = ingress.parse_job(raw, [(b"x-k9-deadline", b"9")], "acme")
    assert (request.operation, request.priority, request.deadline) == (
        Operation.EMBEDDINGS,
        Priority.BATCH,
        5,
    )
    assert request.partial
    assert request.body == EMBED


@pytest.mark.parametrize(("said", "patient"), [("wait", True), ("refuse", False), (None, True)])
def test_a_jobs_own_word_on_the_queue_wins(said: str | None, patient: bool) -> None:
    raw = json.dumps({"endpoint": "/v1/embeddings", "body": EMBED, "queue": said}).encode()
    assert ingress.parse_job(raw, [(b"x-k9-queue", b"wait")], "acme").patient is patient


@pytest.mark.parametrize(
    ("job", "param"),
    [
        ({"body": CHAT}, "endpoint"),
        ({"endpoint": "/v1/secret", "body": CHAT}, "endpoint"),
        ({"endpoint": "/v1/chat/completions"}, "body"),
        ({"endpoint": "/v1/chat/completions", "body": "secret"}, "body"),
        ({"endpoint": "/v1/chat/completions", "body": {"model": "m"}}, "body.messages"),
        ({"endpoint": "/v1/chat/completions", "body": CHAT, "partial": True}, "partial"),
        ({"endpoint": "/v1/chat/completions", "body": CHAT, "priority": "secret"}, "priority"),
        ({"endpoint": "/v1/chat/completions", "body": CHAT, "deadline": "secret"}, "deadline"),
        ({"endpoint": "/v1/chat/completions", "body": CHAT, "webhook": "secret"}, "webhook"),
    ],
)
def test_a_bad_job_is_refused_by_the_name_of_its_field(job: Any, param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        ingress.parse_job(json.dumps(job).encode(), [], "acme")
    assert caught.value.param == param
    assert "secret" not in caught.value.message


@pytest.mark.parametrize(
    ("operation", "body", "param"),
    [
        (Operation.EMBEDDINGS, {"model": "m", "input": ""}, "input"),
        (Operation.EMBEDDINGS, {"model": "m", "input": []}, "input"),
        (Operation.COMPLETIONS, {"model": "m", "prompt": []}, "prompt"),
        (Operation.CHAT, {**CHAT, "messages": [{"role": "user", "content": []}]}, "messages[0].content"),
    ],
)
def test_what_is_empty_is_told_so_and_nothing_else(
    operation: Operation, body: dict[str, Any], param: str
) -> None:
    assert refused(body, operation).message == f"`{param}` must not be empty."


@pytest.mark.parametrize("name", ["temperature", "frequency_penalty", "presence_penalty"])
def test_a_number_beyond_all_numbers_is_refused(name: str) -> None:
    raw = json.dumps({**CHAT, name: 0}).replace(f'"{name}": 0', f'"{name}": 1e400').encode()
    assert refused(raw).param == name
