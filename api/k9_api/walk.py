"""The walk of one synchronous request through the API: read, submit, wait, answer.

Whoever waits follows the relay before the job is admitted, so that no wake-up is missed, and the
job of a caller that hangs up is cancelled.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from k9_api import metrics
from k9_api.context import Context, context
from k9_api.dialects.openai.surface import OPENAI
from k9_api.dialects.surface import StreamWriter, Surface
from k9_api.errors import error_response
from k9_api.presence import Presence
from k9_api.reading import read_body
from k9_api.sse import Downstream, EventStream
from k9_api.standing import Standing, Teller
from k9_broker.errors import (
    JobCancelled,
    JobExpired,
    JobNotFound,
    K9Error,
    LedgerUnavailable,
    StreamRestarted,
    WorkerLost,
    from_record,
)
from k9_broker.jobs import Job, JobState, new_job_id
from k9_broker.money import dollars
from k9_broker.ports import Follower
from k9_broker.requests import InferenceRequest, Kind, Operation

log = logging.getLogger(__name__)

_FORGOTTEN = "Redis has lost the job, as it may when it was restarted. Send the request again."

_ENDS: dict[str, type[K9Error]] = {
    JobState.CANCELLED: JobCancelled,
    JobState.EXPIRED: JobExpired,
    JobState.DEAD: WorkerLost,
}


async def infer(request: Request, operation: Operation, surface: Surface = OPENAI) -> Response:
    """Answer one chat, completions or embeddings request in the caller's wire format."""
    began = time.perf_counter()
    here = context(request)
    tenant = here.keys.tenant(request)
    raw = await read_body(request, here.max_body_bytes)
    asked = surface.parse(operation, raw, request.scope["headers"], tenant)
    if asked.stream and operation is not Operation.EMBEDDINGS:
        return EventStream(surface, _Streamed(here, surface, asked, began).produce)
    return await _whole(request, here, surface, asked, began)


async def _whole(
    request: Request, here: Context, surface: Surface, asked: InferenceRequest, began: float
) -> Response:
    ledger = here.broker.ledger
    async with _admitted(here, asked) as waiting:
        async with Presence(request.receive):
            await waiting.follower.ended()
        waiting.over = True
        job, result = await ledger.outcome(waiting.job.id)
    _observe(job, began)
    headers = job_headers(job, queue_seconds=job.queue_seconds)
    if result is None:
        return error_response(job.error or K9Error(), surface, request.state.request_id, headers)
    body = surface.whole(asked, job, result)
    return Response(body, headers=headers, media_type="application/json")


@dataclass(slots=True)
class _Streamed:
    """One streamed answer."""

    here: Context
    surface: Surface
    asked: InferenceRequest
    began: float

    async def produce(self, out: Downstream) -> None:
        async def tell(standing: Standing) -> None:
            await out.write(standing.comment())

        async with _admitted(self.here, self.asked) as waiting:
            job = waiting.job
            writer = self.surface.stream(self.asked, job)
            out.headers.update(job_headers(job))
            try:
                async with out.attended():
                    with Teller(self.here.standings, job.id, tell) as teller:
                        await self._relay(waiting, writer, out, teller)
            finally:
                _observe(job, self.began)
        await out.write(writer.close())

    async def _relay(self, waiting: _Waiting, writer: StreamWriter, out: Downstream, teller: Teller) -> None:
        job = waiting.job
        admitted = time.perf_counter()
        sent = False
        if self.asked.patient:
            teller.start()
        async for event in waiting.follower.events():
            teller.stop()
            match event.kind:
                case "chunk":
                    if (frames := writer.write(event.data)) is None:
                        continue
                    if not sent:
                        sent = True
                        waited = time.perf_counter() - self.began
                        metrics.FIRST_TOKEN_SECONDS.labels(job.operation).observe(waited)
                    await out.write(frames)
                case "running" if not out.started:
                    job = waiting.job = _as_it_runs(job, event.data)
                    out.headers.update(job_headers(job, queue_seconds=time.perf_counter() - admitted))
                case "restart" if sent:
                    raise StreamRestarted
                case "end":
                    waiting.over = True
                    if error := ending(event.data):
                        raise error
                    return
        raise LedgerUnavailable


@dataclass(slots=True)
class _Waiting:
    """A caller who waits for a job."""

    job: Job
    follower: Follower
    over: bool = False
    """The job is known to have ended."""


@asynccontextmanager
async def _admitted(here: Context, asked: InferenceRequest) -> AsyncIterator[_Waiting]:
    """A job in its queue, with its follower. Left before the job is over, the job is cancelled."""
    job_id = new_job_id()
    relay = here.broker.relay
    async with relay.follow(job_id) as follower:
        # Not interrupted when the caller hangs up: an admission under way cannot be taken back.
        job = await here.submit(asked, job_id, relay.waiter)
        waiting = _Waiting(job, follower)
        try:
            yield waiting
        except JobNotFound as gone:
            raise LedgerUnavailable(_FORGOTTEN, retry_after=1) from gone
        finally:
            if not waiting.over:
                await _abandon(here, job)


def _as_it_runs(job: Job, said: Mapping[str, Any]) -> Job:
    """The job where it runs now: it may have gone on to another backend since it was admitted."""
    told = {name: said[name] for name in ("model", "reason", "backend") if name in said}
    return replace(job, **told, kind=Kind(said.get("kind", job.kind)))


async def _abandon(here: Context, job: Job) -> None:
    """Cancel a job that nobody waits for. A job that has ended already stays as it is."""
    metrics.ABANDONED.labels(job.operation).inc()
    try:
        await here.broker.ledger.cancel(job.id)
    except JobNotFound:
        return
    except LedgerUnavailable:
        log.warning("job %s could not be cancelled; its deadline will end it", job.id)


def ending(data: Mapping[str, Any]) -> K9Error | None:
    """The error that an `end` event stands for; `None` when the job succeeded."""
    if record := data.get("error"):
        return from_record(record)
    state = data.get("state")
    return None if state == JobState.SUCCEEDED else _ENDS.get(str(state), K9Error)()


def job_headers(job: Job, *, queue_seconds: float | None = None) -> dict[str, str]:
    """Where the job ran and why, for the answer's headers."""
    headers = {
        "x-k9-job": job.id,
        "x-k9-backend": job.backend,
        "x-k9-kind": str(job.kind),
        "x-k9-model": _plain(job.model),
        "x-k9-reason": _plain(job.reason),
        "x-k9-strategy": job.strategy,
        "x-k9-task-type": job.task_type,
    }
    if job.state.ended and job.cost is not None:
        headers["x-k9-cost-usd"] = f"{dollars(job.cost):.9f}"
    if queue_seconds is not None:
        headers["x-k9-queue-seconds"] = f"{queue_seconds:.3f}"
    return headers


def _plain(text: str) -> str:
    return text if text.isascii() and text.isprintable() else quote(text, safe="/: ")


def _observe(job: Job, began: float) -> None:
    metrics.REQUEST_SECONDS.labels(job.operation).observe(time.perf_counter() - began)
