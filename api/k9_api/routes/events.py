"""`GET /v1/jobs/{id}/events`: a job's life as server-sent events."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from k9_api.context import Context, context
from k9_api.dialects.openai import egress
from k9_api.dialects.openai.surface import OPENAI
from k9_api.errors import error_object
from k9_api.frames import frame
from k9_api.sse import Downstream, EventStream
from k9_api.standing import Standing, Teller
from k9_api.waiting import owned
from k9_api.walk import ending, job_headers
from k9_broker.errors import BadRequest
from k9_broker.jobs import Job, JobState
from k9_broker.ports import Event

router = APIRouter(tags=["jobs"])


@router.get("/v1/jobs/{job_id}/events")
async def job_events(request: Request, job_id: str) -> Response:
    """`running`, `chunk`, `restart` and `end`, each with an `id` that `Last-Event-ID` resumes after.

    While the job waits, `queued` tells where it stands whenever that has changed. It has no `id`: it is
    no part of what is resumed.
    """
    after = request.headers.get("last-event-id") or "0"
    if not re.fullmatch(r"\d{1,19}(-\d{1,19})?", after):  # more does not fit into Redis' 64 bits
        raise BadRequest("The header Last-Event-ID is not an id of this stream.", param="Last-Event-ID")
    here = context(request)
    job = await owned(here, request, job_id)
    if job.state.ended and after != "0" and await _nothing_left(here, job, after):
        return Response(status_code=204)  # which tells an EventSource to stop reconnecting
    chunks = egress.Chunks(job, include_usage=True) if job.operation in egress.TEXT else None

    async def produce(out: Downstream) -> None:
        async def tell(standing: Standing) -> None:
            await out.write(frame(standing.event(job.id), event="queued"))

        out.headers.update(job_headers(job))
        teller = Teller(here.standings, job.id, tell)
        async with here.broker.relay.follow(job.id) as follower:
            if not job.state.ended:
                await here.broker.relay.attend(job.id)
            async with out.attended():
                with teller:
                    if job.state is JobState.QUEUED:
                        teller.start()
                    async for event in follower.events(after):
                        teller.start() if event.kind == "restart" else teller.stop()
                        if data := _data(event, job, chunks):
                            await out.write(frame(data, event=event.kind, id=event.id))
                        if event.kind == "end":
                            return

    return EventStream(OPENAI, produce)


async def _nothing_left(here: Context, job: Job, after: str) -> bool:
    """Whether an ended job has no events after `after`. All it will ever have are there already."""
    async with here.broker.relay.follow(job.id) as follower:
        try:
            async with asyncio.timeout(1):
                await anext(follower.events(after))
        except (TimeoutError, StopAsyncIteration):
            return True
    return False


def _data(event: Event, job: Job, chunks: egress.Chunks | None) -> bytes | None:
    match event.kind:
        case "chunk":
            return chunks.write(event.data) if chunks else None
        case "end":
            return to_json({"job": job.id, **_ending(event.data)})
        case _:
            return to_json({"job": job.id, **event.data})


def _ending(data: Mapping[str, Any]) -> dict[str, Any]:
    error = ending(data)
    return {**data, "error": error_object(error) if error else None}
