"""What must hold for whatever is asked of the fake."""

from __future__ import annotations

import math
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from k9_broker.fake.answers import WORDS, Question, answer, until
from k9_broker.fake.samples import sample
from k9_broker.fake.vectors import embed
from k9_broker.results import unpack


@given(st.text(), st.integers(), st.integers(1, 200), st.none() | st.integers(1, 250))
def test_an_answer_has_the_length_asked_for_and_only_its_own_words(
    said: str, seed: int, length: int, most: int | None
) -> None:
    question = Question(said, seed=seed, max_tokens=most)
    told = answer(question, length)
    assert told == answer(question, length)
    assert told.tokens == min(length, most or length)
    assert told.finish == ("length" if most is not None and most < length else "stop")
    assert set(told.text.lower().strip(".").split()) <= set(WORDS)


@given(st.lists(st.text(min_size=1, max_size=4)), st.lists(st.text(max_size=3), max_size=4))
def test_until_keeps_everything_before_the_first_stop(pieces: list[str], stops: list[str]) -> None:
    text, kept = "".join(pieces), until(pieces, stops)
    found = [text.find(stop) for stop in stops if stop and stop in text]
    if found:
        assert kept is not None
        assert "".join(kept) == text[: min(found)]
    else:
        assert kept is None


@given(st.text(), st.integers(1, 300))
def test_vectors_have_length_one(text: str, dimensions: int) -> None:
    vector = unpack(embed(text, dimensions))
    assert len(vector) == dimensions
    assert math.isclose(math.hypot(*vector), 1, abs_tol=1e-5)


@given(st.lists(st.sampled_from(WORDS), min_size=1))
def test_the_order_of_words_does_not_matter_to_a_vector(words: list[str]) -> None:
    assert embed(" ".join(words), 32) == embed(" ".join(sorted(words)), 32)


def test_very_long_texts_and_words() -> None:
    for text in ("word " * 100_000, "a" * 1_000_000):
        assert math.isclose(math.hypot(*unpack(embed(text, 8))), 1, abs_tol=1e-5)


SCHEMAS: list[Any] = [
    {"type": "object", "properties": {"a": {"type": "string", "minLength": 12}, "b": {"type": "boolean"}}},
    {"type": "object", "required": ["unknown"]},
    {"type": "integer", "minimum": 5, "exclusiveMaximum": 6},
    {"type": "integer", "exclusiveMinimum": 2, "multipleOf": 5},
    {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
    {"type": "integer", "maximum": -7},
    {"type": ["string", "null"], "maxLength": 2},
    {"type": "array", "items": {"enum": ["x", "y"]}, "minItems": 3},
    {"type": "array", "maxItems": 0},
    {"const": {"deep": [1]}},
    {"anyOf": [{"type": "null"}, {"type": "string"}]},
    {"allOf": [{"properties": {"a": {"type": "integer"}}, "required": ["a"]}, {"required": ["b"]}]},
    {
        "$defs": {"node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}}},
        "$ref": "#/$defs/node",
    },
    {
        "$defs": {
            "tree": {"anyOf": [{"type": "array", "items": {"$ref": "#/$defs/tree"}}, {"type": "null"}]}
        },
        "$ref": "#/$defs/tree",
    },
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=range(len(SCHEMAS)))
def test_a_sample_fits_its_schema(schema: Any) -> None:
    for byte in (0, 1, 255):
        jsonschema.Draft202012Validator(schema).validate(sample(schema, bytes([byte] * 16)))
