"""What every request needs, made once when the application starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from starlette.requests import Request

from k9_api.auth import Keys
from k9_broker.ports import Fleet, Ledger, RelayReader


class Broker(Protocol):
    """The ports over one store. `RedisBroker` is the one that is used."""

    @property
    def ledger(self) -> Ledger: ...

    @property
    def fleet(self) -> Fleet: ...

    @property
    def relay(self) -> RelayReader: ...

    async def close(self) -> None:
        """Release the connections."""
        ...


@dataclass(frozen=True, slots=True)
class Context:
    broker: Broker
    keys: Keys
    max_body_bytes: int


def context(request: Request) -> Context:
    found = request.app.state.context
    assert isinstance(found, Context)
    return found
