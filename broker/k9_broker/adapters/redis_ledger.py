"""The ledger on Redis: the state machine of every job, one Lua script a step.

States change only in `scripts/*.lua`, by compare-and-set on state, generation and token, so two
workers, a reaper and a caller may act on one job at once and exactly one of them wins.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from k9_broker.adapters import keys
from k9_broker.adapters.celery_message import message
from k9_broker.adapters.connect import Commands
from k9_broker.adapters.records import (
    JOB_FIELDS,
    amount,
    error_text,
    fingerprint,
    job_from,
    new_record,
    pairs,
    record_bytes,
    subject_of,
    subject_of_job,
    unpacked,
    usage_rows,
    words,
)
from k9_broker.adapters.server_clock import ServerClock
from k9_broker.errors import (
    BudgetExhausted,
    IdempotencyConflict,
    JobCancelled,
    JobExpired,
    JobNotFound,
    K9Error,
    LedgerUnavailable,
    PrivacyRefused,
    QueueFull,
    WorkerLost,
)
from k9_broker.jobs import Claim, Job, JobState
from k9_broker.money import listed_cost
from k9_broker.requests import InferenceRequest, Kind
from k9_broker.results import Outcome, Result
from k9_broker.saturation import Gauge
from k9_broker.settings import JobSettings
from k9_broker.snapshot import retry_after
from k9_broker.strategy.decision import Candidate, Decision
from k9_broker.strategy.refusal import TOO_LATE
from k9_broker.usage import UsageRow
from k9_broker.verdict import is_dead_letter

ADMIT_WITHIN = 8.0
"""Seconds. An admission that a stalled Redis comes to later is refused: its caller has been told that
it failed (after two tries of 5 s), and has perhaps asked again."""


class RedisLedger:
    """Implements `k9_broker.ports.Ledger`."""

    def __init__(self, commands: Commands, settings: JobSettings) -> None:
        self._commands = commands
        self._settings = settings
        self._clock = ServerClock(commands)

    async def admit(
        self, job_id: str, request: InferenceRequest, decision: Decision, *, waiter: str | None = None
    ) -> Job:
        dumped = request.dump()
        subject = subject_of(request, len(dumped))
        template = message(job_id, 1, subject)
        record = new_record(subject, request.model, dumped, decision, waiter)
        candidates = [word for one in decision.candidates for word in words(one)]
        removals = "".join(f"{removal.backend}: {removal.reason}\n" for removal in decision.removals)
        embedder = [keys.EMBEDDING_MODEL] if decision.embedding_model else []
        reply = await self._commands.script(
            "admit",
            [keys.job(job_id), keys.DEADLINES, *embedder],
            [
                *(job_id, fingerprint(dumped), request.allowed_seconds, self._settings.retention_seconds),
                *(removals, template.start, template.head, template.middle, template.tail),
                *(await self._clock.now() + ADMIT_WITHIN, decision.privacy.value, request.tenant),
                "" if decision.budget is None else decision.budget,
                *(request.priority.value, int(request.patient), int(decision.shared)),
                *(len(decision.candidates), len(record)),
                *(*candidates, *record),
            ],
        )
        verdict = reply[0].decode()
        if verdict == "full":
            raise QueueFull(retry_after=retry_after(float(reply[1])))
        if verdict == "deadline":
            raise QueueFull(TOO_LATE, retry_after=retry_after(float(reply[1])))
        if verdict == "budget":
            raise BudgetExhausted
        if verdict == "private":
            raise PrivacyRefused
        if verdict == "late":
            raise LedgerUnavailable(retry_after=2)
        if verdict == "conflict":
            raise IdempotencyConflict
        if verdict == "duplicate":
            return await self.get(job_id)
        return job_from(job_id, {**pairs(record_bytes(record)), **pairs(reply[1:])})

    async def find(self, job_id: str, request: InferenceRequest) -> Job | None:
        try:
            job, (known,) = await self._read(job_id, "fingerprint")
        except JobNotFound:
            return None
        if known != fingerprint(request.dump()).encode():
            raise IdempotencyConflict
        return job

    async def claim(self, job_id: str, generation: int, worker: str, kind: Kind) -> Claim | None:
        token = secrets.token_hex(12)
        reply = await self._commands.script(
            "claim",
            [keys.job(job_id)],
            [
                *(job_id, generation, token, self._settings.lease_seconds, worker),
                *(self._settings.retention_seconds, error_text(JobExpired())),
                *(kind.value, error_text(PrivacyRefused())),
            ],
        )
        if reply[0] != b"claimed":
            return None
        record = pairs(reply[1:])
        job = job_from(job_id, record)
        return Claim(job, token, InferenceRequest.load(record["request"]).for_model(job.model))

    async def renew(self, claims: Iterable[Claim]) -> list[str]:
        by_backend: dict[str, list[Claim]] = {}
        for claim in claims:
            by_backend.setdefault(claim.job.backend, []).append(claim)
        lost: list[str] = []
        for backend, held in by_backend.items():
            reply = await self._commands.script(
                "renew",
                [keys.leases(backend), *(keys.job(claim.job.id) for claim in held)],
                [
                    self._settings.lease_seconds,
                    *(word for claim in held for word in (claim.job.id, claim.token)),
                ],
            )
            lost += [job_id.decode() for job_id in reply]
        return lost

    async def finish(self, claim: Claim, outcome: Outcome, cost: int | None) -> bool:
        usage, cloud = outcome.usage, claim.job.cloud
        record: list[Any] = ["prompt_tokens", usage.prompt, "completion_tokens", usage.completion]
        if cloud is not None and (usage.total or not outcome.answered):  # else nobody counted the tokens
            record += ["cloud_cost", amount(listed_cost(cloud, usage.prompt, usage.completion))]
        if outcome.result is not None:
            record += ["result", outcome.result.dump()]
        letter = outcome.error is not None and is_dead_letter(outcome.error)
        finished, *parked = await self._commands.script(
            "finish",
            [keys.job(claim.job.id)],
            [
                *(claim.job.id, claim.token, outcome.state.value, self._settings.retention_seconds),
                *(error_text(outcome.error), amount(cost), int(letter), *record),
            ],
        )
        await self._let_go(parked)
        return bool(finished)

    async def _let_go(self, parked: Sequence[bytes]) -> None:
        """Parked jobs may run now. One that is not let go here is found by the reaper."""
        for job_id in parked:
            with suppress(JobNotFound, LedgerUnavailable):
                await self._requeue(await self.get(job_id.decode()), "parked")

    async def hand_back(self, claim: Claim) -> bool:
        return await self._requeue(claim.job, "hand-back", claim.token) == "requeued"

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
        template = message(job.id, job.generation + 1, subject_of_job(job))
        stays = any(one.backend == job.backend for one in places)  # for another worker of it
        failed = job.backend if token and not (home or stays) else ""
        reply: bytes = await self._commands.script(
            "reroute",
            [keys.job(job.id)],
            [
                *(job.id, job.generation, token, f"{job.backend}: {leaves}", failed),
                *(calls, home, template.start, template.head, template.middle, template.tail),
                *("" if within is None else within, len(places)),
                *(word for one in places for word in words(one)),
            ],
        )
        went = reply.decode()
        return None if went == "superseded " else went

    async def requeue_orphan(self, job: Job) -> str:
        """For the reaper: a job whose lease ran out. Gives `requeued`, `dead` or `superseded`."""
        return await self._requeue(job, "orphan")

    async def requeue_lost(self, job: Job) -> str:
        """For the reaper: a queued job whose message is gone. Gives `requeued` or `superseded`."""
        return await self._requeue(job, "lost")

    async def _requeue(self, job: Job, why: str, token: str = "") -> str:
        template = message(job.id, job.generation + 1, subject_of_job(job))
        reply: bytes = await self._commands.script(
            "requeue",
            [keys.job(job.id)],
            [
                *(job.id, job.generation, why, token, self._settings.max_attempts),
                *(self._settings.retention_seconds, error_text(WorkerLost())),
                *(template.of_model(job.model), template.middle, template.tail),
            ],
        )
        return reply.decode()

    async def cancel(self, job_id: str) -> Job:
        await self._stop(job_id, JobState.CANCELLED, JobCancelled(), only_late=False)
        return await self.get(job_id)

    async def expire(self, job_id: str) -> None:
        """For the reaper: end a job whose deadline has passed."""
        await self._stop(job_id, JobState.EXPIRED, JobExpired(), only_late=True)

    async def _stop(self, job_id: str, state: JobState, error: K9Error, *, only_late: bool) -> None:
        _, *parked = await self._commands.script(
            "stop",
            [keys.job(job_id)],
            [job_id, state.value, self._settings.retention_seconds, error_text(error), int(only_late)],
        )
        await self._let_go(parked)

    async def get(self, job_id: str) -> Job:
        job, _ = await self._read(job_id)
        return job

    async def result(self, job_id: str) -> Result:
        job, result = await self.outcome(job_id)
        if result is None:
            raise job.error or K9Error("The job has no result yet.")
        return result

    async def outcome(self, job_id: str) -> tuple[Job, Result | None]:
        job, (result,) = await self._read(job_id, "result")
        return job, None if result is None else Result.load(result)

    async def _read(self, job_id: str, *more: str) -> tuple[Job, list[bytes | None]]:
        """The job, and `more` fields of its record, in one round trip. Raises `JobNotFound`."""
        values = await self._commands.command("HMGET", keys.job(job_id), *JOB_FIELDS, *more)
        if values[0] is None:
            raise JobNotFound
        fields = dict(zip(JOB_FIELDS, values, strict=False))
        return job_from(job_id, fields), values[len(JOB_FIELDS) :]

    async def explanation(self, job_id: str) -> tuple[Job, Mapping[str, Any]]:
        job, (decision,) = await self._read(job_id, "decision")
        return job, unpacked(decision)

    async def ahead(self, job_ids: Sequence[str]) -> Sequence[tuple[str, int] | None]:
        found = await self._commands.script("ahead", [keys.job(one) for one in job_ids], [*job_ids])
        return [(backend.decode(), ahead) if ahead >= 0 else None for backend, ahead in found]

    async def gauges(self, tenant: str, decision: Decision) -> Mapping[str, Gauge]:
        queues = [word for one in decision.candidates for word in (one.backend, one.queue)]
        found = await self._commands.script("gauge", [], [tenant, *queues])
        gauges = [Gauge(*row) for row in found]
        return {one.queue: gauge for one, gauge in zip(decision.candidates, gauges, strict=True)}

    async def spent(self, tenant: str) -> int:
        amount = await self._commands.command("GET", keys.spent(tenant, await self._today()))
        return int(amount or 0)

    async def usage(self, tenant: str, days: int) -> Sequence[UsageRow]:
        today = await self._today()
        past = range(today, today - days, -1)
        found = await asyncio.gather(
            *(self._commands.command("HGETALL", keys.usage(tenant, day)) for day in past)
        )
        return [row for day, counts in zip(past, found, strict=True) for row in usage_rows(day, counts)]

    async def _today(self) -> int:
        """Days since 1970 in UTC, by Redis' clock, as the scripts count them."""
        return int(await self._clock.now() // 86400)

    async def ping(self) -> None:
        await self._commands.command("PING")
