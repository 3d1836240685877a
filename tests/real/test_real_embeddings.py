"""all-MiniLM-L6-v2 behind a real server gives the vectors that K-9's own gives."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import openai
import pytest
from openai import OpenAI

from k9_broker import errors
from k9_broker.minilm.model import MiniLM
from k9_broker.ports import Caller
from k9_broker.requests import InferenceRequest, Operation
from real.llama import LlamaServer

TEXTS = [
    "A dog runs across the meadow.",
    "Ein Hund läuft über die Wiese.",
    "The queue is full; try again in a minute.",
    "def add(a, b): return a + b",
    "日本語 and 🐕, in one sentence",
    "ok",
    "word " * 80,
]


def vectors_of(sdk: OpenAI, given: Any, **more: Any) -> Any:
    """The vectors as an array, in the order of the input."""
    answer = sdk.embeddings.create(model="vectors", input=given, **more)
    assert [one.index for one in answer.data] == list(range(len(answer.data)))
    return np.array([decoded(one.embedding) for one in answer.data], np.float32)


def decoded(embedding: Any) -> Any:
    """The numbers of one vector, in whichever way it was written."""
    if isinstance(embedding, str):
        return np.frombuffer(base64.b64decode(embedding), "<f4")
    return np.array(embedding, np.float32)


def test_vectors_are_those_of_the_embedded_model(sdk: OpenAI, minilm: MiniLM) -> None:
    answer = sdk.embeddings.create(model="vectors", input=TEXTS)
    got = np.array([decoded(one.embedding) for one in answer.data])
    own, tokens = minilm.encode(TEXTS)
    want = np.frombuffer(own.packed, "<f4").reshape(len(TEXTS), -1)
    cosines = (got * want).sum(axis=1) / np.linalg.norm(got, axis=1) / np.linalg.norm(want, axis=1)
    assert cosines.min() > 0.999
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == tokens


def test_floats_and_base64_are_equal_to_the_bit(sdk: OpenAI) -> None:
    floats = vectors_of(sdk, TEXTS[:3], encoding_format="float")
    packed = vectors_of(sdk, TEXTS[:3], encoding_format="base64")
    assert floats.shape == (3, 384)
    assert floats.tobytes() == packed.tobytes()


def test_token_ids_are_as_good_as_text(sdk: OpenAI) -> None:
    text = vectors_of(sdk, ["hello world", "hello"])
    ids = vectors_of(sdk, [[101, 7592, 2088, 102], [101, 7592, 102]])  # [CLS] hello world [SEP]
    lone = vectors_of(sdk, [101, 7592, 2088, 102])
    assert np.allclose(ids, text, atol=1e-6)
    assert np.allclose(lone, text[:1], atol=1e-6)


async def test_long_lists_come_back_in_order(vectors: LlamaServer, caller_of: Callable[..., Caller]) -> None:
    caller = caller_of(vectors, max_inputs=4)
    texts = [f"sentence number {number}" for number in range(18)]
    whole = await caller.call(InferenceRequest(Operation.EMBEDDINGS, "vectors", {"input": texts}))
    assert whole.vectors
    assert whole.vectors.count == 18
    last = await caller.call(InferenceRequest(Operation.EMBEDDINGS, "vectors", {"input": texts[-1]}))
    assert last.vectors
    difference = np.frombuffer(whole.vectors.row(17), "<f4") - np.frombuffer(last.vectors.row(0), "<f4")
    assert np.abs(difference).max() < 1e-5


def test_too_long_an_input_is_the_callers_fault(sdk: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        sdk.embeddings.create(model="vectors", input=["fine", "word " * 600])
    assert refused.value.code == "context_length_exceeded"


async def test_a_servers_500_for_too_long_an_input_is_understood(
    vectors: LlamaServer, caller_of: Callable[..., Caller]
) -> None:
    """Or it would be sent again and again, and its server taken for broken."""
    too_long = InferenceRequest(Operation.EMBEDDINGS, "vectors", {"input": ["fine", "word " * 600]})
    with pytest.raises(errors.ContextTooLong):
        await caller_of(vectors).call(too_long)
    found = await caller_of(vectors).call(replace(too_long, partial=True))
    assert {index: error["code"] for index, error in found.errors.items()} == {1: "context_length_exceeded"}


def test_fewer_dimensions_are_refused_rather_than_ignored(sdk: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        sdk.embeddings.create(model="vectors", input="hello", dimensions=10)
    assert (refused.value.code, refused.value.param) == ("unsupported_parameter", "dimensions")


def test_a_chat_model_embeds_nothing(sdk: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError):
        sdk.embeddings.create(model="quick", input="hello")


async def test_a_chat_server_asked_for_vectors_is_not_at_fault(
    quick: LlamaServer, caller_of: Callable[..., Caller]
) -> None:
    with pytest.raises(errors.BadRequest):
        await caller_of(quick).call(InferenceRequest(Operation.EMBEDDINGS, "quick", {"input": "hello"}))
