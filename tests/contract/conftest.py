"""Where the shared contract examples are; suites that need them use the fixture `contracts`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

CONTRACTS = Path(__file__).resolve().parents[3] / "shared" / "contracts"


@pytest.fixture(scope="session")
def contracts() -> Path:
    """The folder of contract examples beside the checkout; skips without it, fails in CI."""
    if CONTRACTS.is_dir():
        return CONTRACTS
    reason = f"the contract examples are not at {CONTRACTS}"
    if os.environ.get("CI"):
        pytest.fail(f"{reason}; CI must run this suite")
    pytest.skip(reason)
