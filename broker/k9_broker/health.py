"""How an instance of a backend is: what workers see and announce, and routing reads."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict


class CircuitState(StrEnum):
    """closed (it is called) → open (it is left alone) → half-open (tried with little) → closed or open.

    `out` is open until an operator says otherwise: its quota is used up, or its credentials are refused.
    """

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"
    OUT = "out"

    @property
    def usable(self) -> bool:
        return self in (CircuitState.CLOSED, CircuitState.HALF_OPEN)


class Load(BaseModel):
    """What a server says of its own load, other callers' work included. `None`: it does not say."""

    model_config = ConfigDict(frozen=True)

    running: int | None = None
    """Requests it works on."""
    waiting: int | None = None
    """Requests that wait inside it."""
    slots: int | None = None
    """Requests it can work on at once."""
    saturation: float | None = None
    """How full its memory for running requests is, from 0 to 1."""
    loaded: tuple[str, ...] | None = None
    """Models in memory, where it loads them on demand."""


class InstanceHealth(BaseModel):
    """One instance as one worker sees it."""

    model_config = ConfigDict(frozen=True)

    name: str
    """`Instance.name`."""
    state: CircuitState = CircuitState.CLOSED
    reason: str = ""
    """The code of the error that opened its circuit."""
    retry_seconds: float | None = None
    """Seconds until an open circuit is tried again; `None` for every other state."""
    in_flight: int = 0
    """Calls of this worker under way there."""
    load: Load | None = None
