"""Embedding requests and answers, in parts: what fits into one call, and the parts together again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from k9_broker.dialects.base import unreadable
from k9_broker.errors import BadRequest, UnsupportedParameter
from k9_broker.requests import InferenceRequest
from k9_broker.results import Result, Usage, Vectors


def inputs_of(request: InferenceRequest) -> list[Any]:
    """The inputs as a list: texts, or lists of token ids. A lone text or one list of ids is one input."""
    given = request.body.get("input")
    if isinstance(given, list) and not (given and isinstance(given[0], int)):
        return given
    return [given]


def split(request: InferenceRequest, most: int) -> list[InferenceRequest]:
    """The request itself, or the same request with at most `most` inputs each, in order."""
    inputs = inputs_of(request)
    if len(inputs) <= most:
        return [request]
    return [_with_inputs(request, inputs[start : start + most]) for start in range(0, len(inputs), most)]


def halves(request: InferenceRequest) -> list[InferenceRequest]:
    """The request in two."""
    return split(request, (len(inputs_of(request)) + 1) // 2)


def _with_inputs(request: InferenceRequest, inputs: list[Any]) -> InferenceRequest:
    return replace(request, body={**request.body, "input": inputs})


def concerns_inputs(error: BadRequest) -> bool:
    """Whether fewer or other inputs may pass where these were refused."""
    return not isinstance(error, UnsupportedParameter) or (error.param or "").startswith("input")


def refused(request: InferenceRequest, error: BadRequest) -> Result:
    """The result of a single input that the backend refuses; its width is found when parts are merged."""
    return Result(request.model, vectors=Vectors(b"", 0), errors={0: error.record()})


def merge(requests: Sequence[InferenceRequest], results: Sequence[Result]) -> Result:
    """One result out of those of `requests`, in order; failed inputs get zeros of the others' width.

    Raises `BackendError` when the parts' vectors differ in width.
    """
    widths = {part.vectors.dimensions for part in results if part.vectors and part.vectors.dimensions}
    if len(widths) > 1:
        raise unreadable(f"has vectors of {len(widths)} different widths")
    width = next(iter(widths), 0)
    packed: list[bytes] = []
    errors: dict[int, Mapping[str, Any]] = {}
    usage, position = Usage(), 0
    for request, part in zip(requests, results, strict=True):
        count = len(inputs_of(request))
        vectors = part.vectors.packed if part.vectors else b""
        packed.append(vectors or bytes(4 * width * count))
        errors.update({position + index: error for index, error in part.errors.items()})
        usage += part.usage
        position += count
    model = next((part.model for part in results if part.vectors and part.vectors.count), results[0].model)
    return Result(model, usage, vectors=Vectors(b"".join(packed), width), errors=errors)


def ordered(data: Any) -> list[Any]:
    """The `embedding` values of OpenAI's `data`, by `index` where the server gives one."""
    if not isinstance(data, list) or not all(isinstance(item, Mapping) for item in data):
        raise unreadable("has no list of embeddings")
    indexes = [item.get("index") for item in data]
    if all(index is None for index in indexes):
        return [item.get("embedding") for item in data]
    rows: dict[Any, Any] = dict(zip(indexes, (item.get("embedding") for item in data), strict=True))
    try:
        return [rows[index] for index in range(len(data))]
    except KeyError:
        raise unreadable("misses an embedding") from None


def vectors(rows: Sequence[Any], expected: int) -> Vectors:
    """Vectors out of `expected` rows, each base64 of little-endian float32 or a list of numbers.

    Raises `BackendError` when rows are missing, differ in width or hold something else.
    """
    if len(rows) != expected:
        raise unreadable(f"has {len(rows)} embeddings for {expected} inputs")
    try:
        if all(isinstance(row, str) for row in rows):
            found = Vectors.from_base64(rows)
        else:
            found = Vectors.from_floats(rows)
    except (TypeError, ValueError, OverflowError):  # binascii.Error is a ValueError
        raise unreadable("has an embedding that is neither base64 nor numbers") from None
    width = 4 * found.dimensions
    if expected and (not width or len(found.packed) != width * expected or not _even(rows)):
        raise unreadable("has embeddings of different widths")
    return found


def _even(rows: Iterable[Any]) -> bool:
    return len({len(row) for row in rows}) <= 1
