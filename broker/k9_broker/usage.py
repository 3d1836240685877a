"""What a tenant used: tokens, money, and what the same work would have cost in the cloud."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from k9_broker.requests import Kind


@dataclass(frozen=True, slots=True)
class UsageRow:
    """One tenant's jobs of one UTC day with one model at one kind of backend. Money in nano-dollars."""

    day: date
    model: str
    kind: Kind
    jobs: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: int = 0
    compared_cost: int = 0
    """The part of `cost` that belongs to jobs with a known price in the cloud."""
    cloud_cost: int = 0
    """What those same jobs would have cost in the cloud."""

    @property
    def saving(self) -> int:
        """May be negative: a machine that stands idle costs more than the cloud."""
        return self.cloud_cost - self.compared_cost
