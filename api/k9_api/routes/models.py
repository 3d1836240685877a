"""`GET /v1/models`: what the live workers serve, and the names that leave the choice to K-9.

The answer is in Anthropic's format for callers that send `anthropic-version`, else in OpenAI's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from fastapi import APIRouter
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from k9_api.context import context
from k9_api.dialects.anthropic import catalogue
from k9_api.surfaces import speaks_anthropic
from k9_broker.errors import ModelNotFound
from k9_broker.policy import AUTO
from k9_broker.requests import Operation
from k9_broker.snapshot import BackendView
from k9_broker.strategy.builtin import SHORT
from k9_broker.strategy.engine import Router

router = APIRouter(tags=["openai", "anthropic"])

Served = dict[str, tuple[BackendView, ...]]


@router.get("/v1/models")
async def list_models(request: Request) -> Response:
    """Every model that a live worker serves; then `auto`, `auto:STRATEGY` and the aliases."""
    named = _named(*await _served(request))
    if speaks_anthropic(request.scope):
        found = catalogue.page(list(named.values()), request.query_params)
        return Response(to_json(found), media_type="application/json")
    names = list(named)
    body = {
        "object": "list",
        "data": list(named.values()),
        "has_more": False,
        "first_id": names[0] if names else None,
        "last_id": names[-1] if names else None,
    }
    return Response(to_json(body), media_type="application/json")


@router.get("/v1/models/{model:path}")
async def get_model(request: Request, model: str) -> Response:
    """One model. Its name may contain slashes, percent-encoded or not."""
    named = _named(*await _served(request))
    if model not in named:  # `auto:cost` is short for `auto:cost-first`, which is listed
        strategy = model.removeprefix(f"{AUTO}:")
        listed = named.get(f"{AUTO}:{SHORT.get(strategy, strategy)}") if strategy != model else None
        if listed is None:
            raise ModelNotFound(param="model")
        named[model] = {**listed, "id": model}
    found = catalogue.model_info(named[model]) if speaks_anthropic(request.scope) else named[model]
    return Response(to_json(found), media_type="application/json")


async def _served(request: Request) -> tuple[Served, Router]:
    here = context(request)
    here.keys.tenant(request)
    return (await here.broker.fleet.snapshot()).models(), here.router


def _named(served: Served, router: Router) -> dict[str, dict[str, Any]]:
    """Every name a caller may use now. Of a name that means two things, what routing makes of it."""
    if not served:
        return {}
    real = {name: _model(name, backends) for name, backends in served.items()}
    every = _operations(real.values())
    choices = {AUTO: _choice(AUTO, every, strategy=router.policy.strategy)}
    for strategy in router.strategies:
        choices[f"{AUTO}:{strategy}"] = _choice(f"{AUTO}:{strategy}", every, strategy=strategy)
    aliases = {
        alias: _choice(alias, _operations(real[model] for model in models if model in real), models=models)
        for alias, models in router.policy.aliases.items()
        if any(model in real for model in models)
    }
    return {**real, **aliases, **choices}


def _choice(name: str, operations: Sequence[Operation], **says: Any) -> dict[str, Any]:
    """A name that leaves the choice of the model, or a part of it, to K-9."""
    return {
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": "k9",
        "k9": {**says, "operations": operations},
    }


def _operations(models: Iterable[dict[str, Any]]) -> list[Operation]:
    return sorted({operation for model in models for operation in model["k9"]["operations"]})


def _model(name: str, backends: Sequence[BackendView]) -> dict[str, Any]:
    operations = [one for one in Operation if any(backend.can(name, one) for backend in backends)]
    return {
        "id": name,
        "object": "model",
        "created": 0,  # a backend does not tell when its model was made
        "owned_by": backends[0].name,
        "k9": {
            "backends": [
                {
                    "name": backend.name,
                    "kind": backend.kind,
                    **backend.card(name).model_dump(exclude_defaults=True, exclude={"operations"}),
                }
                for backend in backends
            ],
            "operations": sorted(operations),
        },
    }
