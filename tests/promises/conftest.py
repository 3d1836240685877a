"""The house the promises are played in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from k9_broker.testing import FakeServer
from promises.stage import House
from stand import RedisProcess


@pytest.fixture(scope="session")
def upstream() -> Iterator[FakeServer]:
    with FakeServer(models=("m",)) as fake:
        yield fake


@pytest.fixture
def house(redis_server: RedisProcess, upstream: FakeServer, tmp_path: Path) -> House:
    return House(redis_server, upstream, tmp_path)
