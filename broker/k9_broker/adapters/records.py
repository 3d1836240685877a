"""The job record as Redis holds it: a hash of strings, read into the nouns and written from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from hashlib import sha256
from typing import Any
from zlib import compress, decompress

from pydantic_core import from_json, to_json

from k9_broker.adapters.celery_message import Subject
from k9_broker.errors import K9Error, from_record
from k9_broker.jobs import Job, JobState
from k9_broker.models import Prices
from k9_broker.money import MOST
from k9_broker.requests import InferenceRequest, Kind, Operation, Priority, Privacy
from k9_broker.strategy.decision import Candidate, Decision
from k9_broker.strategy.explanation import explain
from k9_broker.usage import UsageRow

JOB_FIELDS = (
    *("state", "generation", "operation", "model", "tenant", "priority", "backend", "kind", "reason"),
    *("skipped", "stream", "created_at", "deadline_at", "started_at", "ended_at", "worker", "attempts"),
    *("error", "tokens_estimate", "prompt_tokens", "completion_tokens", "asked", "task_type", "strategy"),
    *("privacy", "cost", "cloud_prices", "cloud_cost", "tried", "calls", "home"),
)
"""What a `Job` is read from: the record without its request and its result."""


def subject_of(request: InferenceRequest, size: int) -> Subject:
    """`size`: bytes of the dumped request; about four make a token."""
    return Subject(request.operation, request.stream, request.tenant, request.priority, size // 4)


def subject_of_job(job: Job) -> Subject:
    return Subject(job.operation, job.stream, job.tenant, job.priority, job.tokens_estimate)


def fingerprint(dumped: bytes) -> str:
    """Tells two requests apart without keeping them: 128 bits of SHA-256."""
    return sha256(dumped).hexdigest()[:32]


def new_record(
    subject: Subject, asked: str, dumped: bytes, decision: Decision, waiter: str | None
) -> list[Any]:
    """Fields and values that do not depend on the candidate admission takes."""
    cloud = decision.cloud
    return [
        *("operation", subject.operation.value, "asked", asked, "tenant", subject.tenant),
        *("priority", subject.priority.value, "stream", int(subject.stream), "request", dumped),
        *("tokens_estimate", subject.tokens_estimate, "waiters", waiter or ""),
        *("task_type", decision.recognition.task_type.value, "strategy", decision.strategy),
        *("privacy", decision.privacy.value, "decision", packed(explain(decision))),
        *("cloud_prices", to_json([cloud.model, cloud.input_usd, cloud.output_usd]) if cloud else b""),
        *(() if decision.budget is None else ("budget", decision.budget)),
        *(() if decision.weight == 1 else ("weight", decision.weight)),
        *(() if decision.max_in_flight is None else ("max_in_flight", decision.max_in_flight)),
    ]


_LONG = 2048
"""Bytes from which a decision is worth compressing: a fleet of hundreds of models has long ones."""


def packed(explained: Mapping[str, Any]) -> bytes:
    text = to_json(explained)
    return text if len(text) < _LONG else compress(text, 1)


def unpacked(text: bytes | None) -> dict[str, Any]:
    """What `packed` packed; empty for a record that has none."""
    if not text:
        return {}
    found: dict[str, Any] = from_json(text if text.startswith(b"{") else decompress(text))
    return found


def pairs(flat: Sequence[bytes]) -> dict[str, bytes]:
    """`HGETALL` as a script returns it."""
    return {flat[i].decode(): flat[i + 1] for i in range(0, len(flat), 2)}


def record_bytes(record: Sequence[Any]) -> list[bytes]:
    """`new_record` as Redis would give it back."""
    return [word if isinstance(word, bytes) else str(word).encode() for word in record]


def job_from(job_id: str, record: Mapping[str, bytes | None]) -> Job:
    def text(name: str) -> str:
        value = record.get(name)
        return value.decode() if value else ""

    def number(name: str) -> float | None:
        value = record.get(name)
        return float(value) if value else None

    def whole(name: str) -> int | None:
        value = record.get(name)
        return int(value) if value else None

    return Job(
        id=job_id,
        state=JobState(text("state")),
        generation=int(text("generation")),
        operation=Operation(text("operation")),
        model=text("model"),
        tenant=text("tenant"),
        priority=Priority(text("priority")),
        backend=text("backend"),
        kind=Kind(text("kind")),
        reason=text("reason"),
        stream=text("stream") == "1",
        created_at=number("created_at") or 0.0,
        deadline_at=number("deadline_at") or 0.0,
        started_at=number("started_at"),
        ended_at=number("ended_at"),
        worker=text("worker") or None,
        attempts=int(text("attempts") or 0),
        error=error_from(record.get("error")),
        tokens_estimate=int(text("tokens_estimate") or 0),
        prompt_tokens=int(text("prompt_tokens") or 0),
        completion_tokens=int(text("completion_tokens") or 0),
        skipped=tuple(text("skipped").splitlines()),
        asked=text("asked"),
        task_type=text("task_type"),
        strategy=text("strategy"),
        privacy=Privacy(text("privacy") or Privacy.ANY),
        cost=whole("cost"),
        cloud=Prices(*from_json(prices)) if (prices := record.get("cloud_prices")) else None,
        cloud_cost=whole("cloud_cost"),
        tried=tuple(text("tried").split()),
        calls=whole("calls") or 0,
        home=text("home"),
    )


def error_from(raw: bytes | None) -> K9Error | None:
    return from_record(from_json(raw)) if raw else None


def error_text(error: K9Error | None) -> str:
    """The error as JSON, or the empty string."""
    return to_json(error.record()).decode() if error else ""


def usage_rows(day: int, counts: Mapping[bytes, bytes]) -> list[UsageRow]:
    """A day's counters, `<what> <kind> <model>` each, as rows; most expensive first."""
    found: dict[tuple[str, str], dict[str, int]] = {}
    for name, count in counts.items():
        what, kind, model = name.decode().split(" ", 2)
        found.setdefault((kind, model), {})[_USAGE[what]] = int(count)
    when = date(1970, 1, 1) + timedelta(days=day)
    rows = [UsageRow(when, model, Kind(kind), **numbers) for (kind, model), numbers in found.items()]
    return sorted(rows, key=lambda row: (-row.cost, -row.jobs, row.model, row.kind))


_USAGE = {
    "jobs": "jobs",
    "prompt": "prompt_tokens",
    "completion": "completion_tokens",
    "cost": "cost",
    "compared": "compared_cost",
    "cloud": "cloud_cost",
}


def words(one: Candidate) -> tuple[str | int | float, ...]:
    """A candidate as `parts/places.lua` reads it."""
    return (
        *(one.backend, one.kind.value, one.queue, one.max_waiting, one.reason, one.model),
        *(amount(one.cost), one.slots, one.service_seconds, one.least_wait, one.busy),
        *("" if mark is None else mark for mark in (one.overflow_at, one.overflow_wait)),
    )


def amount(cost: int | None) -> int | str:
    """Nano-dollars as the scripts read them."""
    return "" if cost is None else min(cost, MOST)
