"""The simulator against the real stack: the same requests through both, and what came of them.

Real: Redis, the API, two workers, three fake backends, about two hundred requests in a dozen seconds, twice
what the local servers can serve. The simulator is told nothing of the run but how long K-9 itself
held a slot around a call, which depends on how busy the machine is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import aiohttp
import pytest

from k9_broker.simulation.arriving import Coming, arriving
from k9_broker.simulation.report import Report
from k9_broker.simulation.run import simulate
from k9_broker.simulation.scenario import Machine, Scenario, Traffic
from k9_broker.testing import FakeServer
from stack import Stack
from stand import RedisProcess, free_port, wait_until

MODEL = "simulated"
LOCAL = Machine(
    instances=2, slots=2, first=0.1, per_token=0.02, overflow_wait=0.8, max_waiting=100_000, quality=0.8
)
CLOUD = Machine(kind="cloud", slots=64, first=0.4, per_token=0.01, input_usd=0.4, output_usd=1.6, quality=0.8)
SCENARIO = Scenario(
    seed=5,
    exact=True,
    backends={"local": LOCAL, "cloud": CLOUD},
    traffic={
        name: Traffic(
            arrivals="poisson", rate=8, seconds=13, prompt_tokens=prompt, output_tokens=output,
            tells_output=True, task_type="chat",
        )
        for name, prompt, output in (("short", 100, 15), ("long", 30, 35))
    },
)  # fmt: skip


def fake(machine: Machine, flavour: str, most: int) -> FakeServer:
    """A server as fast as the machine, with answers of up to so many tokens."""
    return FakeServer(
        flavour=flavour, models=[MODEL], slots=machine.slots, first_token_ms=1000 * machine.first,
        tokens_per_second=1 / machine.per_token, answer_tokens=most, context_tokens=1_000_000,
    )  # fmt: skip


@contextmanager
def standing(folder: Path, most: int) -> Iterator[Stack]:
    """The scenario's fleet for real."""
    redis = RedisProcess(folder, free_port()).start()
    fakes = [fake(LOCAL, "vllm", most) for _ in range(LOCAL.instances)]
    cloud = fake(CLOUD, "openai", most)
    stack = Stack(folder, redis, cloud, model=MODEL)
    stack.extra |= {"K9_JOBS__LEASE_SECONDS": "20", "K9_ROUTING__STRATEGY": SCENARIO.routing.strategy}
    try:
        instances = [{"url": one.url, "slots": LOCAL.slots} for one in fakes]
        marks = {"max_waiting": LOCAL.max_waiting, "overflow_wait": LOCAL.overflow_wait}
        stack.start_worker(
            "local", name="local", dialect="vllm", url="", instances=instances, cards=card(LOCAL), **marks
        )
        stack.extra["K9_BACKEND_ORDER"] = "1000"
        stack.start_worker(
            "cloud", name="cloud", kind="cloud", dialect="openai-compatible", url=cloud.url,
            slots=CLOUD.slots, cards=card(CLOUD),
        )  # fmt: skip
        stack.start_api()
        yield stack.wait_ready()
    finally:
        for one in fakes:
            one.stop()
        stack.stop()


def card(machine: Machine) -> dict[str, Any]:
    prices = {"input_usd": machine.input_usd, "output_usd": machine.output_usd}
    return {MODEL: {"quality": machine.quality, "context_window": 1_000_000, **prices}}


@dataclass(frozen=True)
class Real:
    """What became of one request in the real stack."""

    job: str
    kind: str
    reason: str
    waited: float
    usd: float
    due: Coming


async def play(stack: Stack, coming: Sequence[Coming]) -> list[Real]:
    """Each request at its time, whole answers."""
    loop = asyncio.get_running_loop()
    began = loop.time() + 0.2

    async def ask(session: aiohttp.ClientSession, one: Coming) -> Real:
        await asyncio.sleep(began + one.at - loop.time())
        words = " ".join(["word"] * max(1, one.prompt_tokens - 1))
        body: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": words}]}
        body["max_tokens"] = one.output_tokens
        url = f"{stack.url}/v1/chat/completions"
        async with session.post(url, json=body, headers={"x-k9-task-type": "chat"}) as reply:
            assert reply.status == 200, await reply.text()
            said = reply.headers
            return Real(
                said["x-k9-job"], said["x-k9-kind"], said["x-k9-reason"],
                float(said["x-k9-queue-seconds"]), float(said["x-k9-cost-usd"]), one,
            )  # fmt: skip

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        return list(await asyncio.gather(*(ask(session, one) for one in coming)))


def way(stack: Stack, real: Sequence[Real]) -> float:
    """Seconds a slot was held beyond what the fakes take."""
    beyond = []
    for one in real:
        job = stack.job(one.job)
        machine = LOCAL if one.kind == "local" else CLOUD
        nominal = machine.first + machine.per_token * (one.due.output_tokens - 1)
        beyond.append(job["ended_at"] - job["started_at"] - nominal)
    return max(0.0, fmean(beyond))


@dataclass(frozen=True)
class Both:
    real: list[Real]
    simulated: Report


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Both:
    coming = list(arriving(SCENARIO))
    most = max(one.output_tokens for one in coming)
    with standing(tmp_path_factory.mktemp("matched"), most) as stack:
        real = asyncio.run(play(stack, coming))
        wait_until(lambda: stack.job(real[-1].job)["ended_at"], "the last job is recorded")
        held = way(stack, real)
    return Both(real, simulate(SCENARIO.model_copy(update={"way": held})))


def test_everything_is_served_in_both(both: Both) -> None:
    assert both.simulated.total.served == both.simulated.total.requests == len(both.real)


def test_as_much_overflows(both: Both) -> None:
    real = fmean(one.kind == "cloud" for one in both.real)
    assert 0.1 < real < 0.7
    assert both.simulated.total.cloud == pytest.approx(real, abs=0.1)
    overflowed = fmean(one.reason.startswith("overflow:") for one in both.real)
    assert both.simulated.total.overflowed == pytest.approx(overflowed, abs=0.1)


def test_they_wait_as_long(both: Both) -> None:
    real = fmean(one.waited for one in both.real)
    assert real / 1.5 - 0.05 < both.simulated.total.wait_mean < real * 1.5 + 0.05


def test_it_costs_as_much(both: Both) -> None:
    assert both.simulated.total.cloud_usd == pytest.approx(sum(one.usd for one in both.real), rel=0.15)
