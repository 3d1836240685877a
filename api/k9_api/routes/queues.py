"""`GET /v1/queues`: what waits where."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from k9_api.context import context
from k9_broker.requests import Priority
from k9_broker.snapshot import BackendView

router = APIRouter(tags=["k9"])


@router.get("/v1/queues")
async def list_queues(request: Request) -> Response:
    """Depth, jobs in flight, estimated wait and oldest age of every backend, in configuration order."""
    here = context(request)
    here.keys.tenant(request)
    snapshot = await here.broker.fleet.snapshot()
    body = {"object": "list", "data": [_queue(backend) for backend in snapshot.backends]}
    return Response(to_json(body), media_type="application/json")


def _queue(backend: BackendView) -> dict[str, Any]:
    return {
        "backend": backend.name,
        "kind": backend.kind,
        "dialect": backend.dialect,
        "models": sorted(backend.models),
        "operations": sorted(backend.operations),
        "workers": backend.workers,
        "slots": backend.slots,
        "in_flight": backend.in_flight,
        "waiting": {priority: backend.waiting.get(priority, 0) for priority in Priority},
        "max_waiting": {priority: backend.max_waiting.get(priority, 0) for priority in Priority},
        "estimated_wait_seconds": {
            priority: round(backend.estimated_wait(priority), 3) for priority in Priority
        },
        "saturated": backend.past_mark,
        "down": backend.down or None,
        "paced_seconds": round(backend.paced_seconds, 3),
        "instances": [
            {"worker": worker, **instance.model_dump(mode="json", exclude_defaults=True, exclude={"state"})}
            | {"state": instance.state}
            for worker, instance in backend.instances
        ],
        "oldest_age_seconds": round(backend.oldest_age, 3),
        "latencies": {
            model: {"ttft_seconds": round(one.ttft, 4), "tpot_seconds": round(one.tpot, 5)}
            for model, one in sorted(backend.latencies.items())
        },
    }
