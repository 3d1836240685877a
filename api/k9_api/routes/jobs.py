"""`/v1/jobs`: submit now, ask later."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from k9_api import jobview
from k9_api.context import Context, context
from k9_api.dialects.openai import ingress
from k9_api.dialects.openai.egress import EncodingFormat
from k9_api.dialects.openai.shapes import JobBody
from k9_api.reading import read_body
from k9_api.routes.describe import json_body
from k9_api.waiting import end_within, owned, relayed, seconds_to_wait
from k9_api.walk import job_headers
from k9_broker.dialects.openai.folding import fold
from k9_broker.errors import (
    BadRequest,
    IdempotencyConflict,
    K9Error,
    LedgerUnavailable,
)
from k9_broker.jobs import Job, JobState, new_job_id
from k9_broker.requests import InferenceRequest

router = APIRouter(tags=["jobs"])

Encoding = Annotated[EncodingFormat, Query(description="How the vectors in the result are written.")]


@router.post("/v1/jobs", status_code=202, openapi_extra=json_body(JobBody))
async def create_job(request: Request, encoding_format: Encoding = "float") -> Response:
    """Queue one request: `{"endpoint": "/v1/embeddings", "body": {…}}`.

    Beside them may stand `priority`, `deadline` (seconds), `queue` and, for embeddings, `partial`.
    Answers 202 with the job and its `Location`. With `Prefer: wait=N` (at most 60 s) it answers 200
    with the result if the job ends in time. With an `Idempotency-Key`, the same request sent again
    finds the same job.
    """
    here = context(request)
    tenant = here.keys.tenant(request)
    wait = seconds_to_wait(request)
    key = request.headers.get("idempotency-key")
    raw = await read_body(request, here.max_body_bytes)
    asked = ingress.parse_job(raw, request.scope["headers"], tenant)
    job_id = new_job_id() if key is None else _id_from(tenant, key)
    if wait:
        async with here.broker.relay.follow(job_id) as follower:
            job = await _submit(here, asked, job_id, waiter=here.broker.relay.waiter, replay=key is not None)
            if key is not None:  # it may be there already, and wake only whoever sent it first
                await here.broker.relay.attend(job_id)
            job = await end_within(wait, request, here, job, follower)
    else:
        job = await _submit(here, asked, job_id, waiter=None, replay=key is not None)
    response = await _answer(here, job, encoding_format, status=200 if wait and job.state.ended else 202)
    response.headers["location"] = f"/v1/jobs/{job.id}"
    if wait:
        response.headers["preference-applied"] = f"wait={wait:g}"
    return response


@router.get("/v1/jobs/{job_id}")
async def get_job(request: Request, job_id: str, encoding_format: Encoding = "float") -> Response:
    """The job, with its `result` once it has succeeded. `Prefer: wait=N` waits up to N s for its end."""
    here = context(request)
    wait = seconds_to_wait(request)
    job = await owned(here, request, job_id)
    if wait and not job.state.ended:
        async with here.broker.relay.follow(job_id) as follower:
            await here.broker.relay.attend(job_id)
            job = await end_within(wait, request, here, job, follower)
    return await _answer(here, job, encoding_format)


@router.delete("/v1/jobs/{job_id}")
async def cancel_job(request: Request, job_id: str) -> Response:
    """Cancel: a queued job never runs, a running one stops at once, one that has ended stays as it is."""
    here = context(request)
    await owned(here, request, job_id)
    return await _answer(here, await here.broker.ledger.cancel(job_id), "float")


async def _submit(
    here: Context, asked: InferenceRequest, job_id: str, *, waiter: str | None, replay: bool
) -> Job:
    try:
        return await here.submit(asked, job_id, waiter)
    except (LedgerUnavailable, IdempotencyConflict):
        raise
    except K9Error:
        # What was accepted once stays accepted, even if nobody would take it now.
        if replay and (known := await here.broker.ledger.find(job_id, asked)):
            return known
        raise


async def _answer(here: Context, job: Job, encoding_format: EncodingFormat, status: int = 200) -> Response:
    if job.state is JobState.SUCCEEDED:
        result = await here.broker.ledger.result(job.id)
        if result.body is None and result.vectors is None:
            result = replace(result, body=fold(job.operation, await relayed(here, job)))
        body = jobview.succeeded(job, result, encoding_format)
    elif job.state is JobState.QUEUED:
        standing = await here.standings.of(job)
        body = to_json({**jobview.job_object(job), **(standing.told() if standing else {})})
    else:
        body = to_json(jobview.job_object(job))
    headers = job_headers(job, queue_seconds=job.queue_seconds)
    return Response(body, status, headers, media_type="application/json")


def _id_from(tenant: str, key: str) -> str:
    """The same job id for the same tenant and key, wherever it is asked: 104 bits of their hash."""
    if not re.fullmatch(r"[\x21-\x7e]{1,255}", key):
        raise BadRequest(
            "The header Idempotency-Key must be 1 to 255 visible ASCII characters.", param="Idempotency-Key"
        )
    return "job-" + hashlib.sha256(f"{tenant}\n{key}".encode()).hexdigest()[:26]
