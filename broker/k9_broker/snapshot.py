"""The fleet at one moment: what every decision reads, so that it can be made again and explained."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from k9_broker.errors import MAX_RETRY_AFTER
from k9_broker.health import InstanceHealth
from k9_broker.models import Latency, ModelCard
from k9_broker.requests import InferenceRequest, Kind, Operation, Priority
from k9_broker.saturation import Gauge, Wait, past, wait_behind

NO_WORKER = "no-worker"
_NOTHING_KNOWN = ModelCard()


@dataclass(frozen=True, slots=True)
class BackendView:
    """One backend as routing sees it. Depths are counts of jobs; `service_seconds` is a mean per job."""

    name: str
    kind: Kind
    dialect: str
    models: frozenset[str]
    operations: frozenset[Operation]
    order: int
    slots: int
    """Over all its live workers."""
    max_waiting: Mapping[Priority, int]
    workers: int
    """Live workers; 0 means it was here and is gone."""
    waiting: Mapping[Priority, int] = field(default_factory=dict)
    parked: Mapping[Priority, int] = field(default_factory=dict)
    """Those of them whose tenants have as many jobs in flight as they may: nobody waits for them."""
    in_flight: int = 0
    service_seconds: float = 1.0
    service_spread: float = 0.0
    """Standard deviation of the time a job takes."""
    overflow_at: int | None = None
    """Waiting interactive jobs from which others rather go elsewhere."""
    overflow_wait: float | None = None
    """Seconds of estimated wait from which interactive jobs rather go elsewhere."""
    saturated: bool = False
    """One of these marks was passed when admission looked last."""
    oldest_age: float = 0.0
    """Seconds the longest waiting job has waited."""
    cards: Mapping[str, ModelCard] = field(default_factory=dict)
    """What is known of its models."""
    latencies: Mapping[str, Latency] = field(default_factory=dict)
    """How fast they answer now."""
    slot_usd_per_hour: float = 0.0
    """What holding one of its slots costs."""
    down: str = ""
    """Why no instance of it is to be called now, such as `circuit-open`; empty when one is."""
    down_seconds: float = 0.0
    """Seconds until an instance of one that is down is tried again."""
    paced_seconds: float = 0.0
    """Seconds until its rate limit lets another call begin."""
    instances: tuple[tuple[str, InstanceHealth], ...] = ()
    """Each instance as each live worker, named first, sees it."""

    @property
    def unfit(self) -> str:
        """Why it is not to be called now; empty when a worker of it is alive and has an instance to call."""
        return self.down if self.workers else NO_WORKER

    @property
    def fit(self) -> bool:
        return not self.unfit

    @property
    def past_mark(self) -> bool:
        """Whether interactive jobs rather go elsewhere now: also once nobody has come for a while."""
        waiting, wait = self.waiting.get(Priority.INTERACTIVE, 0), self.estimated_wait(Priority.INTERACTIVE)
        before = self.saturated
        return past(self.overflow_at, waiting, before=before) or past(self.overflow_wait, wait, before=before)

    def card(self, model: str) -> ModelCard:
        """What is known of a model here; an empty card when nothing is."""
        return self.cards.get(model, _NOTHING_KNOWN)

    def can(self, model: str, operation: Operation) -> bool:
        """Whether the backend offers the operation, and the model's card does not say otherwise."""
        said = self.card(model).operations
        return operation in self.operations and (not said or operation in said)

    def estimated_wait(self, priority: Priority) -> float:
        """Seconds until a new job of this priority would start, if the present rate holds."""
        found = wait_behind(self.ahead(priority), self.in_flight, self.slots, self.service_seconds)
        return max(found.p50, self.least_wait)

    def mark(self, request: InferenceRequest) -> int:
        """Jobs its queue takes from such a caller: of those willing to wait as many as of a batch."""
        mark = self.max_waiting[request.priority]
        return max(mark, self.max_waiting[Priority.BATCH]) if request.patient else mark

    def ahead(self, priority: Priority) -> int:
        """Jobs that would begin before a new one of this priority, if it went to the end of its queue."""
        before = Priority if priority is Priority.BATCH else (Priority.INTERACTIVE,)
        return sum(self.waiting.get(one, 0) - self.parked.get(one, 0) for one in before)

    def gauge(self, priority: Priority) -> Gauge:
        """Its queue as the next job would find it, if all that wait are of one tenant."""
        waiting = self.waiting.get(priority, 0)
        saturated = self.saturated and priority is Priority.INTERACTIVE
        return Gauge(waiting, self.ahead(priority), waiting, self.in_flight, saturated)

    @property
    def least_wait(self) -> float:
        """Seconds nobody begins before, however short the queue."""
        return max(self.paced_seconds, self.down_seconds)

    def wait_behind(self, ahead: int) -> Wait:
        """The wait of a job with so many ahead of it here."""
        found = wait_behind(ahead, self.in_flight, self.slots, self.service_seconds, self.service_spread)
        return Wait(*(max(seconds, self.least_wait) for seconds in found))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All backends, in configuration order."""

    backends: tuple[BackendView, ...] = ()
    embedding_model: str | None = None
    """What `auto` has embedded with so far."""

    def admitted(self, backend: str, priority: Priority) -> Snapshot:
        """The same fleet with one more job waiting at `backend`."""
        return replace(
            self,
            backends=tuple(
                replace(view, waiting={**view.waiting, priority: view.waiting.get(priority, 0) + 1})
                if view.name == backend
                else view
                for view in self.backends
            ),
        )

    def models(self) -> dict[str, tuple[BackendView, ...]]:
        """Each model with the live backends that serve it, in order."""
        served: dict[str, list[BackendView]] = {}
        for backend in self.backends:
            if backend.workers:
                for model in sorted(backend.models):
                    served.setdefault(model, []).append(backend)
        return {model: tuple(places) for model, places in served.items()}


def retry_after(wait: float) -> float:
    """Seconds to tell a refused caller: the estimated wait, at least 1 and at most 60, whole."""
    return float(max(1, min(int(MAX_RETRY_AFTER), math.ceil(wait))))
