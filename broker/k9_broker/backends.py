"""A backend: a named place with its own queues, as configured and as a worker announces it."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from k9_broker.health import InstanceHealth
from k9_broker.models import Latency, ModelCard
from k9_broker.requests import Kind, Operation, Priority

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
"""Lower-case letters, digits and hyphens: a backend's name is part of queue and key names."""

ORDER_STEP = 1000
"""Between the `Announcement.order` of neighbours in the configuration, so that another fits between."""

Affinity = Literal["none", "session", "prefix"]
"""What keeps requests at one instance, for its cache: nothing, the session they name, their beginning."""


class Instance(BaseModel):
    """One server of a backend: one URL."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = Field(min_length=1)
    """Base URL without a trailing slash and without `/v1`."""
    weight: float = Field(default=1.0, gt=0, le=1000)
    """How much of the work it takes, beside the others' weights."""
    slots: int = Field(default=8, ge=1, le=4096)
    """Requests it works on at once; the backend's `slots` unless it has its own."""

    @property
    def name(self) -> str:
        """Host, port and path: what operators see. Never a user or a password."""
        parts = urlsplit(self.url)
        port = f":{parts.port}" if parts.port else ""
        return f"{parts.hostname or ''}{port}{parts.path.rstrip('/')}"


class Backend(BaseModel):
    """One `[[backends]]` table of `k9.toml`, or what discovery found."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    dialect: str
    """Which wire format it speaks: `openai-compatible`, `ollama`, `fake`, `embedded`, …"""
    kind: Kind = Kind.LOCAL
    url: str = ""
    """Base URL without a trailing slash and without `/v1`; empty for in-process backends."""
    instances: tuple[Instance, ...] = ()
    """Instead of `url`: several servers with the same models, between which workers balance."""
    affinity: Affinity = "none"
    """What keeps requests at one instance."""
    models: tuple[str, ...] = ()
    """The models to offer; empty means: ask the backend which it has."""
    cards: dict[str, ModelCard] = Field(default_factory=dict)
    """What is known of its models, by name; wins over the `[models]` tables."""
    price_provider: str | None = None
    """Whose price list applies, such as `openai` or `azure`; `None` guesses from dialect and URL."""
    gpu_usd_per_hour: float | None = Field(default=None, ge=0, le=1e6)
    """What an hour of one instance costs, shared by its slots. Local work is free without it."""
    operations: tuple[Operation, ...] = ()
    """What it can do; empty means whatever its dialect can."""
    slots: int = Field(default=8, ge=1, le=4096)
    """Requests each of its instances works on at once."""
    requests_per_minute: int | None = Field(default=None, ge=1)
    """Calls all workers together may begin in a minute; `None`: what the backend's answers tell."""
    tokens_per_minute: int | None = Field(default=None, ge=1)
    """Tokens, prompt and answer, of those calls; `None`: what the backend's answers tell."""
    probe_seconds: float = Field(default=10.0, ge=0)
    """Seconds between looks at the health of an instance that has no traffic; 0: never."""
    max_waiting: int = Field(default=256, ge=0)
    """The mark: jobs that may wait in its interactive queue before it counts as full."""
    max_waiting_batch: int = Field(default=1024, ge=0)
    """The same for its batch queue, and for interactive callers who are willing to wait."""
    overflow_at: int | None = Field(default=None, ge=0)
    """Jobs in its interactive queue from which others rather go elsewhere. `None`: only at `max_waiting`."""
    overflow_wait: float | None = Field(default=10.0, ge=0)
    """Seconds of estimated wait from which interactive jobs rather go elsewhere; `None`: never."""
    reserved_slots: int | None = Field(default=None, ge=0)
    """Slots a worker keeps free of batch jobs at least, beside those that interactive jobs lately had, while
    such come. `None`: one in ten, none below four."""
    max_inputs: int | None = Field(default=None, ge=1)
    """Embedding inputs it takes in one call; longer lists are split. `None`: what its dialect takes."""
    api_key_env: str | None = None
    """Name of the environment variable with its key. The key itself is never configuration."""
    connect_timeout: float = Field(default=5.0, gt=0)
    """Seconds to reach it."""
    read_timeout: float = Field(default=600.0, gt=0)
    """Seconds without a byte after which a call counts as dead; a cold model may be silent for minutes."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Dialect options, such as `num_ctx` and `keep_alive` for Ollama."""

    @model_validator(mode="before")
    @classmethod
    def _slots_of_instances(cls, given: Any) -> Any:
        if not (isinstance(given, dict) and "slots" in given and given.get("instances")):
            return given
        instances = [
            {"slots": given["slots"], **one} if isinstance(one, dict) else one for one in given["instances"]
        ]
        return {**given, "instances": instances}

    @model_validator(mode="after")
    def _has_url(self) -> Self:
        if self.instances and self.url:
            raise ValueError(f"backend {self.name!r} has both url and instances; keep one of them")
        if self.dialect != "embedded" and not self.servers:
            raise ValueError(f"backend {self.name!r} needs a url")
        if len({one.name for one in self.instances}) < len(self.instances):
            raise ValueError(f"backend {self.name!r} names the same instance twice")
        return self

    @property
    def servers(self) -> tuple[Instance, ...]:
        """Its instances; the one its `url` stands for; none for a backend in process."""
        if self.instances or not self.url:
            return self.instances
        return (Instance(url=self.url, slots=self.slots),)

    @property
    def capacity(self) -> int:
        """Requests all its instances work on at once."""
        return sum(one.slots for one in self.servers) or self.slots

    def max_waiting_for(self, priority: Priority) -> int:
        return self.max_waiting if priority is Priority.INTERACTIVE else self.max_waiting_batch


def _known(card: Any) -> Any:
    """Without what another version says of a model: it is no mistake, as it would be in a configuration."""
    if not isinstance(card, dict):
        return card
    return {name: value for name, value in card.items() if name in ModelCard.model_fields}


class Announcement(BaseModel):
    """What a worker says of itself at every heartbeat: the only thing routing knows of a backend."""

    model_config = ConfigDict(frozen=True)

    node: str
    """The Celery node name, `k9-<backend>@<host>`."""
    backend: Name
    kind: Kind
    dialect: str
    models: tuple[str, ...]
    cards: dict[str, Annotated[ModelCard, BeforeValidator(_known)]] = Field(default_factory=dict)
    """A card for each model."""
    latencies: dict[str, Latency] = Field(default_factory=dict)
    """The present estimate for each model that was called lately."""
    gpu_usd_per_hour: float | None = None
    """Of all its instances."""
    operations: tuple[Operation, ...]
    order: int = 0
    """Tells the position in the configuration, the smallest first; ties are broken by name."""
    slots: int
    """Of all its instances."""
    instances: tuple[InstanceHealth, ...] = ()
    """How its instances are, as this worker sees them; empty for a backend in process."""
    paced_seconds: float = 0.0
    """Seconds until the backend's rate limit lets another call begin."""
    max_waiting: int
    max_waiting_batch: int
    overflow_at: int | None = None
    overflow_wait: float | None = None
    service_seconds: float = 1.0
    """Decaying mean of how long a job takes once it runs."""
    service_spread: float = 0.0
    """Standard deviation of it, seconds."""
    loop_lag_seconds: float = 0.0
    """How late the worker's event loop ran its last tick: more than 0.1 means something blocks it."""
