"""Waiting for a job on behalf of a caller who may also come back later."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request

from k9_api.context import Context
from k9_api.presence import Presence
from k9_broker.errors import BadRequest, JobNotFound
from k9_broker.jobs import Job
from k9_broker.ports import Follower
from k9_broker.results import Chunk

MAX_WAIT = 60.0
"""Seconds: the longest `Prefer: wait` that is kept."""

_JOB_ID = re.compile(r"job-[0-9a-z]{26}")


def seconds_to_wait(request: Request) -> float:
    """The `wait` of a `Prefer` header (RFC 7240), at most `MAX_WAIT`; 0 without one."""
    for preference in request.headers.get("prefer", "").split(","):
        name, _, value = preference.partition("=")
        if name.strip().lower() != "wait":
            continue
        if not re.fullmatch(r"\d{1,9}", value.strip().strip('"')):
            raise BadRequest("The header Prefer must say `wait=SECONDS`, a whole number.", param="Prefer")
        return min(float(value.strip().strip('"')), MAX_WAIT)
    return 0.0


async def owned(here: Context, request: Request, job_id: str) -> Job:
    """The job, if it is the caller's. Raises `Unauthorized` and `JobNotFound`."""
    tenant = _asking(here, request, job_id)
    return _of(tenant, await here.broker.ledger.get(job_id))


async def owned_decision(here: Context, request: Request, job_id: str) -> tuple[Job, Mapping[str, Any]]:
    """The job and the decision that queued it, if it is the caller's; raises what `owned` does."""
    tenant = _asking(here, request, job_id)
    job, explained = await here.broker.ledger.explanation(job_id)
    return _of(tenant, job), explained


def _asking(here: Context, request: Request, job_id: str) -> str:
    """Whose request it is, if it asks for what can be a job."""
    tenant = here.keys.tenant(request)
    if not _JOB_ID.fullmatch(job_id):
        raise JobNotFound
    return tenant


def _of(tenant: str, job: Job) -> Job:
    if job.tenant != tenant:
        raise JobNotFound
    return job


async def end_within(seconds: float, request: Request, here: Context, job: Job, follower: Follower) -> Job:
    """The job when it has ended, or as it is after `seconds`. Its caller may hang up; the job goes on."""
    job = await here.broker.ledger.get(job.id)  # it may have ended before it was followed
    if job.state.ended:
        return job
    try:
        async with asyncio.timeout(seconds), Presence(request.receive):
            await follower.ended()
    except TimeoutError:
        pass
    return await here.broker.ledger.get(job.id)


async def relayed(here: Context, job: Job) -> list[Chunk]:
    """The chunks of a streamed job that has succeeded: its answer is in its relay, not in its record."""
    chunks: list[Chunk] = []
    async with here.broker.relay.follow(job.id) as follower, asyncio.timeout(30):
        async for event in follower.events():
            if event.kind == "chunk":
                chunks.append(event.data)
            elif event.kind == "restart":
                chunks.clear()
            elif event.kind == "end":
                break
    return chunks
