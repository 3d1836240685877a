"""Backends are killed under load: while another candidate lives, no caller hears of it."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
import pytest

from k9_broker.testing import FakeServer
from stack import Stack, ask
from stand import RedisProcess, free_port, wait_until

MODEL = "fake-chat"


@dataclass
class Fleet(Stack):
    """Two instances of a backend here (`gpu`) and one in a cloud (`cloud`), with the same model."""

    fakes: dict[str, FakeServer] = field(default_factory=dict)
    behaviour: dict[str, Any] = field(default_factory=dict)

    def start_all(self, **gpu: Any) -> Fleet:
        here = [{"url": self.fakes[name].url, "slots": self.slots} for name in ("one", "two")]
        self.gpu = {
            "name": "gpu",
            "url": "",
            "instances": here,
            "probe_seconds": 0.5,
            "models": (MODEL,),
            **gpu,
        }
        self.start_worker("gpu", **self.gpu)
        self.start_worker(
            "cloud", name="cloud", kind="cloud", url=self.fakes["cloud"].url, models=(MODEL,),
            cards={MODEL: {"input_usd": 1.0, "output_usd": 1.0}},
        )  # fmt: skip
        self.start_api()
        self.wait_ready()
        return self

    def kill(self, name: str) -> None:
        self.fakes[name]._process.kill()
        self.fakes[name]._process.wait()

    def revive(self, name: str) -> None:
        port = self.fakes[name].port
        self.fakes[name].stop()
        self.fakes[name] = FakeServer(port=port, **self.behaviour)

    def backends(self, jobs: list[str]) -> Counter[str]:
        return Counter(self.job(job)["backend"] for job in jobs)

    def where(self) -> str:
        """Which backend answers a call now; empty when none does."""
        body = {"model": MODEL, "messages": [{"role": "user", "content": "where?"}]}
        status, headers, _ = ask(f"{self.url}/v1/chat/completions", body)
        return (
            {name.lower(): value for name, value in headers.items()}["x-k9-backend"] if status == 200 else ""
        )

    def stop(self) -> None:
        try:
            super().stop()
        finally:
            for fake in self.fakes.values():
                fake.stop()


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    behaviour = {"latency_ms": 40, "answer_tokens": 4}
    fakes = {name: FakeServer(**behaviour) for name in ("one", "two", "cloud")}
    redis = RedisProcess(tmp_path, free_port()).start()
    started = Fleet(tmp_path, redis, fakes["one"], slots=4, fakes=fakes, behaviour=behaviour)
    try:
        yield started
    finally:
        started.stop()


@dataclass
class Callers:
    """Official clients that call without a pause, plain and streamed in turn, and never retry."""

    url: str
    answers: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def run(self, number: int) -> None:
        client = openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=60)
        with client:
            while not self.over.is_set():
                number += 1
                try:
                    self.answers[self.call(client, number, streamed=bool(number % 2))] += 1
                except Exception as problem:
                    self.failures.append(f"{type(problem).__name__}: {problem}")

    def call(self, client: openai.OpenAI, number: int, *, streamed: bool) -> str:
        asked: Any = {"model": MODEL, "messages": [{"role": "user", "content": f"call {number}"}]}
        raw = client.chat.completions.with_raw_response.create(**asked, stream=streamed)
        backend, answer = raw.headers["x-k9-backend"], raw.parse()
        if streamed:
            ends = [choice.finish_reason for chunk in answer for choice in chunk.choices]
            assert ends[-1] == "stop"
        else:
            assert answer.choices[0].message.content
        return backend


@pytest.mark.timeout(180)
def test_no_call_fails_while_another_candidate_lives(fleet: Fleet) -> None:
    fleet.start_all()
    callers = Callers(fleet.url)
    threads = [threading.Thread(target=callers.run, args=(i * 1000,)) for i in range(8)]
    for thread in threads:
        thread.start()

    def answered(backend: str, more: int) -> None:
        target = callers.answers[backend] + more
        wait_until(lambda: callers.answers[backend] >= target or callers.failures, f"{backend} answers", 60)

    try:
        answered("gpu", 60)
        fleet.kill("one")
        answered("gpu", 60)  # the other instance has it all
        fleet.kill("two")
        answered("cloud", 60)
        fleet.revive("one")
        answered("gpu", 60)
        fleet.kill("cloud")
        answered("gpu", 60)
    finally:
        callers.over.set()
        for thread in threads:
            thread.join(60)
    assert callers.failures == []
    assert min(callers.answers["gpu"], callers.answers["cloud"]) > 100


@pytest.mark.timeout(120)
def test_a_job_that_went_on_says_so(fleet: Fleet) -> None:
    fleet.start_all()
    fleet.fakes["one"].behave(error_status=503, error_rate=1.0)
    fleet.fakes["two"].behave(error_status=503, error_rate=1.0)
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}], "stream": True}
    for streamed in (True, False):
        status, headers, answer = ask(f"{fleet.url}/v1/chat/completions", {**body, "stream": streamed})
        said = {name.lower(): value for name, value in headers.items()}
        assert status == 200, answer
        assert (said["x-k9-backend"], said["x-k9-kind"]) == ("cloud", "cloud")
        assert said["x-k9-reason"] in ("failover:backend_overloaded", "failover:circuit_open")
        job = fleet.job(said["x-k9-job"])
        assert any(line.startswith("gpu: failed:") for line in job["skipped"]), job["skipped"]
    wait_until(lambda: _down(fleet) == "circuit-open", "routing knows that gpu is down")
    before = fleet.fakes["one"].stats()["inferences"]
    assert fleet.where() == "cloud"
    assert fleet.fakes["one"].stats()["inferences"] <= before + 1  # a probe, perhaps


def _down(fleet: Fleet) -> str:
    _, _, said = ask(f"{fleet.url}/v1/queues")
    return str(next(one for one in said["data"] if one["backend"] == "gpu").get("down"))


@pytest.mark.timeout(120)
def test_one_call_causes_no_storm(fleet: Fleet) -> None:
    """The SDK retries, the instances, the backends: together no more than the configured calls."""
    fleet.start_all(probe_seconds=0)
    for fake in fleet.fakes.values():
        fake.behave(error_status=500, error_rate=1.0)
        fake.wait(lambda seen: True)
    before = sum(fake.stats()["inferences"] for fake in fleet.fakes.values())
    client = openai.OpenAI(base_url=f"{fleet.url}/v1", api_key="none")
    with client, pytest.raises(openai.InternalServerError) as failed:
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "hello"}])
    assert failed.value.response.headers["x-should-retry"] == "false"
    assert sum(fake.stats()["inferences"] for fake in fleet.fakes.values()) - before <= 3


@pytest.mark.timeout(180)
@pytest.mark.parametrize("how", ["worker", "server"])
def test_waiting_jobs_move_on_within_seconds_and_come_back(fleet: Fleet, how: str) -> None:
    fleet.start_all()
    for name in ("one", "two"):
        fleet.fakes[name].behave(latency_ms=60_000)
    fleet.fakes["cloud"].behave(latency_ms=2_000)
    jobs = [fleet.submit(f"job {i}") for i in range(24)]
    assert fleet.backends(jobs) == {"gpu": 24}
    wait_until(lambda: fleet.fakes["two"].stats()["active"] >= 4, "gpu works on some")
    began = time.monotonic()
    if how == "worker":
        fleet.workers["gpu"].stop(signal.SIGKILL)
    else:
        fleet.kill("one")
        fleet.kill("two")
    wait_until(lambda: fleet.backends(jobs)["cloud"] >= 24, "all have moved on", 30)
    assert time.monotonic() - began < 25
    moved = [fleet.job(job) for job in jobs]
    assert {job["reason"].partition(":")[0] for job in moved} == {"failover"}
    fleet.fakes["cloud"].behave(latency_ms=60_000)
    if how == "worker":
        for name in ("one", "two"):
            fleet.fakes[name].behave(latency_ms=10)
        fleet.start_worker("gpu", **fleet.gpu)
    else:
        fleet.revive("one")
        fleet.revive("two")

    def returned() -> bool:
        states = [fleet.job(job) for job in jobs]
        return sum(job["backend"] == "gpu" and job["state"] == "succeeded" for job in states) >= 8

    wait_until(returned, "what still waited came back and was done", 60)
    back = [job for job in map(fleet.job, jobs) if job["backend"] == "gpu"]
    assert {job["reason"] for job in back} == {"returned:recovered"}
