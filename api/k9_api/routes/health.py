"""`/livez`, `/readyz` and `/metrics`: for machines that watch, without a key."""

from __future__ import annotations

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from k9_api import metrics
from k9_api.context import context
from k9_api.errors import error_headers
from k9_broker.errors import LedgerUnavailable

router = APIRouter(tags=["operations"])


@router.head("/livez", include_in_schema=False)
@router.get("/livez")
async def livez() -> Response:
    """The process answers."""
    return _status(200, {"status": "ok"})


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz")
async def readyz(request: Request) -> Response:
    """The ledger answers too, so submissions are accepted; else 503 with the reason."""
    try:
        await context(request).broker.ledger.ping()
    except LedgerUnavailable as error:
        response = _status(503, {"status": "unavailable", "reason": error.code, "message": error.message})
        response.headers.update(error_headers(error))
        return response
    return _status(200, {"status": "ok"})


@router.get("/metrics")
async def scrape(request: Request) -> Response:
    """Prometheus' text format. Without the ledger the jobs and the gauges of the queues are absent."""
    fleet = context(request).broker.fleet
    try:
        counts = await fleet.ended(), await fleet.rerouted(), await fleet.dead_letters()
        metrics.observe(await fleet.snapshot(), *counts)
    except LedgerUnavailable:
        metrics.forget()
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


def _status(status: int, body: dict[str, str]) -> Response:
    return Response(to_json(body), status, media_type="application/json")
