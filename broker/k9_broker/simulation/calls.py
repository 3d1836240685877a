"""One simulated request from its arrival to its end."""

from __future__ import annotations

from enum import Enum

from k9_broker.requests import InferenceRequest
from k9_broker.strategy.decision import Decision


class End(Enum):
    """How a request ends; each ends once."""

    SERVED = "served"
    REFUSED = "refused"
    EXPIRED = "expired"


class Call:
    """Its state is changed in place: there are millions."""

    __slots__ = (
        "arrived", "backend", "began", "busy", "charge", "cost", "day", "deadline_at", "decision", "end",
        "first", "free_at", "number", "output", "place", "prompt", "reason", "request", "tenant",
        "traffic", "weight",
    )  # fmt: skip

    def __init__(self, traffic: str, request: InferenceRequest, weight: float) -> None:
        self.traffic = traffic
        self.request = request
        self.tenant = request.tenant
        self.weight = weight
        self.arrived = 0.0
        self.prompt = 0
        self.output = 1
        self.deadline_at = 0.0
        self.backend = ""
        """Where it waits, runs or ran."""
        self.reason = ""
        self.decision: Decision | None = None
        self.number = self.charge = 0
        """Its turn in its queue, and by how much it put the next one off: microseconds."""
        self.busy = 0.0
        """Seconds it was expected to hold a slot."""
        self.place = (0, 0)
        self.cost = 0
        """Nano-dollars set aside, of the account of `day`."""
        self.day = 0
        self.began: float | None = None
        self.first = 0.0
        """Seconds from its begin to its first token."""
        self.free_at = 0.0
        """When its slot is free again."""
        self.end: End | None = None
