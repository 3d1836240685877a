"""A decision is a value: who may take the job, in which order, and why every other may not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from k9_broker.models import Prices
from k9_broker.recognise import Recognition
from k9_broker.requests import Kind, Privacy, TaskType

LOCAL_QUEUES = "k9.local."
"""How the names of queues begin whose jobs stay on the operator's machines."""


class Candidate(NamedTuple):
    """A place, that is, a model at a backend, that may take the job."""

    backend: str
    kind: Kind
    queue: str
    """The Celery queue for the job's priority."""
    max_waiting: int
    """The mark of that queue: it grows no further."""
    reason: str
    """Why it is on the list at this place, such as `task-type:local small`."""
    model: str
    score: float = 0.0
    """What the list is ordered by: the weighted sum of `scores`, over the sum of the weights."""
    scores: Mapping[str, float] = MappingProxyType({})
    """From 0 to 1, by scorer."""
    cost: int | None = 0
    """Expected nano-dollars; `None` when the model's prices are not known."""
    wait: float = 0.0
    """Expected seconds in the queue."""
    seconds: float = 0.0
    """Expected seconds from submission to the end of the answer."""
    slots: int = 1
    """How many jobs its backend works on at once."""
    service_seconds: float = 1.0
    """How long a job of its backend takes on average."""
    least_wait: float = 0.0
    """Seconds nobody begins before: for a rate limit, or until it is tried again."""
    overflow_at: int | None = None
    """Waiting jobs from which an interactive one rather goes elsewhere."""
    overflow_wait: float | None = None
    """Seconds of estimated wait from which it does."""

    @property
    def busy(self) -> float:
        """Seconds it is expected to hold a slot."""
        return max(0.0, self.seconds - self.wait)


@dataclass(frozen=True, slots=True)
class Removal:
    """A backend, or one model of it, that may not take the job, and why."""

    backend: str
    reason: str
    model: str = ""
    """Empty: all of the backend."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Candidates in order of preference, the rest with reasons, and what led to it."""

    candidates: tuple[Candidate, ...]
    removals: tuple[Removal, ...]
    strategy: str = "task-type"
    strategy_by: str = "default"
    """Who chose the strategy: `caller`, `rule:NAME`, `tenant` or `default`."""
    recognition: Recognition = field(default_factory=lambda: Recognition(TaskType.CHAT, 1.0, "caller", 0.0))
    prompt_tokens: int = 0
    """Estimated."""
    output_tokens: int = 0
    """Expected."""
    privacy: Privacy = Privacy.ANY
    privacy_by: tuple[str, ...] = ()
    """Who wants it local: `caller`, `tenant`, `default`, `rule:NAME`, `found:CATEGORY`."""
    budget: int | None = None
    """Nano-dollars the tenant may spend a day; `None` means no limit."""
    weight: float = 1.0
    """The tenant's share of a queue's turns, beside the others' weights."""
    shared: bool = False
    """Several tenants use the queues, so none may fill one."""
    max_in_flight: int | None = None
    """Jobs of the tenant that may run at once; `None` means no limit."""
    cloud: Prices | None = None
    """The cloud model the job would have gone to without local backends: what a saving is measured by."""
    standby: tuple[Candidate, ...] = ()
    """Places that would have been candidates if they were not down, in order: for when they recover."""
    embedding_model: str | None = None
    """What `auto` embeds with, from this job on; `None` for whatever is no embedding under `auto`."""
