"""Nouns survive being written and read."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import to_json

from k9_broker.errors import K9Error, _tree, from_record
from k9_broker.jobs import new_job_id
from k9_broker.models import ModelCard
from k9_broker.money import token_cost
from k9_broker.requests import InferenceRequest, Kind, Operation, Priority, Privacy, TaskType
from k9_broker.results import Result, Usage, Vectors, pack, unpack

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
float32 = st.floats(width=32, allow_nan=False, allow_infinity=False)


requests = st.builds(
    InferenceRequest,
    operation=st.sampled_from(Operation),
    model=text,
    body=st.dictionaries(text, json_values, max_size=5),
    tenant=text,
    priority=st.sampled_from(Priority),
    deadline=st.none() | st.floats(0, 1e6),
    partial=st.booleans(),
    task_type=st.none() | st.sampled_from(TaskType),
    strategy=st.none() | text,
    privacy=st.sampled_from(Privacy),
    kind=st.none() | st.sampled_from(Kind),
)


@given(requests)
def test_a_request_is_read_as_it_was_written(request: InferenceRequest) -> None:
    again = InferenceRequest.load(request.dump())
    assert again == request
    for name in ("operation", "priority", "task_type", "privacy", "kind"):
        assert type(getattr(again, name)) is type(getattr(request, name))


def test_a_request_that_an_older_version_wrote_is_read() -> None:
    old = to_json({"operation": "chat", "model": "m", "body": {}, "tenant": "t", "priority": "batch"})
    assert InferenceRequest.load(old) == InferenceRequest(Operation.CHAT, "m", {}, "t", Priority.BATCH)


@given(requests, text)
def test_a_request_for_the_model_that_was_chosen_differs_in_nothing_else(
    request: InferenceRequest, model: str
) -> None:
    sent = request.for_model(model)
    assert sent.model == model
    assert replace(sent, model=request.model, body=request.body) == request
    if model != request.model:
        assert sent.body == {**request.body, "model": model}


@given(st.lists(st.lists(float32, min_size=3, max_size=3), max_size=5), st.integers(0, 9))
def test_a_result_is_read_as_it_was_written(rows: list[list[float]], tokens: int) -> None:
    result = Result("m", Usage(tokens, 1, 2, 3), vectors=Vectors.from_floats(rows), errors={2: {"code": "x"}})
    again = Result.load(result.dump())
    assert again == result
    assert again.vectors is not None
    assert [again.vectors.row_floats(i) for i in range(len(rows))] == rows


@pytest.mark.parametrize(
    ("told", "usage"),
    [
        ({"prompt_tokens": 9, "completion_tokens": None}, Usage(9)),
        ({"prompt_tokens": -9, "completion_tokens": -1}, Usage()),
        ({"prompt_tokens": 10**400}, Usage(10**9)),
        ({"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": 100}}, Usage(9, cached=9)),
    ],
)
def test_no_usage_is_worth_less_than_nothing_or_more_than_can_be_counted(
    told: dict[str, Any], usage: Usage
) -> None:
    assert Usage.from_openai(told) == usage
    card = ModelCard(input_usd=1, output_usd=2, cached_input_usd=0.1)
    assert (token_cost(card, usage.prompt, usage.completion, usage.cached) or 0) >= 0


@given(st.lists(float32))
def test_packed_floats_are_exact(values: list[float]) -> None:
    assert unpack(pack(values)) == values


def test_base64_and_floats_give_the_same_vectors() -> None:
    floats = Vectors.from_floats([[1.0, 0.5], [math.pi, -1e-8]])
    assert Vectors.from_base64([floats.row_base64(i) for i in range(2)]) == floats


def test_every_error_is_read_as_it_was_written_and_explains_itself() -> None:
    kinds = list(_tree(K9Error))
    assert len({kind.code for kind in kinds}) == len(kinds)
    for kind in kinds:
        error = kind(param="p", retry_after=3)
        again = from_record(error.record())
        assert (type(again), again.message, again.param, again.retry_after) == (kind, error.message, "p", 3)
        assert error.message.endswith((".", "!"))


def test_nobody_is_told_to_wait_for_more_than_a_minute() -> None:
    assert K9Error(retry_after=3600).retry_after == 60


def test_job_ids_sort_by_time_and_differ() -> None:
    ids = [new_job_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert [one[:14] for one in ids] == sorted(one[:14] for one in ids)
