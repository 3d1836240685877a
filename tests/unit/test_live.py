"""What one worker knows of its instances, model by model: which may be called, and what a trial is."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from k9_broker.backends import Backend, Instance
from k9_broker.dialects.registry import dialect_named
from k9_broker.errors import BackendError, BackendOverloaded, BackendUnreachable, CircuitOpen, K9Error
from k9_broker.health import CircuitState, Load
from k9_broker.requests import InferenceRequest, Operation
from k9_workers.instances import Instances
from k9_workers.live import LiveInstance

URLS = ("http://127.0.0.1:1", "http://127.0.0.1:2")


def ask(model: str = "x") -> InferenceRequest:
    return InferenceRequest(Operation.CHAT, model, {"model": model, "messages": []})


def fail(one: LiveInstance, model: str = "x", error: K9Error | None = None) -> None:
    one.failed(one.begin(ask(model)), error or BackendError())


@pytest.fixture
async def caller() -> AsyncIterator[Instances]:
    servers = tuple(Instance(url=url, slots=4) for url in URLS)
    backend = Backend(name="b", dialect="ollama", instances=servers)
    caller = Instances(backend, dialect_named("ollama"), lambda limits: None)
    yield caller
    await caller.close()


async def test_an_instance_without_the_model_is_no_spare_one(caller: Instances) -> None:
    """Else the call would be repeated at once where it failed, and the job never go elsewhere."""
    one, two = caller._all
    one.listed, two.listed = frozenset({"x"}), frozenset({"y"})
    fail(one)
    assert not caller.spare("x")
    assert caller.spare("y")
    two.listed = frozenset({"x", "y"})
    assert caller.spare("x")


async def test_an_instance_without_the_model_does_not_say_when_to_ask_again(caller: Instances) -> None:
    """Else its 0 seconds would have the job ask twenty times a second, for as long as the other is down."""
    one, two = caller._all
    one.listed, two.listed = frozenset({"x"}), frozenset({"y"})
    for _ in range(2):
        fail(one, error=BackendUnreachable())
    with pytest.raises(CircuitOpen) as caught:
        await caller.call(ask("x"))
    assert (caught.value.retry_after or 0) > 0.5
    assert "backend_unreachable" in caught.value.message


async def test_a_broken_model_leaves_the_others_their_server(caller: Instances) -> None:
    one, two = caller._all
    one.listed, two.listed = frozenset({"x", "y"}), frozenset()
    one.says(Load(loaded=("y",)))
    one.ended(one.begin(ask("y")), 1)
    for _ in range(3):
        fail(one, "x")
    assert one.breaker.state is CircuitState.CLOSED
    with pytest.raises(CircuitOpen, match="backend_error") as caught:
        await caller.call(ask("x"))
    assert 0 < (caught.value.retry_after or 0) <= 1
    assert caller._chosen(ask("y")) is one
    assert not caller.spare("x")
    # Its own circuit is tried by the next job, and closes when that goes well.
    one.models["x"] = one.models["x"].__class__(state=CircuitState.HALF_OPEN, epoch=1, needed=1)
    trial = one.begin(ask("x"))
    with pytest.raises(CircuitOpen):
        caller._chosen(ask("x"))
    one.left(trial)
    one.ended(one.begin(ask("x")), 1)
    assert one.models["x"].state is CircuitState.CLOSED
    one.models["x"] = one.models["x"].__class__(state=CircuitState.OPEN, until=float("inf"))
    caller.reset()
    assert caller._chosen(ask("x")) is one


async def test_where_models_are_always_loaded_a_failure_is_the_servers(caller: Instances) -> None:
    one, _ = caller._all
    one.says(Load(running=0))
    for _ in range(3):
        fail(one, "x")
    assert one.breaker.state is CircuitState.OPEN


async def test_a_stream_that_has_shown_enough_ends_no_other_trial(caller: Instances) -> None:
    one, _ = caller._all
    for _ in range(2):
        fail(one, error=BackendUnreachable())
    one.breaker = one.breaker.__class__(state=CircuitState.HALF_OPEN, epoch=1, needed=2)
    stream = one.begin(ask())
    one.answering(stream)
    second = one.begin(ask())
    one.left(stream)
    assert one.breaker.trying
    one.left(second)
    assert not one.breaker.trying
    fail(one, error=BackendOverloaded(retry_after=5))
    assert one.breaker.state is CircuitState.OPEN
