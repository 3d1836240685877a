"""From a backend's configuration to something that can be called."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from k9_broker.backends import Backend
from k9_broker.dialects.registry import dialect_named
from k9_broker.errors import ConfigurationError
from k9_broker.limits import RateLimits
from k9_broker.ports import Caller
from k9_broker.requests import Operation
from k9_workers.credentials import key_of


def build_caller(
    backend: Backend, model_folder: Path, heard: Callable[[RateLimits], None] | None = None
) -> Caller:
    """The caller for `backend`. `model_folder` holds the model of the `embedded` dialect; `heard` is told
    the rate limits in its answers.

    Raises `ConfigurationError` on an unknown dialect or a key missing from the environment.
    """
    if backend.dialect == "embedded":
        from k9_broker.dialects.embedded import EmbeddedCaller  # loads NumPy and the model's weights

        caller: Caller = EmbeddedCaller(model_folder)
        return caller
    dialect = dialect_named(backend.dialect)
    from k9_workers.instances import Instances  # loads aiohttp, which a process without HTTP can do without

    return Instances(backend, dialect, heard)


def check(backend: Backend) -> None:
    """Raises `ConfigurationError` for what would make every call fail: no such dialect, no key, no model."""
    if backend.dialect != "embedded":
        dialect_named(backend.dialect)
    key_of(backend)
    if backend.dialect == "azure" and not backend.models:
        raise ConfigurationError(
            f"Backend {backend.name!r} needs `models`: the names of its deployments. Azure lists the models"
            " that could be deployed, not those that are."
        )


def operations_of(backend: Backend) -> tuple[Operation, ...]:
    """What the backend offers: as configured, else all that its dialect can do."""
    if backend.operations:
        return backend.operations
    if backend.dialect == "embedded":
        return (Operation.EMBEDDINGS,)
    return tuple(sorted(dialect_named(backend.dialect).operations))
