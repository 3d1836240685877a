"""Results and chunks as OpenAI's clients read them, complete: no key that they rely on is missing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic_core import to_json

from k9_broker.jobs import Job
from k9_broker.requests import Operation
from k9_broker.results import Chunk, Result, Usage, Vectors

EncodingFormat = Literal["float", "base64"]

TEXT = (Operation.CHAT, Operation.COMPLETIONS)
"""The operations whose answers are text, and can be streamed."""

_OBJECTS = {
    Operation.CHAT: ("chatcmpl-", "chat.completion", "chat.completion.chunk"),
    Operation.COMPLETIONS: ("cmpl-", "text_completion", "text_completion"),
}


def answer(job: Job, result: Result, encoding_format: EncodingFormat = "float") -> bytes:
    """The JSON body of the whole answer to any operation."""
    if job.operation is Operation.EMBEDDINGS:
        return embeddings(job, result, encoding_format)
    return text(job, result)


def text(job: Job, result: Result) -> bytes:
    """A `chat.completion` or `text_completion`."""
    prefix, whole, _ = _OBJECTS[job.operation]
    body = result.body or {}
    choices = [
        _choice(job.operation, index, choice) for index, choice in enumerate(body.get("choices") or ())
    ]
    return to_json(
        {
            **body,
            "id": prefix + job.id.removeprefix("job-"),
            "object": whole,
            "created": int(job.created_at),
            "model": result.model,
            "choices": choices,
            "usage": result.usage.openai(),
        }
    )


def _choice(operation: Operation, index: int, choice: Mapping[str, Any]) -> dict[str, Any]:
    complete = {"index": index, "logprobs": None, "finish_reason": None, **choice}
    if operation is Operation.CHAT:
        complete["message"] = {
            "role": "assistant",
            "content": None,
            "refusal": None,
            **(choice.get("message") or {}),
        }
    return complete


def embeddings(job: Job, result: Result, encoding_format: EncodingFormat = "float") -> bytes:
    """An embeddings list, with the `id` that Mistral's clients insist on.

    The vector of an input that failed (`partial` jobs) is `null`.
    """
    data = [
        {"object": "embedding", "index": index, "embedding": None if index in result.errors else row}
        for index, row in enumerate(_rows(result.vectors, encoding_format))
    ]
    usage = {"prompt_tokens": result.usage.prompt, "total_tokens": result.usage.prompt}
    name = "embd-" + job.id.removeprefix("job-")
    return to_json({"id": name, "object": "list", "data": data, "model": result.model, "usage": usage})


def _rows(vectors: Vectors | None, encoding_format: EncodingFormat) -> Iterator[str | list[float]]:
    if vectors is not None:
        write = vectors.row_base64 if encoding_format == "base64" else vectors.row_floats
        for index in range(vectors.count):
            yield write(index)


class Chunks:
    """The chunks of one streamed answer: all with the same id, time and model.

    Workers always ask backends for usage; whoever did not ask K-9 for it does not get it.
    """

    def __init__(self, job: Job, *, include_usage: bool) -> None:
        prefix, _, name = _OBJECTS[job.operation]
        self._chat = job.operation is Operation.CHAT
        self._include_usage = include_usage
        self._head: dict[str, Any] = {
            "id": prefix + job.id.removeprefix("job-"),
            "object": name,
            "created": int(job.created_at),
            "model": None,
        }
        self._asked_model = job.model

    def write(self, chunk: Chunk) -> bytes | None:
        """The chunk's JSON, or `None` when there is nothing in it for this caller."""
        choices = chunk.get("choices")
        usage = chunk.get("usage")
        if not choices and not (usage and self._include_usage):
            return None
        if self._head["model"] is None:
            self._head["model"] = chunk.get("model") or self._asked_model
        complete = {**chunk, **self._head}
        complete["choices"] = [self._choice(index, choice) for index, choice in enumerate(choices or ())]
        complete.pop("obfuscation", None)
        if self._include_usage:
            complete["usage"] = None if choices else Usage.from_openai(usage).openai()
        else:
            complete.pop("usage", None)
        return to_json(complete)

    def _choice(self, index: int, choice: Mapping[str, Any]) -> dict[str, Any]:
        complete = {"index": index, "logprobs": None, "finish_reason": None, **choice}
        if self._chat and "delta" not in complete:
            complete["delta"] = {}
        return complete
