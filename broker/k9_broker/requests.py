"""What a caller sent, once: the canonical request every later step reads.

The canonical vocabulary is OpenAI's wire shape. An ingress dialect turns other shapes into it; a
backend dialect turns it into what its backend speaks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
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


DEADLINES = {Priority.INTERACTIVE: 600.0, Priority.BATCH: 24 * 3600.0}
"""Seconds a job may take from submission to outcome when its caller names no deadline."""


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """One validated request.

    `body` is the OpenAI-shaped request body (`model`, `messages` | `prompt` | `input`, `stream`,
    sampling parameters, `tools`, …) without K-9's own `k9` object. `partial` asks an embeddings
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

    def dump(self) -> bytes:
        """JSON for the job record; `load` is its inverse."""
        return to_json(
            {
                "operation": self.operation,
                "model": self.model,
                "body": self.body,
                "tenant": self.tenant,
                "priority": self.priority,
                "deadline": self.deadline,
                "partial": self.partial,
            }
        )

    @classmethod
    def load(cls, raw: bytes) -> Self:
        data = from_json(raw)
        return cls(
            **{
                **data,
                "operation": Operation(data["operation"]),
                "priority": Priority(data["priority"]),
            }
        )
