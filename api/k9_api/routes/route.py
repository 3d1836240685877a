"""`POST /v1/route` and `GET /v1/jobs/{id}/route`: where a request would go, where a job went, and why."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from k9_api import routeview
from k9_api.context import context
from k9_api.dialects.openai import ingress
from k9_api.dialects.openai.shapes import ChatBody, CompletionBody, EmbeddingBody, JobBody
from k9_api.reading import read_body
from k9_api.routes.describe import json_body
from k9_api.waiting import owned_decision
from k9_broker.strategy.admission import choose

router = APIRouter(tags=["k9"])


@router.post("/v1/route", openapi_extra=json_body(ChatBody | CompletionBody | EmbeddingBody | JobBody))
async def plan(request: Request) -> Response:
    """Where a request would go, and why. Nothing is sent, nothing is queued, nothing is paid.

    The body is that of `/v1/chat/completions`, `/v1/completions`, `/v1/embeddings` or `/v1/jobs`, told
    apart by its fields; without a `model` it means `auto`. Answers 200 also for a request that would be
    refused: `choice` is null then, and `refusal` is the error.
    """
    here = context(request)
    tenant = here.keys.tenant(request)
    raw = await read_body(request, here.max_body_bytes)
    asked = ingress.parse_any(raw, request.scope["headers"], tenant)
    snapshot = await here.broker.fleet.snapshot(fresh=True)  # as admission would see it
    decision, ledger = await here.decide(asked, snapshot), here.broker.ledger
    spent = 0 if decision.budget is None else await ledger.spent(tenant)
    admission = choose(decision, asked, await ledger.gauges(tenant, decision), spent)
    return Response(to_json(routeview.planned(asked, decision, admission)), media_type="application/json")


@router.get("/v1/jobs/{job_id}/route")
async def explain_job(request: Request, job_id: str) -> Response:
    """The decision that queued a job, whom admission took, and what has become of the job since."""
    here = context(request)
    job, explained = await owned_decision(here, request, job_id)
    return Response(to_json(routeview.taken(job, explained)), media_type="application/json")
