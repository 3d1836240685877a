"""What a trace is replayed through: two local servers and a cloud, fakes of realistic speed, behind K-9.

Everything runs faster than life by `Scale.speed`, and one token on the wire stands for `Scale.grain`
tokens of the trace: two cores carry the requests of many, and what is counted in tokens (reading,
writing, money) stays in proportion. All seconds of this module are the trace's own.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from k9_broker.simulation.traces import Arrival
from k9_broker.testing import FakeServer
from stack import Stack, ask
from stand import RedisProcess, free_port

MODEL = "replayed"


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast one server is."""

    slots: int
    first: float
    """Seconds to the first token of an answer to nothing, network included."""
    per_prompt_token: float
    per_token: float

    def until_first(self, prompt_tokens: int) -> float:
        """Seconds to the first token where nobody else is."""
        return self.first + self.per_prompt_token * prompt_tokens


LOCAL = Speed(slots=8, first=0.05, per_prompt_token=0.0001, per_token=0.03)
"""Near to a model of 70 billion weights on two H100: NVIDIA's NIM documentation (performance of
Llama-3.3-70b-instruct, fp8, TP2, prompts of 5,000 tokens) has 0.4 s to the first token of a lone request, and
22 and 39 ms between tokens with 5 and 25 requests at once."""
CLOUD = Speed(slots=64, first=0.4, per_prompt_token=0.00005, per_token=0.012)
"""A hosted small model across the Internet."""
LOCALS = 2


@dataclass(frozen=True, slots=True)
class Prices:
    """US dollars. The cloud's are for a million tokens, as small hosted models are listed."""

    input: float = 0.4
    output: float = 1.6
    server_hour: float = 2.0
    """Of one local server, busy or not."""

    def cloud(self, arrival: Arrival) -> float:
        return (self.input * arrival.prompt_tokens + self.output * arrival.output_tokens) / 1e6


@dataclass(frozen=True, slots=True)
class Scale:
    """How the trace is made small enough for one machine."""

    speed: float = 5.0
    """Seconds of the trace in a real one."""
    grain: int = 8
    """Tokens of the trace that one token on the wire stands for."""

    def words(self, prompt_tokens: int) -> int:
        """Words to send for a prompt: the fake counts the role as one."""
        return max(1, round(prompt_tokens / self.grain) - 1)

    def tokens(self, output_tokens: int) -> int:
        """Tokens to ask for, so that the time between the first and the last one is right."""
        return 1 + round((output_tokens - 1) / self.grain)

    def behaviour(self, of: Speed, most: int) -> dict[str, Any]:
        """The fake's, with answers of up to `most` tokens of the trace."""
        return {
            "models": [MODEL],
            "slots": of.slots,
            "first_token_ms": 1000 * of.first / self.speed,
            "prompt_token_ms": 1000 * of.per_prompt_token * self.grain / self.speed,
            "tokens_per_second": self.speed / (of.per_token * self.grain),
            "answer_tokens": self.tokens(most),
            "context_tokens": 1_000_000,
        }


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for every way to serve a trace."""

    scale: Scale = Scale()
    prices: Prices = Prices()
    local: Speed = LOCAL
    overflow_wait: float = 3.0
    """K-9's mark: the seconds of estimated wait from which interactive jobs go on to the cloud."""
    own_queue: int = 8
    """How many wait at a local server before it refuses, where K-9 is not before it."""


@dataclass
class Ground:
    """The running servers, and K-9 before them."""

    stack: Stack
    locals: list[FakeServer]
    cloud: FakeServer
    parts: dict[str, psutil.Process] = field(default_factory=dict)

    def queue_of_their_own(self, most: int | None) -> None:
        """Let so many wait at each local server, which refuses more; `None`: any number."""
        for one in self.locals:
            one.behave(max_waiting=most)

    def cpu(self) -> Mapping[str, float]:
        """CPU seconds each part has used by now."""
        times = {name: one.cpu_times() for name, one in self.parts.items()}
        return {name: time.user + time.system for name, time in times.items()}

    def booked(self) -> float:
        """Dollars in K-9's own books."""
        status, _, said = ask(f"{self.stack.url}/v1/usage")
        if status != 200:
            raise RuntimeError(f"K-9 does not tell its books: {status} {said}")
        return float(said["total"]["cost_usd"])


@contextmanager
def standing(terms: Terms, most: int) -> Iterator[Ground]:
    """Redis, three fakes, a worker for the local servers and one for the cloud, the API.

    `most` is the tokens of the longest answer.
    """
    scale, prices, local = terms.scale, terms.prices, terms.local
    with TemporaryDirectory(prefix="k9-replay-") as name:
        folder = Path(name)
        redis = RedisProcess(folder, free_port()).start()
        fakes = [FakeServer(flavour="vllm", **scale.behaviour(local, most)) for _ in range(LOCALS)]
        cloud = FakeServer(flavour="openai", **scale.behaviour(CLOUD, most))
        stack = Stack(folder, redis, fakes[0])
        ground = Ground(stack, fakes, cloud)
        stack.extra |= {"K9_JOBS__LEASE_SECONDS": "6", "K9_ROUTING__STRATEGY": "cost-first"}
        try:
            instances = [{"url": one.url, "slots": local.slots} for one in fakes]
            stack.start_worker(
                "local", name="local", dialect="vllm", url="", instances=instances, cards=_cards(0, 0, scale),
                max_waiting=100_000, overflow_wait=terms.overflow_wait / scale.speed,
            )  # fmt: skip
            stack.extra["K9_BACKEND_ORDER"] = "1000"
            stack.start_worker(
                "cloud", name="cloud", kind="cloud", dialect="openai-compatible", url=cloud.url,
                slots=CLOUD.slots, cards=_cards(prices.input, prices.output, scale),
            )  # fmt: skip
            stack.start_api()
            stack.wait_ready()
            ground.parts = _parts(ground)
            yield ground
        finally:
            for fake in (*fakes[1:], cloud):
                fake.stop()
            stack.stop()


def _cards(input_usd: float, output_usd: float, scale: Scale) -> dict[str, Any]:
    prices = {"input_usd": input_usd * scale.grain, "output_usd": output_usd * scale.grain}
    return {MODEL: {"quality": 0.8, "context_window": 1_000_000, **prices}}


def _parts(ground: Ground) -> dict[str, psutil.Process]:
    stack = ground.stack
    children = {"API": stack.api, "Redis": stack.redis}
    children |= {f"worker {name}": worker for name, worker in stack.workers.items()}
    pids = {name: one.process.pid for name, one in children.items() if one and one.process}
    pids |= {f"fake {number}": one.pid for number, one in enumerate([*ground.locals, ground.cloud], 1)}
    return {name: psutil.Process(pid) for name, pid in pids.items()} | {"client": psutil.Process()}
