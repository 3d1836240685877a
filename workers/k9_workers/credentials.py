"""The key of a backend: read from the worker's environment, and kept nowhere else."""

from __future__ import annotations

import os

from k9_broker.backends import Backend
from k9_broker.errors import ConfigurationError


def key_of(backend: Backend) -> str | None:
    """The backend's key, or `None` when it needs none. Raises `ConfigurationError` when it is not set."""
    if backend.api_key_env is None:
        return None
    if key := os.environ.get(backend.api_key_env):
        return key
    raise ConfigurationError(
        f"Backend {backend.name!r} takes its key from {backend.api_key_env}, which is not set. Set it in the"
        " worker's environment or remove api_key_env."
    )
