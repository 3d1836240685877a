"""What the walk asks of the outside world. Adapters implement these; tests run one suite on each."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from k9_broker.backends import Announcement
from k9_broker.health import InstanceHealth
from k9_broker.jobs import Claim, Job, JobState
from k9_broker.models import ModelCard
from k9_broker.requests import InferenceRequest, Kind, Operation, Priority
from k9_broker.results import Chunk, Outcome, Result
from k9_broker.saturation import Gauge
from k9_broker.snapshot import Snapshot
from k9_broker.strategy.decision import Candidate, Decision
from k9_broker.usage import UsageRow


@dataclass(frozen=True, slots=True)
class Event:
    """One entry of a job's relay.

    `kind` is `running` (data: generation), `chunk` (data: an OpenAI-shaped chunk), `restart`
    (the worker died or handed the job back after it had begun to answer; data: the new
    generation) or `end` (data: `state`, and `error` if it failed). `id` resumes after it.
    """

    id: str
    kind: str
    data: Mapping[str, Any]


class Ledger(Protocol):
    """The truth about every job. Each method is one atomic step and may be repeated without harm.

    All raise `LedgerUnavailable` when the store cannot be reached.
    """

    async def admit(
        self, job_id: str, request: InferenceRequest, decision: Decision, *, waiter: str | None = None
    ) -> Job:
        """Take the first candidate with room: record, index and Celery message in one step.

        Its expected cost is reserved in the same step. Repeated with the same id and request it
        returns the job already there. Raises `QueueFull` when no candidate has room,
        `BudgetExhausted` when those that have would pass the tenant's budget, `PrivacyRefused` when
        the request may stay here only and no candidate is local, and
        `IdempotencyConflict` when the id holds another request.
        """
        ...

    async def find(self, job_id: str, request: InferenceRequest) -> Job | None:
        """The job this request was admitted as under this id, if it was.

        Raises `IdempotencyConflict` when the id holds another request.
        """
        ...

    async def claim(self, job_id: str, generation: int, worker: str, kind: Kind) -> Claim | None:
        """The right to run this generation, or `None` when it is superseded, ended or expired.

        A worker of another kind than a local-only job allows never gets it: the job fails.
        """
        ...

    async def renew(self, claims: Iterable[Claim]) -> list[str]:
        """Extend the leases; returns the ids of the jobs that are no longer the claimant's."""
        ...

    async def finish(self, claim: Claim, outcome: Outcome, cost: int | None) -> bool:
        """Record the outcome and settle its cost in nano-dollars (`None`: not known, so the estimate stays).

        `False` when the claim is superseded and nothing was recorded.
        """
        ...

    async def hand_back(self, claim: Claim) -> bool:
        """Return a running job to the front of its queue, under the next generation."""
        ...

    async def reroute(
        self,
        job: Job,
        places: Sequence[Candidate],
        *,
        leaves: str,
        calls: int,
        token: str = "",
        home: str = "",
        within: float | None = None,
    ) -> str | None:
        """Move a job to the first of `places` that has room, under its next generation.

        `leaves` is why it leaves its backend; `calls` how many upstream calls it has caused so far.
        With the `token` of its claim a running job moves, without it one that waits; `home` is the
        backend that shall have it back. A running job without one was failed by its backend. Only places
        that are expected to be done `within` so many seconds count, if it is given. Gives the
        backend it went to, the empty string when none has room (nothing has changed then), or `None`
        when the job is superseded.
        """
        ...

    async def cancel(self, job_id: str) -> Job:
        """End the job unless it has ended already. Raises `JobNotFound`."""
        ...

    async def get(self, job_id: str) -> Job:
        """Raises `JobNotFound`."""
        ...

    async def result(self, job_id: str) -> Result:
        """The result of a succeeded job; raises the error of one that ended otherwise."""
        ...

    async def outcome(self, job_id: str) -> tuple[Job, Result | None]:
        """The job and, if it has succeeded, its result, read together. Raises `JobNotFound`."""
        ...

    async def explanation(self, job_id: str) -> tuple[Job, Mapping[str, Any]]:
        """The job and the decision that queued it, as `explain` wrote it. Raises `JobNotFound`."""
        ...

    async def gauges(self, tenant: str, decision: Decision) -> Mapping[str, Gauge]:
        """The queue of each candidate, by its name, as a job of the tenant would find it now."""
        ...

    async def ahead(self, job_ids: Sequence[str]) -> Sequence[tuple[str, int] | None]:
        """Where each of these jobs waits, and how many jobs of that backend begin before it, as it stands.

        `None` for one that does not wait. All are looked at in one step: many cost little more than one.
        """
        ...

    async def spent(self, tenant: str) -> int:
        """Nano-dollars the tenant has spent and reserved today (UTC)."""
        ...

    async def usage(self, tenant: str, days: int) -> Sequence[UsageRow]:
        """What the tenant's jobs used on each of the last `days` days (UTC), today included, newest first."""
        ...

    async def ping(self) -> None:
        """Raises `LedgerUnavailable` when the store does not answer."""
        ...


