"""`GET /v1/models`: what the live workers serve."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from k9_api.context import context
from k9_broker.errors import ModelNotFound
from k9_broker.snapshot import BackendView

router = APIRouter(tags=["openai"])


@router.get("/v1/models")
async def list_models(request: Request) -> Response:
    """Every model that a live worker serves, with the backends that do."""
    served = await _served(request)
    names = list(served)
    body = {
        "object": "list",
        "data": [_model(name, served[name]) for name in names],
        "has_more": False,
        "first_id": names[0] if names else None,
        "last_id": names[-1] if names else None,
    }
    return Response(to_json(body), media_type="application/json")


@router.get("/v1/models/{model:path}")
async def get_model(request: Request, model: str) -> Response:
    """One model. Its name may contain slashes, percent-encoded or not."""
    served = await _served(request)
    if model not in served:
        raise ModelNotFound(param="model")
    return Response(to_json(_model(model, served[model])), media_type="application/json")


async def _served(request: Request) -> dict[str, tuple[BackendView, ...]]:
    here = context(request)
    here.keys.tenant(request)
    return (await here.broker.fleet.snapshot()).models()


def _model(name: str, backends: Sequence[BackendView]) -> dict[str, Any]:
    operations = sorted({operation for backend in backends for operation in backend.operations})
    return {
        "id": name,
        "object": "model",
        "created": 0,  # a backend does not tell when its model was made
        "owned_by": backends[0].name,
        "k9": {
            "backends": [{"name": backend.name, "kind": backend.kind} for backend in backends],
            "operations": operations,
        },
    }
