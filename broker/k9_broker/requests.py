"""What a caller sent, once: the canonical request every later step reads.

The canonical vocabulary is OpenAI's wire shape. An ingress dialect turns other shapes into it; a
backend dialect turns it into what its backend speaks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Self

from pydantic_core import from_json, to_json


class Operation(StrEnum):
    """What is asked of the model. The value is the last part of the Celery task's name."""

    CHAT = "chat"
    COMPLETIONS = "completions"
    EMBEDDINGS = "embeddings"


class Priority(StrEnum):
    """Which of a backend's two queues a job waits in."""

    INTERACTIVE = "interactive"
    BATCH = "batch"


class Kind(StrEnum):
    """Where the data goes: a machine of the operator's, or somebody else's."""

    LOCAL = "local"
    CLOUD = "cloud"


class Privacy(StrEnum):
    """Where a request may go. Of several wishes the strictest wins."""

    ANY = "any"
    LOCAL_ONLY = "local-only"


class TaskType(StrEnum):
    """What kind of work the text is. Embeddings are known by their endpoint, never by their text."""

    QA = "qa"
    CODE_GENERATION = "code_generation"
    CODE_COMPLETION = "code_completion"
    CODE_REFACTOR_REVIEW = "code_refactor_review"
    REASONING = "reasoning"
    CREATIVE_WRITING = "creative_writing"
    SUMMARIZATION = "summarization"
    EXTRACTION_CLASSIFICATION = "extraction_classification"
    TRANSLATION = "translation"
    CHAT = "chat"
    EMBEDDINGS = "embeddings"


DEADLINES = {Priority.INTERACTIVE: 600.0, Priority.BATCH: 24 * 3600.0}
"""Seconds a job may take from submission to outcome when its caller names no deadline."""


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """One validated request.

    `body` is the OpenAI-shaped request body (`model`, `messages` | `prompt` | `input`, `stream`,
    sampling parameters, `tools`, …) without K-9's own `k9` object. `model` is what the caller named:
    a model, an alias, or `auto`, perhaps with a strategy (`auto:cost`). `partial` asks an embeddings
    job to report failing inputs by index instead of failing as a whole.
    """

    operation: Operation
    model: str
    body: Mapping[str, Any] = field(repr=False)
    tenant: str = "default"
    priority: Priority = Priority.INTERACTIVE
    deadline: float | None = None
    """Seconds from submission; `None` means the priority's default in `DEADLINES`."""
    partial: bool = False
    task_type: TaskType | None = None
    """What the caller says the text is; `None` leaves it to recognition."""
    strategy: str | None = None
    """The strategy the caller wishes; `None` leaves it to the model's name, the tenant and the default."""
    privacy: Privacy = Privacy.ANY
    """The caller's own wish; tenant, rules and detector may be stricter."""
    kind: Kind | None = None
    """The only kind of backend the caller accepts."""
    patient: bool = False
    """The caller would rather wait in a queue than hear that all are full."""

    @property
    def stream(self) -> bool:
        return self.body.get("stream") is True

    @property
    def include_usage(self) -> bool:
        options = self.body.get("stream_options")
        return isinstance(options, Mapping) and options.get("include_usage") is True

    @property
    def allowed_seconds(self) -> float:
        return self.deadline if self.deadline is not None else DEADLINES[self.priority]

    def for_model(self, model: str) -> Self:
        """The request as the backend that was chosen is sent it: `model` in place of an alias or `auto`."""
        if model == self.model:
            return self
        return replace(self, model=model, body={**self.body, "model": model})

    def streaming(self, wanted: bool) -> Self:
        """The same request, with its answer streamed or whole."""
        return self if self.stream is wanted else replace(self, body={**self.body, "stream": wanted})

    def dump(self) -> bytes:
        """JSON for the job record; `load` is its inverse. A field of `_LATER` stands in it only when it is
        set, so that the same request has the same bytes, and the same fingerprint, in every version."""
        said = {name: getattr(self, name) for name in self.__slots__}
        return to_json({name: value for name, value in said.items() if value or name not in _LATER})

    @classmethod
    def load(cls, raw: bytes) -> Self:
        data = from_json(raw)
        for name, noun in _NOUNS.items():
            if data.get(name) is not None:  # what an older version queued does not have every field
                data[name] = noun(data[name])
        return cls(**{name: value for name, value in data.items() if name in cls.__slots__})


_LATER = frozenset({"patient"})
"""Fields that the first version did not have; not to be set is what they are without it."""
_NOUNS: Mapping[str, type[StrEnum]] = {
    "operation": Operation,
    "priority": Priority,
    "task_type": TaskType,
    "privacy": Privacy,
    "kind": Kind,
}
