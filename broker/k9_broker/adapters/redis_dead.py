"""The dead letters on Redis: an index by the instant they ended, over the records the ledger keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from k9_broker.adapters import keys
from k9_broker.adapters.celery_message import message
from k9_broker.adapters.connect import Commands
from k9_broker.adapters.records import error_from, new_record, subject_of_job, words
from k9_broker.adapters.redis_ledger import RedisLedger
from k9_broker.dead_letters import DeadLetter, NoDeadLetter, Page, is_one
from k9_broker.errors import BudgetExhausted, JobNotFound, K9Error, PrivacyRefused, QueueFull
from k9_broker.jobs import Job
from k9_broker.requests import InferenceRequest
from k9_broker.settings import JobSettings
from k9_broker.snapshot import retry_after
from k9_broker.strategy.decision import Decision
from k9_broker.strategy.refusal import TOO_LATE

_PAGE = 200
"""Entries of the index that one script looks at."""
_SHOWN = ("generation", "ended_at", "model", "backend", "tenant", "attempts", "error")
_SENT = {"operation", "asked", "tenant", "priority", "stream", "request", "tokens_estimate", "waiters"}
"""Fields of a new record that a replay leaves as they were: what its caller sent, and who waits."""


class RedisDeadLetters:
    """Implements `k9_broker.dead_letters.DeadLetters`."""

    def __init__(self, commands: Commands, settings: JobSettings) -> None:
        self._commands = commands
        self._settings = settings
        self._ledger = RedisLedger(commands, settings)

    async def page(self, further: str = "", *, since: float | None = None) -> Page:
        reply = await self._commands.script(
            "dead", [keys.DEAD], [further or "+inf", "-inf" if since is None else since, _PAGE, *_SHOWN]
        )
        letters = [_letter(reply[i], reply[i + 1]) for i in range(1, len(reply), 2)]
        return Page(letters, reply[0].decode())

    async def show(self, job_id: str) -> tuple[Job, Mapping[str, Any]]:
        job, explained = await self._ledger.explanation(job_id)
        if not is_one(job):
            raise NoDeadLetter
        return job, explained

    async def request(self, job_id: str) -> InferenceRequest:
        if (sent := await self._commands.command("HGET", keys.job(job_id), "request")) is None:
            raise JobNotFound
        return InferenceRequest.load(sent)

    async def replay(self, job: Job, request: InferenceRequest, decision: Decision) -> Job:
        template = message(job.id, job.generation + 1, subject_of_job(job))
        candidates = [word for one in decision.candidates for word in words(one)]
        removals = "".join(f"{removal.backend}: {removal.reason}\n" for removal in decision.removals)
        record = _decided(new_record(subject_of_job(job), job.asked, b"", decision, None))
        embedder = [keys.EMBEDDING_MODEL] if decision.embedding_model else []
        reply = await self._commands.script(
            "replay",
            [keys.job(job.id), keys.DEADLINES, keys.relay(job.id), keys.DEAD, *embedder],
            [
                *(job.id, job.generation, request.allowed_seconds, self._settings.retention_seconds),
                *(removals, template.start, template.head, template.middle, template.tail),
                *(decision.privacy.value, job.tenant, "" if decision.budget is None else decision.budget),
                *(job.priority.value, int(request.patient), int(decision.shared)),
                *(len(decision.candidates), len(record), *candidates, *record),
            ],
        )
        match reply[0]:
            case b"gone":
                raise JobNotFound
            case b"superseded":
                raise NoDeadLetter
            case b"full":
                raise QueueFull(retry_after=retry_after(float(reply[1])))
            case b"deadline":
                raise QueueFull(TOO_LATE, retry_after=retry_after(float(reply[1])))
            case b"budget":
                raise BudgetExhausted
            case b"private":
                raise PrivacyRefused
        return await self._ledger.get(job.id)

    async def drop(self, job_id: str) -> None:
        job, _ = await self.show(job_id)
        found = await self._commands.script(
            "drop", [keys.job(job_id), keys.relay(job_id), keys.DEAD], [job_id, job.generation]
        )
        if found == b"gone":
            raise JobNotFound
        if found == b"superseded":
            raise NoDeadLetter


def _letter(job_id: bytes, values: list[bytes | None]) -> DeadLetter:
    said = {name: value or b"" for name, value in zip(_SHOWN, values, strict=True)}
    return DeadLetter(
        id=job_id.decode(),
        generation=int(said["generation"]),
        ended_at=float(said["ended_at"]),
        model=said["model"].decode(),
        backend=said["backend"].decode(),
        tenant=said["tenant"].decode(),
        attempts=int(said["attempts"] or 0),
        error=error_from(said["error"]) or K9Error(),
    )


def _decided(record: list[Any]) -> list[Any]:
    """Of a new record the fields and values that the decision made."""
    pairs = zip(record[::2], record[1::2], strict=True)
    return [word for name, value in pairs if name not in _SENT for word in (name, value)]
