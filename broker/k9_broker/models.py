"""What is known of a model at a backend: what it can, how good it is, what it costs, how fast it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from k9_broker.requests import Kind, Operation


def _no_kind(tag: str) -> str:
    if tag in frozenset(Kind):
        raise ValueError(f"{tag!r} says where a backend is, not what a model is; it cannot be a tag")
    return tag


Tag = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,31}$"), AfterValidator(_no_kind)]
Dollars = Annotated[float, Field(ge=0, le=1e6)]


class ModelCard(BaseModel):
    """Every field may be unknown (`None`, or empty); what is unknown removes no backend.

    Prices are US dollars for a million tokens.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    operations: tuple[Operation, ...] = ()
    """What it can do; empty means whatever its backend can."""
    context_window: int | None = Field(default=None, ge=1)
    """Tokens of prompt and answer together."""
    max_output: int | None = Field(default=None, ge=1)
    """Tokens of one answer."""
    tools: bool | None = None
    json_schema: bool | None = None
    vision: bool | None = None
    streaming: bool | None = None
    dimensions: tuple[int, ...] = ()
    """Lengths of embeddings it can give; empty means unknown."""
    quality: float | None = Field(default=None, ge=0, le=1)
    """How strong it is, from 0 to 1: about 0.45 for a 7-8B model of today, 0.9 for the strongest."""
    tags: tuple[Tag, ...] = ()
    """Words that strategies prefer it by: `small`, `large`, `code`, `embedding`, or the operator's own.
    A `special` model has a purpose of its own, and takes only requests that name it."""
    input_usd: Dollars | None = None
    output_usd: Dollars | None = None
    cached_input_usd: Dollars | None = None
    """For prompt tokens the provider had cached; `None` means `input_usd`."""


@dataclass(frozen=True, slots=True)
class Prices:
    """What a named model charges: US dollars for a million tokens."""

    model: str
    input_usd: float
    output_usd: float


class Latency(BaseModel):
    """How fast a model answers at a backend, once a slot is free."""

    model_config = ConfigDict(frozen=True)

    ttft: float = Field(ge=0)
    """Seconds from the call to its first token; of an embeddings call, to its end."""
    tpot: float = Field(ge=0)
    """Seconds for each further token."""

    def seconds(self, completion_tokens: float) -> float:
        """Predicted seconds for a whole answer."""
        return self.ttft + self.tpot * completion_tokens
