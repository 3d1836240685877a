"""From a backend's configuration to something that can be called."""

from __future__ import annotations

from pathlib import Path

from k9_broker.backends import Backend
from k9_broker.dialects.registry import dialect_named
from k9_broker.ports import Caller
from k9_broker.requests import Operation
from k9_workers.credentials import key_of


def build_caller(backend: Backend, model_folder: Path) -> Caller:
    """The caller for `backend`. `model_folder` holds the model of the `embedded` dialect.

    Raises `ConfigurationError` on an unknown dialect or a key missing from the environment.
    """
    if backend.dialect == "embedded":
        from k9_broker.dialects.embedded import EmbeddedCaller  # loads NumPy and the model's weights

        caller: Caller = EmbeddedCaller(model_folder)
        return caller
    dialect = dialect_named(backend.dialect)
    from k9_workers.transport import HttpCaller  # loads aiohttp, which a process without HTTP can do without

    return HttpCaller(backend, dialect)


def check(backend: Backend) -> None:
    """Raises `ConfigurationError` for what would make every call fail: no such dialect, no key."""
    if backend.dialect != "embedded":
        dialect_named(backend.dialect)
    key_of(backend)


def operations_of(backend: Backend) -> tuple[Operation, ...]:
    """What the backend offers: as configured, else all that its dialect can do."""
    if backend.operations:
        return backend.operations
    if backend.dialect == "embedded":
        return (Operation.EMBEDDINGS,)
    return tuple(sorted(dialect_named(backend.dialect).operations))
