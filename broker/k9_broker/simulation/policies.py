"""The policies that can be compared."""

from __future__ import annotations

from enum import StrEnum


class PolicyName(StrEnum):
    K9 = "k9"
    """K-9's own rules."""
    ALL_LOCAL = "all-local"
    ALL_CLOUD = "all-cloud"
    """The same rules with one kind of backends only."""
    FALLBACK = "fallback"
    """Without K-9: local servers in turn that refuse when their own short queue is full, then the cloud."""
