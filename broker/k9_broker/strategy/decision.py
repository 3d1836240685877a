"""A decision is a value: who may take the job, in which order, and why every other may not."""

from __future__ import annotations

from dataclasses import dataclass

from k9_broker.backends import Kind


@dataclass(frozen=True, slots=True)
class Candidate:
    """A backend that may take the job."""

    backend: str
    kind: Kind
    queue: str
    """The Celery queue for the job's priority."""
    max_waiting: int
    """The mark of that queue: admission refuses at this depth."""
    reason: str
    """Why it is on the list at this place, such as `first:configuration-order`."""


@dataclass(frozen=True, slots=True)
class Removal:
    """A backend that may not take the job, and why."""

    backend: str
    reason: str


@dataclass(frozen=True, slots=True)
class Decision:
    """Candidates in order of preference, and the rest with reasons."""

    candidates: tuple[Candidate, ...]
    removals: tuple[Removal, ...]
