"""What a backend answered, in one vocabulary.

`Result` is a whole answer, `Chunk` a piece of a streamed one, `Outcome` how a job ended. Text
answers stay in OpenAI's wire shape; vectors are packed little-endian float32, because that is
what the wire (base64), NumPy and the ledger all want and a list of Python floats is none of them.
"""

from __future__ import annotations

from array import array
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field
from sys import byteorder
from typing import Any, Self

from pydantic_core import from_json, to_json

from k9_broker.errors import K9Error
from k9_broker.jobs import JobState

Chunk = Mapping[str, Any]
"""One OpenAI-shaped stream chunk (`chat.completion.chunk` or `text_completion`): `choices`, maybe `usage`."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens, counted the same way for every backend: `prompt` includes cached, `completion` reasoning."""

    prompt: int = 0
    completion: int = 0
    cached: int = 0
    reasoning: int = 0
    written: int = 0
    """Of the prompt, what the provider put into its cache."""

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt + other.prompt,
            self.completion + other.completion,
            self.cached + other.cached,
            self.reasoning + other.reasoning,
            self.written + other.written,
        )

    @property
    def total(self) -> int:
        return self.prompt + self.completion

    def openai(self) -> dict[str, Any]:
        """OpenAI's `usage` object for text answers, with cache writes where there are any."""
        written = {"cache_write_tokens": self.written} if self.written else {}
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.total,
            "prompt_tokens_details": {"cached_tokens": self.cached, "audio_tokens": 0, **written},
            "completion_tokens_details": {
                "reasoning_tokens": self.reasoning,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        }

    @classmethod
    def from_openai(cls, usage: Mapping[str, Any] | None) -> Self:
        """Reads `usage` as any OpenAI-compatible server writes it: keys may be absent or null.

        Money is made of these numbers, so what no answer can have is brought to what it can.
        """
        usage = usage or {}
        prompt_details = usage.get("prompt_tokens_details") or {}
        completion_details = usage.get("completion_tokens_details") or {}
        prompt, completion = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
        return cls(
            prompt=prompt,
            completion=completion,
            cached=_count(prompt_details.get("cached_tokens"), prompt),
            reasoning=_count(completion_details.get("reasoning_tokens")),
            written=_count(prompt_details.get("cache_write_tokens"), prompt),
        )


def _count(told: Any, most: int = 10**9) -> int:
    return min(max(0, int(told or 0)), most)


@dataclass(frozen=True, slots=True)
class Vectors:
    """`count` embeddings of `dimensions` little-endian float32 each, packed back to back in input order."""

    packed: bytes = field(repr=False)
    dimensions: int

    @property
    def count(self) -> int:
        return len(self.packed) // (4 * self.dimensions) if self.dimensions else 0

    def row(self, index: int) -> bytes:
        width = 4 * self.dimensions
        return self.packed[index * width : (index + 1) * width]

    def row_base64(self, index: int) -> str:
        return b64encode(self.row(index)).decode("ascii")

    def row_floats(self, index: int) -> list[float]:
        return unpack(self.row(index))

    @classmethod
    def from_floats(cls, rows: Sequence[Sequence[float]]) -> Self:
        return cls(b"".join(pack(row) for row in rows), len(rows[0]) if rows else 0)

    @classmethod
    def from_base64(cls, rows: Sequence[str]) -> Self:
        packed = [b64decode(row) for row in rows]
        return cls(b"".join(packed), len(packed[0]) // 4 if packed else 0)


def pack(values: Sequence[float]) -> bytes:
    """Little-endian float32 bytes of `values`."""
    numbers = array("f", values)
    if byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()


def unpack(packed: bytes) -> list[float]:
    """The floats of little-endian float32 bytes."""
    numbers = array("f", packed)
    if byteorder == "big":
        numbers.byteswap()
    return numbers.tolist()


@dataclass(frozen=True, slots=True)
class Result:
    """A whole answer.

    Text operations have `body`, an OpenAI `chat.completion` or `text_completion` object.
    Embeddings have `vectors`; with `InferenceRequest.partial`, `errors` maps the index of a failed
    input to its error record and that input's vector is all zeros.
    """

    model: str
    usage: Usage = field(default_factory=Usage)
    body: Mapping[str, Any] | None = field(default=None, repr=False)
    vectors: Vectors | None = field(default=None, repr=False)
    errors: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)

    def dump(self) -> bytes:
        """A JSON head line, then the packed vectors if there are any; `load` is its inverse."""
        head = {
            "model": self.model,
            "usage": astuple(self.usage),
            "body": self.body,
            "dimensions": self.vectors.dimensions if self.vectors else None,
            "errors": self.errors,
        }
        return to_json(head) + b"\n" + (self.vectors.packed if self.vectors else b"")

    @classmethod
    def load(cls, raw: bytes) -> Self:
        line, _, packed = raw.partition(b"\n")
        head = from_json(line)
        dimensions = head["dimensions"]
        return cls(
            model=head["model"],
            usage=Usage(*head["usage"]),
            body=head["body"],
            vectors=None if dimensions is None else Vectors(packed, dimensions),
            errors={int(index): error for index, error in head["errors"].items()},
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended: the state, and the result or the error that goes with it."""

    state: JobState
    result: Result | None = None
    error: K9Error | None = None
    usage: Usage = field(default_factory=Usage)
    answered: bool = False
    """Whether any of an answer came, so that tokens were used even if nobody said how many."""

    @classmethod
    def succeeded(cls, result: Result) -> Self:
        return cls(JobState.SUCCEEDED, result=result, usage=result.usage, answered=True)

    @classmethod
    def failed(cls, error: K9Error, usage: Usage | None = None, *, answered: bool = False) -> Self:
        return cls(JobState.FAILED, error=error, usage=usage or Usage(), answered=answered)
