"""A job: one inference with an id, and the states it can be in."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field
from enum import StrEnum

from k9_broker.errors import K9Error
from k9_broker.models import Prices
from k9_broker.requests import InferenceRequest, Kind, Operation, Priority, Privacy


class JobState(StrEnum):
    """queued → running → succeeded | failed; cancelled and expired end either; dead ends repeated loss.

    A running job goes back to queued, under the next generation, when its worker dies or hands it back.
    """

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    DEAD = "dead"

    @property
    def ended(self) -> bool:
        return self not in (JobState.QUEUED, JobState.RUNNING)


_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no letter looks like another


def new_job_id() -> str:
    """`job-` and 26 characters that sort by time of creation: 48 bits of milliseconds, 80 of chance."""
    number = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    return "job-" + "".join(_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))


@dataclass(frozen=True, slots=True)
class Job:
    """What the ledger knows of a job, without its prompt and without its answer. Times are Unix seconds."""

    id: str
    state: JobState
    generation: int
    operation: Operation
    model: str
    tenant: str
    priority: Priority
    backend: str
    kind: Kind
    reason: str
    """Why this backend: the decision's reason for the candidate that admission took."""
    stream: bool
    created_at: float
    deadline_at: float
    started_at: float | None = None
    ended_at: float | None = None
    worker: str | None = None
    attempts: int = 0
    """Claims so far whose worker did not hand the job back."""
    error: K9Error | None = None
    tokens_estimate: int = 0
    """A rough size of the request for operators, from its length; never used for accounting."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    skipped: tuple[str, ...] = ()
    """`backend: reason` of every backend that came before and was not taken."""
    asked: str = ""
    """The model as the caller named it; `model` is the one that was chosen."""
    task_type: str = ""
    strategy: str = ""
    privacy: Privacy = Privacy.ANY
    cost: int | None = None
    """Nano-dollars: reserved while the job has not ended, then what it cost. `None`: prices not known."""
    cloud: Prices | None = None
    """What the same would be charged without local backends."""
    cloud_cost: int | None = None
    """Nano-dollars the same would have cost in the cloud, once it has ended."""
    tried: tuple[str, ...] = ()
    """Backends that have failed it."""
    calls: int = 0
    """Upstream calls it had caused when it last changed its backend."""
    home: str = ""
    """The backend it was moved away from without having been called there, because that was down."""

    @property
    def queue_seconds(self) -> float | None:
        """Seconds from its creation until it last began to run; `None` while it waits."""
        return None if self.started_at is None else max(0.0, self.started_at - self.created_at)


@dataclass(frozen=True, slots=True)
class Claim:
    """A worker's right to run one generation of a job. `token` fences every later write."""

    job: Job
    token: str
    request: InferenceRequest = field(repr=False)
