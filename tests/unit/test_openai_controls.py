"""The caller's wishes: as headers, as the `k9` object of a body, and in a body that may be any of four."""

from __future__ import annotations

import json
from typing import Any

import pytest

from k9_api.dialects.controls import CONTROLS
from k9_api.dialects.openai import ingress
from k9_broker.errors import BadRequest, K9Error
from k9_broker.requests import InferenceRequest, Kind, Operation, Priority, Privacy, TaskType

HELLO = [{"role": "user", "content": "hello"}]
CHAT: dict[str, Any] = {"model": "m", "messages": HELLO}
JOB: dict[str, Any] = {"endpoint": "/v1/chat/completions", "body": CHAT}
Pairs = list[tuple[str, str]]


def raw(pairs: Pairs) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode()) for name, value in pairs]


def parse(body: Any, pairs: Pairs) -> InferenceRequest:
    return ingress.parse(Operation.CHAT, json.dumps(body).encode(), raw(pairs), "acme")


def any_of(body: Any, pairs: Pairs | None = None) -> InferenceRequest:
    return ingress.parse_any(json.dumps(body).encode(), raw(pairs or []), "acme")


@pytest.mark.parametrize(
    ("name", "header", "value", "meant"),
    [
        ("strategy", "X-K9-Strategy", "cost", "cost"),
        ("task_type", "X-K9-Task-Type", "code_generation", TaskType.CODE_GENERATION),
        ("privacy", "X-K9-Privacy", "local-only", Privacy.LOCAL_ONLY),
        ("kind", "X-K9-Kind", "cloud", Kind.CLOUD),
        ("priority", "X-K9-Priority", "batch", Priority.BATCH),
    ],
)
def test_a_wish_is_the_same_in_a_header_and_in_the_body(
    name: str, header: str, value: str, meant: Any
) -> None:
    by_header, by_body = parse(CHAT, [(header, f" {value} ")]), parse(CHAT | {"k9": {name: value}}, [])
    assert by_header == by_body
    assert getattr(by_body, name) == meant
    assert InferenceRequest.load(by_body.dump()) == by_body
    assert ingress.parse_job(json.dumps(JOB).encode(), raw([(header, value)]), "acme") == by_header


def test_nothing_wished_leaves_it_to_others() -> None:
    plain = parse(CHAT, [])
    assert (plain.strategy, plain.task_type, plain.privacy, plain.kind) == (None, None, Privacy.ANY, None)


def test_every_control_is_a_field_of_a_request() -> None:
    assert set(CONTROLS) - {"queue"} | {"patient"} <= set(InferenceRequest.__slots__)


@pytest.mark.parametrize(("said", "patient"), [("wait", True), ("refuse", False), (None, False)])
def test_who_would_rather_wait_than_be_refused_says_so(said: str | None, patient: bool) -> None:
    by_header = parse(CHAT, [] if said is None else [("X-K9-Queue", said)])
    by_body = parse(CHAT | {"k9": {} if said is None else {"queue": said}}, [])
    job = ingress.parse_job(
        json.dumps({**JOB, "body": CHAT | {"k9": {"queue": said or "refuse"}}}).encode(), [], "acme"
    )
    assert by_header.patient is by_body.patient is job.patient is patient
    assert InferenceRequest.load(by_body.dump()).patient is patient


@pytest.mark.parametrize(("header", "body"), [("any", "local-only"), ("local-only", "any")])
def test_of_two_privacies_the_stricter_wins(header: str, body: str) -> None:
    strict = parse(CHAT | {"k9": {"privacy": body}}, [("X-K9-Privacy", header)])
    assert strict.privacy is Privacy.LOCAL_ONLY
    assert parse(CHAT, [("X-K9-Privacy", header), ("X-K9-Privacy", body)]).privacy is Privacy.LOCAL_ONLY
    job = {**JOB, "body": {**CHAT, "k9": {"privacy": body}}, "priority": "batch"}
    assert any_of(job, [("X-K9-Privacy", header)]).privacy is Privacy.LOCAL_ONLY


@pytest.mark.parametrize("pairs", [[], [("X-K9-Privacy", "any")]])
def test_who_says_any_wishes_nothing_stricter(pairs: Pairs) -> None:
    assert parse(CHAT | {"k9": {"privacy": "any"}}, pairs).privacy is Privacy.ANY