class RelayWriter(Protocol):
    """The worker's end of the relay."""

    def send(self, claim: Claim, chunk: Chunk) -> None:
        """Queue a chunk; the first of a job leaves at once, later ones every few milliseconds."""
        ...

    async def drain(self, claim: Claim) -> None:
        """Return when every chunk of the job has been written."""
        ...


class RelayReader(Protocol):
    """The API's end of the relay: one subscription for the whole process."""

    @property
    def waiter(self) -> str:
        """This process's name, given to `Ledger.admit` so that workers know whom to wake."""
        ...

    def follow(self, job_id: str) -> AbstractAsyncContextManager[Follower]:
        """Register interest; enter it before admitting the job, so that no wake-up is missed."""
        ...

    async def attend(self, job_id: str) -> None:
        """Be woken for a job that was admitted for another waiter, or for none. Raises `JobNotFound`."""
        ...


class Follower(Protocol):
    """One caller's view of one job's relay."""

    async def ended(self) -> None:
        """Return once the job has ended. Raises `JobNotFound` when the store knows it no more."""
        ...

    def events(self, after: str = "0") -> AsyncIterator[Event]:
        """Events after the id `after`, live, ending after the `end` event."""
        ...


class Fleet(Protocol):
    """Who serves what, and how busy they are."""

    async def announce(self, announcement: Announcement) -> None:
        """A worker's heartbeat; forgotten when not repeated within its time to live."""
        ...

    async def withdraw(self, node: str) -> None:
        """The worker leaves on purpose."""
        ...

    async def ended(self) -> Mapping[tuple[str, Operation, JobState], int]:
        """How many jobs have ended, over all processes, by backend, operation and state."""
        ...

    async def rerouted(self) -> Mapping[tuple[str, str, str], int]:
        """How many jobs have changed their backend, by the one they left, the one they went to, and why."""
        ...

    async def dead_letters(self) -> int:
        """How many jobs are listed as dead letters."""
        ...

    async def snapshot(self, *, fresh: bool = False) -> Snapshot:
        """The fleet, at most some tens of milliseconds old; `fresh`: as the store has it now."""
        ...

    def admitted(self, backend: str, priority: Priority) -> None:
        """Count a job of one's own that the present snapshot does not show yet."""
        ...


class Caller(Protocol):
    """One backend, ready to be called: a dialect joined to a transport, or a model in process.

    All raise the tree under `BackendError` or `BadRequest`; cancelling a call closes its
    connection. Nothing here retries, except once on a fresh connection when a reused one died
    before any byte of an answer.
    """

    async def models(self) -> Mapping[str, ModelCard]:
        """The models the backend has now, each with what the backend itself says of it."""
        ...

    def health(self) -> Sequence[InstanceHealth]:
        """How each instance is now; none for a model in process."""
        ...

    def spare(self, model: str) -> bool:
        """Whether a call that failed just now may succeed at another instance."""
        ...

    async def watch(self) -> None:
        """Look after the health of the instances until cancelled."""
        ...

    def reset(self) -> None:
        """Close every circuit: the operator says that what was wrong is mended."""
        ...

    async def call(self, request: InferenceRequest) -> Result:
        """The whole answer."""
        ...

    def stream(self, request: InferenceRequest) -> AsyncGenerator[Chunk, None]:
        """The answer in OpenAI-shaped chunks. The last one carries `usage` and empty `choices`.

        Read it inside `contextlib.aclosing`: closing it closes the connection.
        """
        ...

    async def close(self) -> None:
        """Release connections and memory."""
        ...
