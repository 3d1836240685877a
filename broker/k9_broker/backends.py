"""A backend: a named place with its own queues, as configured and as a worker announces it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from k9_broker.models import Latency, ModelCard
from k9_broker.requests import Kind, Operation, Priority

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
"""Lower-case letters, digits and hyphens: a backend's name is part of queue and key names."""


class Backend(BaseModel):
    """One `[[backends]]` table of `k9.toml`, or what discovery found."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    dialect: str
    """Which wire format it speaks: `openai-compatible`, `ollama`, `fake`, `embedded`, …"""
    kind: Kind = Kind.LOCAL
    url: str = ""
    """Base URL without a trailing slash and without `/v1`; empty for in-process backends."""
    models: tuple[str, ...] = ()
    """The models to offer; empty means: ask the backend which it has."""
    cards: dict[str, ModelCard] = Field(default_factory=dict)
    """What is known of its models, by name; wins over the `[models]` tables."""
    price_provider: str | None = None
    """Whose price list applies, such as `openai` or `azure`; `None` guesses from dialect and URL."""
    gpu_usd_per_hour: float | None = Field(default=None, ge=0, le=1e6)
    """What an hour of the machine costs, shared by its slots. Local work is free without it."""
    operations: tuple[Operation, ...] = ()
    """What it can do; empty means whatever its dialect can."""
    slots: int = Field(default=8, ge=1, le=4096)
    """Requests it works on at once."""
    max_waiting: int = Field(default=256, ge=0)
    """The mark: jobs that may wait in its interactive queue before it counts as full."""
    max_waiting_batch: int = Field(default=1024, ge=0)
    """The same for its batch queue."""
    max_inputs: int = Field(default=256, ge=1)
    """Embedding inputs it takes in one call; longer lists are split."""
    api_key_env: str | None = None
    """Name of the environment variable with its key. The key itself is never configuration."""
    connect_timeout: float = Field(default=5.0, gt=0)
    """Seconds to reach it."""
    read_timeout: float = Field(default=600.0, gt=0)
    """Seconds without a byte after which a call counts as dead; a cold model may be silent for minutes."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Dialect options, such as `num_ctx` and `keep_alive` for Ollama."""

    @model_validator(mode="after")
    def _has_url(self) -> Backend:
        if self.dialect != "embedded" and not self.url:
            raise ValueError(f"backend {self.name!r} needs a url")
        return self

    def max_waiting_for(self, priority: Priority) -> int:
        return self.max_waiting if priority is Priority.INTERACTIVE else self.max_waiting_batch


class Announcement(BaseModel):
    """What a worker says of itself at every heartbeat: the only thing routing knows of a backend."""

    model_config = ConfigDict(frozen=True)

    node: str
    """The Celery node name, `k9-<backend>@<host>`."""
    backend: Name
    kind: Kind
    dialect: str
    models: tuple[str, ...]
    cards: dict[str, ModelCard] = Field(default_factory=dict)
    """A card for each model."""
    latencies: dict[str, Latency] = Field(default_factory=dict)
    """The present estimate for each model that was called lately."""
    gpu_usd_per_hour: float | None = None
    operations: tuple[Operation, ...]
    order: int = 0
    """Position in the configuration; ties are broken by name."""
    slots: int
    max_waiting: int
    max_waiting_batch: int
    service_seconds: float = 1.0
    """Decaying mean of how long a job takes once it runs."""
    loop_lag_seconds: float = 0.0
    """How late the worker's event loop ran its last tick: more than 0.1 means something blocks it."""
