"""A decision as its caller sees it over HTTP: before it is carried out, and afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from k9_api.dialects.openai.shapes import ENDPOINTS
from k9_api.errors import error_object
from k9_api.jobview import usd
from k9_broker.errors import K9Error
from k9_broker.jobs import Job
from k9_broker.requests import InferenceRequest, Operation, Priority
from k9_broker.strategy.admission import Admission
from k9_broker.strategy.decision import Decision
from k9_broker.strategy.explanation import explain
from k9_broker.strategy.refusal import refusal, turned_away


def planned(asked: InferenceRequest, decision: Decision, admission: Admission) -> dict[str, Any]:
    """What would become of a request: the decision, whom admission would take, or how it would refuse."""
    explained = explain(decision)
    chosen = None
    if admission.candidate is not None:
        place = decision.candidates.index(admission.candidate)
        chosen = {**explained["candidates"][place], "reason": admission.reason}
    return {
        **_head(asked.operation, asked.model, asked.priority),
        **explained,
        "choice": chosen,
        "passed": [_passed(one.backend, one.model, reason) for one, reason in admission.passed],
        "refusal": None if chosen else error_object(_error(asked, decision, admission)),
    }


def taken(job: Job, explained: Mapping[str, Any]) -> dict[str, Any]:
    """The decision that queued a job, as `explain` wrote it then, and what has become of the job since."""
    candidates: Sequence[Mapping[str, Any]] = explained.get("candidates", ())
    places = [(one["backend"], one["model"]) for one in candidates]
    rank = places.index((job.backend, job.model)) if (job.backend, job.model) in places else None
    reasons = [line.partition(": ")[2] for line in job.skipped]  # first those of the candidates passed over
    before = zip(places[: rank or 0], reasons, strict=False)
    return {
        **_head(job.operation, job.asked, job.priority),
        **explained,
        "job": job.id,
        "state": job.state,
        "choice": {
            **({} if rank is None else candidates[rank]),
            "backend": job.backend,
            "model": job.model,
            "kind": job.kind,
            "reason": job.reason,
        },
        "passed": [_passed(*place, reason) for place, reason in before],
        "skipped": job.skipped,
        "refusal": None,
        "queue_seconds": job.queue_seconds,
        "run_seconds": job.ended_at - job.started_at if job.ended_at and job.started_at else None,
        "usage": {"prompt_tokens": job.prompt_tokens, "completion_tokens": job.completion_tokens},
        "cost_usd": usd(job.cost),
        "cloud_cost_usd": usd(job.cloud_cost),
        "error": error_object(job.error) if job.error else None,
    }


def _head(operation: Operation, model: str, priority: Priority) -> dict[str, Any]:
    return {
        "object": "route",
        "endpoint": ENDPOINTS[operation],
        "asked_model": model,
        "priority": priority,
    }


def _passed(backend: str, model: str, reason: str) -> dict[str, str]:
    return {"backend": backend, "model": model, "reason": reason}


def _error(asked: InferenceRequest, decision: Decision, admission: Admission) -> K9Error:
    return turned_away(admission) if decision.candidates else refusal(asked, decision)