def test_of_other_wishes_the_body_wins() -> None:
    said = {"k9": {"strategy": "quality-first", "kind": "cloud"}}
    request = parse(CHAT | said, [("X-K9-Strategy", "cost-first"), ("X-K9-Kind", "local")])
    assert (request.strategy, request.kind) == ("quality-first", Kind.CLOUD)


@pytest.mark.parametrize(
    ("header", "value", "told"),
    [
        ("X-K9-Privacy", "secret", "'any' or 'local-only'"),
        ("X-K9-Privacy", "Local-Only", "'any' or 'local-only'"),
        ("X-K9-Privacy", "", "'any' or 'local-only'"),
        ("X-K9-Kind", "secret", "'local' or 'cloud'"),
        ("X-K9-Queue", "secret", "'wait' or 'refuse'"),
        ("X-K9-Task-Type", "secret", "'code_completion'"),
        ("X-K9-Strategy", "", "must not be empty"),
        ("X-K9-Strategy", "s" * 81, "80 characters"),
    ],
)
def test_a_bad_header_tells_what_it_may_say(header: str, value: str, told: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse(CHAT, [(header, value)])
    assert caught.value.param == header
    assert told in caught.value.message
    assert "secret" not in caught.value.message


def test_a_header_that_contradicts_itself_is_refused() -> None:
    assert parse(CHAT, [("X-K9-Kind", "local"), ("X-K9-Kind", "local")]).kind is Kind.LOCAL
    with pytest.raises(BadRequest, match="twice"):
        parse(CHAT, [("X-K9-Kind", "local"), ("X-K9-Kind", "cloud")])


@pytest.mark.parametrize(
    ("body", "operation"),
    [
        ({"messages": HELLO}, Operation.CHAT),
        ({"prompt": "a"}, Operation.COMPLETIONS),
        ({"input": ["a"]}, Operation.EMBEDDINGS),
        ({"messages": HELLO, "prompt": "a", "input": "a"}, Operation.CHAT),
        ({"endpoint": "/v1/embeddings", "body": {"input": "a"}}, Operation.EMBEDDINGS),
    ],
)
def test_what_a_body_is_shows_in_its_fields_and_no_model_means_auto(
    body: dict[str, Any], operation: Operation
) -> None:
    request = any_of(body)
    assert (request.operation, request.model, request.body["model"]) == (operation, "auto", "auto")
    inner = body.get("body", body)
    inner["model"] = "m"
    assert any_of(body).model == "m"


def test_a_plan_reads_a_body_as_the_real_run_does() -> None:
    said = CHAT | {"stream": True, "max_tokens": 5, "k9": {"strategy": "cost", "deadline": 4}}
    assert any_of(said) == parse(said, [])
    job = {**JOB, "body": said, "priority": "batch"}
    assert any_of(job) == ingress.parse_job(json.dumps(job).encode(), [], "acme")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, None),
        ({"model": "m"}, None),
        ({"text": "secret"}, None),
        ({"body": CHAT}, None),
        ({"messages": "secret"}, "messages"),
        ({"messages": HELLO, "model": None}, "model"),
        ({"messages": HELLO, "model": ""}, "model"),
        ({"prompt": {"secret": 1}}, "prompt"),
        ({"input": []}, "input"),
        ({"messages": HELLO, "k9": {"strategy": 1}}, "k9.strategy"),
        ({"endpoint": "/v1/secret", "body": CHAT}, "endpoint"),
        ({"endpoint": "/v1/chat/completions"}, "body"),
        ({"endpoint": "/v1/chat/completions", "body": "secret"}, "body"),
        ({"endpoint": "/v1/chat/completions", "body": {"model": "m"}}, "body.messages"),
        ({"endpoint": "/v1/chat/completions", "body": CHAT, "secret": 1}, "secret"),
    ],
)
def test_a_bad_body_of_a_plan_is_refused(body: Any, param: str | None) -> None:
    with pytest.raises(K9Error) as caught:
        any_of(body)
    assert isinstance(caught.value, BadRequest)
    assert caught.value.param == param
    assert "secret" not in caught.value.message or param == "secret"
