"""What a worker announces, and when: on a stand-in for its backend and one for the fleet."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from k9_broker.adapters.redis_fleet import RedisFleet
from k9_broker.backends import Announcement, Backend
from k9_broker.errors import BackendUnreachable, ConfigurationError
from k9_broker.health import CircuitState, InstanceHealth
from k9_broker.models import ModelCard
from k9_broker.ports import Caller
from k9_workers import announcing
from k9_workers.announcing import Announcer
from k9_workers.callers import check
from k9_workers.measuring import Measuring


class StandIn:
    """A backend and a fleet in one: says what it is told to, and keeps what it is told."""

    def __init__(self) -> None:
        self.said: Mapping[str, ModelCard] | None = {"m": ModelCard(context_window=1000)}
        self.state = CircuitState.CLOSED
        self.told: list[Announcement] = []
        self.last: tuple[str, ...] = ()

    async def models(self) -> Mapping[str, ModelCard]:
        if self.said is None:
            raise BackendUnreachable
        return self.said

    def health(self) -> Sequence[InstanceHealth]:
        return [InstanceHealth(name="one:1", state=self.state), InstanceHealth(name="two:2")]

    async def announce(self, announcement: Announcement) -> None:
        self.told.append(announcement)

    async def last_models(self, node: str) -> tuple[str, ...]:
        return self.last

    async def until(self, condition: Callable[[Announcement], object], seconds: float = 5) -> Announcement:
        end = time.monotonic() + seconds
        while not (self.told and condition(self.told[-1])):
            if time.monotonic() > end:
                raise TimeoutError(str(self.told[-1:]))
            await asyncio.sleep(0.01)
        return self.told[-1]


@asynccontextmanager
async def announced(stand_in: StandIn, **settings: Any) -> AsyncIterator[StandIn]:
    instances = ({"url": "http://one:1"}, {"url": "http://two:2"})
    backend = Backend.model_validate({"name": "b", "dialect": "fake", "instances": instances, **settings})
    announcer = Announcer(
        backend=backend, order=0, node="n",
        caller=cast(Caller, stand_in), fleet=cast(RedisFleet, stand_in),
        measuring=Measuring(), configured={}, paced=lambda: 7.0,
    )  # fmt: skip
    await announcer.learn()
    duties = [asyncio.create_task(duty()) for duty in (announcer.keep_asking, announcer.keep_announcing)]
    try:
        yield stand_in
    finally:
        for duty in duties:
            duty.cancel()
        await asyncio.wait(duties)


async def test_all_instances_together() -> None:
    async with announced(StandIn(), slots=3, gpu_usd_per_hour=1.5) as backend:
        said = await backend.until(lambda said: said.models)
        assert (said.slots, said.gpu_usd_per_hour, said.paced_seconds) == (6, 3.0, 7.0)
        assert [one.name for one in said.instances] == ["one:1", "two:2"]
        assert said.cards["m"].context_window == 1000


async def test_a_state_that_changes_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announcing, "ANNOUNCE_EVERY", 3600.0)
    async with announced(StandIn()) as backend:
        await backend.until(lambda said: said.instances[0].state is CircuitState.CLOSED)
        backend.state = CircuitState.OPEN
        await backend.until(lambda said: said.instances[0].state is CircuitState.OPEN, 2)
        assert len(backend.told) == 2


async def test_cards_follow_what_the_server_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announcing, "ASK_MODELS_EVERY", 0.1)
    monkeypatch.setattr(announcing, "ANNOUNCE_EVERY", 0.1)
    async with announced(StandIn()) as backend:
        await backend.until(lambda said: said.cards["m"].context_window == 1000)
        backend.said = {"m": ModelCard(context_window=2000), "n": ModelCard()}
        await backend.until(lambda said: said.models == ("m", "n"))
        assert backend.told[-1].cards["m"].context_window == 2000
        backend.said = None  # what it said stays true while it is away
        count = len(backend.told)
        await backend.until(lambda said: len(backend.told) > count + 5)
        assert backend.told[-1].models == ("m", "n")


async def test_configured_models_are_served_whether_or_not_the_backend_tells(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(announcing, "ASK_MODELS_EVERY", 0.1)
    monkeypatch.setattr(announcing, "ANNOUNCE_EVERY", 0.1)
    silent = StandIn()
    silent.said = None
    async with announced(silent, models=["mine", "m"]) as backend:
        said = await backend.until(lambda said: True)
        assert said.models == ("mine", "m")
        assert said.cards["m"].context_window is None
        backend.said = {"m": ModelCard(context_window=1000), "other": ModelCard()}
        said = await backend.until(lambda said: said.cards["m"].context_window == 1000)
        assert said.models == ("mine", "m")
        assert set(said.cards) == {"mine", "m"}


async def test_until_it_has_answered_it_serves_what_it_served_last() -> None:
    silent = StandIn()
    silent.said, silent.last = None, ("before",)
    async with announced(silent) as backend:
        assert (await backend.until(lambda said: True)).models == ("before",)


def test_azure_needs_the_names_of_its_deployments() -> None:
    azure = {"name": "az", "dialect": "azure", "kind": "cloud", "url": "https://x.openai.azure.com"}
    with pytest.raises(ConfigurationError, match="`models`"):
        check(Backend.model_validate(azure))
    check(Backend.model_validate({**azure, "models": ["my-deployment"]}))
