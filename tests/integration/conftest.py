"""Fixtures of the suites that run against the whole stack."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

import routed
from jobs_stand_in import StandIn, serving
from k9_broker.testing import FakeServer
from stack import Stack


@pytest.fixture
def k9(stack: Stack) -> Iterator[Stack]:
    """The stack, with the fake as it was at the start before and after."""
    stack.fake.reset()
    yield stack
    stack.fake.reset()


@pytest.fixture
def http(k9: Stack) -> Iterator[httpx.Client]:
    """A bare HTTP client of the stack's API."""
    with httpx.Client(base_url=k9.url, timeout=20) as client:
        yield client


@pytest.fixture(scope="session")
def routed_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[routed.Routed]:
    """One K-9 with four backends and a policy, for the tests that leave it as they found it."""
    running = routed.start(tmp_path_factory.mktemp("routed"))
    try:
        yield running.wait_ready()
    finally:
        running.stop()


@pytest.fixture
def four(routed_stack: routed.Routed) -> Iterator[routed.Routed]:
    """The four backends, with the fake as it was at the start before and after."""
    routed_stack.fake.reset()
    yield routed_stack
    routed_stack.fake.reset()


@pytest.fixture
def server() -> Iterator[StandIn]:
    """A stand-in for the jobs API, to be steered by the test."""
    with serving(StandIn()) as stand_in:
        yield stand_in


@pytest.fixture(scope="session")
def fake_server() -> Iterator[FakeServer]:
    with FakeServer() as running:
        yield running


@pytest.fixture
def fake(fake_server: FakeServer) -> FakeServer:
    """The fake backend alone, as it is at the start."""
    fake_server.reset()
    return fake_server
