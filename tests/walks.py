"""Steps of a job's walk, for tests that are about something else."""

from __future__ import annotations

from k9_broker.adapters.redis_ledger import RedisLedger
from k9_broker.backends import Kind
from k9_broker.jobs import Claim, Job, new_job_id
from k9_broker.naming import queue_name
from k9_broker.requests import InferenceRequest, Operation, Priority
from k9_broker.results import Outcome, Result
from k9_broker.strategy.decision import Candidate, Decision


def chat(**body: object) -> InferenceRequest:
    messages = [{"role": "user", "content": "hello"}]
    return InferenceRequest(Operation.CHAT, "m", {"model": "m", "messages": messages, **body})


async def admit(ledger: RedisLedger, request: InferenceRequest | None = None, backend: str = "a") -> Job:
    queue = queue_name(Kind.LOCAL, backend, Priority.INTERACTIVE)
    candidate = Candidate(backend, Kind.LOCAL, queue, 100, "order:first")
    return await ledger.admit(new_job_id(), request or chat(), Decision((candidate,), ()))


async def claim(ledger: RedisLedger, job: Job) -> Claim:
    claimed = await ledger.claim(job.id, job.generation, "w")
    assert claimed is not None
    return claimed


async def succeed(ledger: RedisLedger, claimed: Claim) -> None:
    assert await ledger.finish(claimed, Outcome.succeeded(Result("m")))
