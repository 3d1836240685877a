"""Answers an embeddings request in OpenAI's shape, and refuses the bad ones as OpenAI does."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from typing import Any

from pydantic_core import to_json

from k9_broker.fake import openai_asks as asks
from k9_broker.fake.script import Call, Script
from k9_broker.fake.vectors import embed
from k9_broker.results import unpack

Base = Callable[[str, list[dict[str, Any]], int], dict[str, Any]]
"""The whole body, of the model, the data and the prompt's tokens."""


def embedded(call: Call, name: str, base: Base, broken: bytes) -> Script:
    """Vectors as floats or as base64 of little-endian float32. Raises `Refused`."""
    texts = _texts(call)
    counts = [len(text.split()) or 1 for text in texts]
    if call.behaviour.context_tokens and max(counts) > call.behaviour.context_tokens:
        raise asks.refuse(
            f"This model's maximum context length is {call.behaviour.context_tokens} tokens.",
            "input",
            "context_length_exceeded",
        )
    dimensions = asks.integer(call.body, "dimensions", 1) or call.behaviour.dimensions
    if dimensions > 8192:
        raise asks.refuse("Invalid 'dimensions': at most 8192.", "dimensions", "invalid_value")
    shape = call.body.get("encoding_format") or "float"
    if shape not in ("float", "base64"):
        raise asks.refuse("'encoding_format' is 'float' or 'base64'.", "encoding_format", "invalid_value")
    rows = [embed(text, dimensions) for text in texts]
    values: list[Any] = (
        [b64encode(row).decode() for row in rows] if shape == "base64" else list(map(unpack, rows))
    )
    data = [{"object": "embedding", "index": index, "embedding": value} for index, value in enumerate(values)]
    body = to_json(base(name, data, sum(counts)))
    return Script("application/json", ((0, body),), broken, inputs=len(texts), prompt=sum(counts))


def _texts(call: Call) -> list[str]:
    if call.body.get("input") in (None, "", []):
        raise asks.refuse("'$.input' is invalid. It is missing or empty.", "input")
    texts = asks.texts(call.body["input"], "input")
    limit = call.behaviour.max_inputs
    if len(texts) > limit:
        raise asks.refuse(f"Invalid 'input': at most {limit} inputs in one request.", "input")
    if "" in texts:
        raise asks.refuse("'$.input' is invalid. An input cannot be an empty string.", "input")
    bad = call.behaviour.fail_inputs_containing
    if bad and any(bad in text for text in texts):
        raise asks.refuse("'$.input' is invalid. One of the inputs cannot be embedded.", "input")
    return texts
