"""A job as its owner sees it over HTTP."""

from __future__ import annotations

from typing import Any

from pydantic_core import to_json

from k9_api.dialects.openai import egress
from k9_api.dialects.openai.shapes import ENDPOINTS
from k9_api.errors import error_object
from k9_broker.errors import K9Error, from_record
from k9_broker.jobs import Job
from k9_broker.money import dollars
from k9_broker.results import Result


def job_object(job: Job) -> dict[str, Any]:
    """Everything the ledger tells of a job, in plain values. Times are Unix seconds."""
    return {
        "id": job.id,
        "object": "job",
        "state": job.state,
        "endpoint": ENDPOINTS[job.operation],
        "model": job.model,
        "asked_model": job.asked,
        "task_type": job.task_type,
        "strategy": job.strategy,
        "privacy": job.privacy,
        "priority": job.priority,
        "backend": job.backend,
        "kind": job.kind,
        "reason": job.reason,
        "skipped": job.skipped,
        "generation": job.generation,
        "attempts": job.attempts,
        "worker": job.worker,
        "stream": job.stream,
        "created_at": job.created_at,
        "started_at": job.started_at,
        "ended_at": job.ended_at,
        "deadline_at": job.deadline_at,
        "queue_seconds": job.queue_seconds,
        "usage": {
            "prompt_tokens": job.prompt_tokens,
            "completion_tokens": job.completion_tokens,
            "total_tokens": job.prompt_tokens + job.completion_tokens,
        },
        "cost_usd": usd(job.cost),
        "cloud_cost_usd": usd(job.cloud_cost),
        "error": error_object(job.error) if job.error else None,
    }


def usd(nanos: int | None) -> float | None:
    """US dollars; `None` stays: not known."""
    return None if nanos is None else dollars(nanos)


def succeeded(job: Job, result: Result, encoding_format: egress.EncodingFormat) -> bytes:
    """The job object with its `result`, the OpenAI-shaped answer, and `errors` by the index of the input."""
    head = job_object(job)
    if result.errors:
        head["errors"] = {index: error_object(_error(record)) for index, record in result.errors.items()}
    # The answer is JSON already, and may be large: it is put in as it is.
    return to_json(head)[:-1] + b',"result":' + egress.answer(job, result, encoding_format) + b"}"


def _error(record: Any) -> K9Error:
    return from_record(record)
