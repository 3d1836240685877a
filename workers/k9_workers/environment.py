"""What a worker process was told in its environment: which backend is its own."""

from __future__ import annotations

import json
import os

from k9_broker.backends import ORDER_STEP, Backend
from k9_broker.settings import Settings


def backend_from_environment(settings: Settings) -> tuple[Backend, int]:
    """The backend this process serves, and its place in the configuration.

    `K9_BACKEND` is a name of `k9.toml`, or a whole backend as JSON. Raises `KeyError` when unset.
    """
    said = os.environ["K9_BACKEND"]
    if said.startswith("{"):
        return Backend.model_validate(json.loads(said)), int(os.environ.get("K9_BACKEND_ORDER", "0"))
    return backend_named(said, settings)


def backend_named(name: str, settings: Settings) -> tuple[Backend, int]:
    """A backend of the configuration and its place there. Raises `KeyError`."""
    for position, backend in enumerate(settings.backends):
        if backend.name == name:
            return backend, position * ORDER_STEP
    raise KeyError(name)
