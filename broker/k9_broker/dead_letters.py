"""Dead letters: jobs that K-9 gave up on though their callers did nothing wrong, and how one runs again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

from k9_broker.errors import K9Error
from k9_broker.jobs import Job, JobState
from k9_broker.ports import Fleet
from k9_broker.requests import InferenceRequest, Privacy
from k9_broker.snapshot import Snapshot
from k9_broker.strategy.decision import Decision
from k9_broker.strategy.refusal import refusal
from k9_broker.submit import Decide
from k9_broker.verdict import is_dead_letter


class NoDeadLetter(K9Error):
    """This job is no dead letter, or is none any more. `k9 jobs show ID` tells what became of it."""

    code = "no_dead_letter"
    status = 409
    type = "invalid_request_error"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A dead letter as a list shows it."""

    id: str
    generation: int
    ended_at: float
    """Unix seconds."""
    model: str
    backend: str
    """Where it was last."""
    tenant: str
    attempts: int
    error: K9Error


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which dead letters are meant; what is `None` may be anything."""

    backend: str | None = None
    code: str | None = None
    """Of the error."""
    tenant: str | None = None
    since: float | None = None
    """Unix seconds: only those that ended then or later."""

    @property
    def narrows(self) -> bool:
        """Whether not all are meant."""
        return self != Wanted()

    def fits(self, letter: DeadLetter) -> bool:
        return (
            self.backend in (None, letter.backend)
            and self.code in (None, letter.error.code)
            and self.tenant in (None, letter.tenant)
            and (self.since is None or letter.ended_at >= self.since)
        )


class Page(NamedTuple):
    """Some dead letters, newest first, and where to go on; empty after the last."""

    letters: Sequence[DeadLetter]
    further: str


class DeadLetters(Protocol):
    """The dead letters of a ledger. All methods raise `LedgerUnavailable`.

    Those that name a job raise `JobNotFound` when there is no record of it any more, and
    `NoDeadLetter` when it is none.
    """

    async def page(self, further: str = "", *, since: float | None = None) -> Page:
        """The newest; or, after a page, those that it leaves."""
        ...

    async def show(self, job_id: str) -> tuple[Job, Mapping[str, Any]]:
        """The job, and the decision that queued it, as `explain` wrote it. Neither has its prompt."""
        ...

    async def request(self, job_id: str) -> InferenceRequest:
        """What its caller sent."""
        ...

    async def replay(self, job: Job, request: InferenceRequest, decision: Decision) -> Job:
        """Queue it under its next generation with the first candidate that has room; once, whoever asks.

        The job stays as private as it was, has its whole time again, and its expected cost is reserved
        on today's budget. Raises what `Ledger.admit` raises; then nothing has changed.
        """
        ...

    async def drop(self, job_id: str) -> None:
        """Forget it, with everything it holds."""
        ...


def is_one(job: Job) -> bool:
    """Whether K-9 gave up on the job, and its caller is not to blame."""
    failed = job.state is JobState.FAILED and job.error is not None and is_dead_letter(job.error)
    return failed or job.state is JobState.DEAD


async def search(letters: DeadLetters, wanted: Wanted, most: int | None = None) -> list[DeadLetter]:
    """Those that are wanted, newest first, `most` of them at most. Raises `LedgerUnavailable`."""
    found: list[DeadLetter] = []
    further = ""
    while most is None or len(found) < most:
        page, further = await letters.page(further, since=wanted.since)
        found += filter(wanted.fits, page)
        if not further:
            break
    return found[:most]


async def replay(job_id: str, *, letters: DeadLetters, fleet: Fleet, decide: Decide) -> Job:
    """Decide anew where a dead letter may go, by the present fleet and policy, and queue it there.

    Raises `JobNotFound`, `NoDeadLetter`, what `decide` and `refusal` say when nobody may take it,
    `BudgetExhausted`, `QueueFull` or `LedgerUnavailable`; then it is a dead letter as before.
    """
    job, explained = await letters.show(job_id)
    request = await letters.request(job_id)
    snapshot = await fleet.snapshot()
    decision = await _decided(job, request, explained, snapshot, decide)
    if not decision.candidates:
        raise refusal(request, decision)
    queued = await letters.replay(job, request, decision)
    fleet.admitted(queued.backend, queued.priority)
    return queued


async def _decided(
    job: Job, request: InferenceRequest, explained: Mapping[str, Any], snapshot: Snapshot, decide: Decide
) -> Decision:
    """The present decision; what was to stay here stays here, even if nothing would ask for that now."""
    decision = await decide(request, snapshot)
    if job.privacy is Privacy.ANY or decision.privacy is Privacy.LOCAL_ONLY:
        return decision
    stays = await decide(replace(request, privacy=Privacy.LOCAL_ONLY), snapshot)
    return replace(stays, privacy_by=tuple(explained.get("privacy_by") or stays.privacy_by))
