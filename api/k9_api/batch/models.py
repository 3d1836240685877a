"""Which model to embed with when nobody said: asked of the API once, decided by a pure rule."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import httpx

from k9_api.batch.jobs import error_in
from k9_broker.errors import ConfigurationError
from k9_broker.requests import Operation

NEXT_STEP = "Fetch one with `k9 model fetch minilm` and start K-9 again, or name one with --model."
HINTS = ("embed", "minilm", "bge", "e5", "gte")
"""Parts of the names of models made for embeddings, for backends that also chat."""


async def default_model(http: httpx.AsyncClient) -> str:
    """The model of the first backend that embeds. Raises `ConfigurationError` when there is none."""
    try:
        reply = await http.get("/v1/queues")
        body = reply.json() if reply.status_code == 200 else None
    except (httpx.TransportError, ValueError) as error:
        raise ConfigurationError(
            f"The API at {http.base_url} cannot be reached ({type(error).__name__}). "
            "Start it with `k9 up`, or name it with --url."
        ) from None
    if reply.status_code == 401:
        raise ConfigurationError("K-9 asks for an API key, and did not know this one. Set K9_API_KEY.")
    if not isinstance(body, dict):
        raise ConfigurationError(
            f"GET /v1/queues: {error_in(reply)[1]} Name the model with --model, or try later."
        )
    return choose(body.get("data") or body.get("backends") or [])


def choose(backends: Iterable[Mapping[str, Any]]) -> str:
    """The first model of a backend that only embeds; else the one whose name says so; else the only one."""
    mixed: list[str] = []
    for backend in backends:
        operations = set(backend.get("operations") or ())
        models = [str(model) for model in backend.get("models") or ()]
        if Operation.EMBEDDINGS not in operations or not models:
            continue
        if operations == {Operation.EMBEDDINGS}:
            return models[0]
        mixed += models
    named = [model for model in mixed if any(hint in model.lower() for hint in HINTS)]
    if named:
        return named[0]
    if len(mixed) == 1:
        return mixed[0]
    if mixed:
        raise ConfigurationError(
            f"Which of these models shall embed? Name it with --model: {', '.join(mixed)}."
        )
    raise ConfigurationError(f"No backend serves an embedding model. {NEXT_STEP}")
