"""Every metric of the API, by name. Base units; labels are few and never text that a caller wrote."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from k9_broker.jobs import JobState
from k9_broker.requests import Operation
from k9_broker.snapshot import Snapshot

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)

SUBMITTED = Counter("k9_submitted", "Jobs that were admitted.", ["operation", "backend", "priority"])
DECISIONS = Counter(
    "k9_decisions", "Jobs that were admitted, by what decided.", ["strategy", "task_type", "kind"]
)
REFUSED = Counter("k9_refused", "Requests answered with an error, by its code.", ["code"])
REQUEST_SECONDS = Histogram(
    "k9_request_seconds",
    "From reading a request to the end of its answer.",
    ["operation"],
    buckets=_SECONDS,
)
FIRST_TOKEN_SECONDS = Histogram(
    "k9_first_token_seconds",
    "From reading a streamed request to the first chunk of its answer, the wait in the queue included.",
    ["operation"],
    buckets=_SECONDS,
)
ABANDONED = Counter("k9_abandoned", "Jobs cancelled because their caller hung up.", ["operation"])
QUEUE_DEPTH = Gauge("k9_queue_depth", "Jobs waiting.", ["backend", "priority"])
QUEUE_OLDEST_SECONDS = Gauge(
    "k9_queue_oldest_seconds", "How long the longest waiting job has waited.", ["backend"]
)
ESTIMATED_WAIT_SECONDS = Gauge(
    "k9_estimated_wait_seconds", "Until a new job would begin.", ["backend", "priority"]
)
IN_FLIGHT = Gauge("k9_in_flight", "Jobs claimed and not ended.", ["backend"])
SLOTS = Gauge("k9_slots", "Jobs that the live workers of a backend can run at once.", ["backend"])
WORKERS = Gauge("k9_workers", "Live workers.", ["backend"])
UP = Gauge(
    "k9_backend_up", "1 when a live worker of the backend has an instance to call, else 0.", ["backend"]
)
INSTANCES = Gauge(
    "k9_instances", "Instances as workers see them, by the state of their circuit.", ["backend", "state"]
)
PACED_SECONDS = Gauge("k9_paced_seconds", "Until the rate limit lets another call begin.", ["backend"])
_OF_QUEUES = (QUEUE_DEPTH, QUEUE_OLDEST_SECONDS, ESTIMATED_WAIT_SECONDS)
_OF_FLEET = (*_OF_QUEUES, IN_FLIGHT, SLOTS, WORKERS, UP, INSTANCES, PACED_SECONDS)


class _Jobs(Collector):
    """`k9_jobs_total`, `k9_rerouted_total` and `k9_dead_letters`: the ledger's own counts, the same from
    every API process."""

    def __init__(self) -> None:
        self.ended: Mapping[tuple[str, Operation, JobState], int] = {}
        self.rerouted: Mapping[tuple[str, str, str], int] = {}
        self.dead_letters: int | None = None

    def collect(self) -> Iterator[Metric]:
        labels = ["backend", "operation", "state"]
        family = CounterMetricFamily("k9_jobs", "Jobs that have ended, over all processes.", labels=labels)
        for (backend, operation, state), count in self.ended.items():
            family.add_metric([backend, operation, state], count)
        yield family
        labels = ["left", "went_to", "reason"]
        family = CounterMetricFamily("k9_rerouted", "Jobs that have changed their backend.", labels=labels)
        for names, count in self.rerouted.items():
            family.add_metric(list(names), count)
        yield family
        if self.dead_letters is not None:
            yield GaugeMetricFamily(
                "k9_dead_letters", "Jobs to be replayed or dropped by an operator.", self.dead_letters
            )


_JOBS = _Jobs()
REGISTRY.register(_JOBS)


def forget() -> None:
    """Drop what the ledger tells: unknown is not zero."""
    _JOBS.ended, _JOBS.rerouted, _JOBS.dead_letters = {}, {}, None
    for gauge in _OF_FLEET:
        gauge.clear()


def observe(
    snapshot: Snapshot,
    ended: Mapping[tuple[str, Operation, JobState], int],
    rerouted: Mapping[tuple[str, str, str], int],
    dead_letters: int | None = None,
) -> None:
    """Show the fleet as `snapshot` says, forgetting backends that are not in it, and the jobs counted."""
    forget()
    _JOBS.ended, _JOBS.rerouted, _JOBS.dead_letters = ended, rerouted, dead_letters
    for backend in snapshot.backends:
        for priority, waiting in backend.waiting.items():
            QUEUE_DEPTH.labels(backend.name, priority).set(waiting)
            wait = backend.estimated_wait(priority)
            ESTIMATED_WAIT_SECONDS.labels(backend.name, priority).set(wait)
        QUEUE_OLDEST_SECONDS.labels(backend.name).set(backend.oldest_age)
        IN_FLIGHT.labels(backend.name).set(backend.in_flight)
        SLOTS.labels(backend.name).set(backend.slots)
        WORKERS.labels(backend.name).set(backend.workers)
        UP.labels(backend.name).set(backend.fit)
        PACED_SECONDS.labels(backend.name).set(backend.paced_seconds)
        for _, instance in backend.instances:
            INSTANCES.labels(backend.name, instance.state).inc()
