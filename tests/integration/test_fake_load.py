"""The fake under load: prompts that take time to read, and a queue of its own that is full."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from fake_calls import CHAT, EMBED, NATIVE, STREAM, Call, ask, call, send
from k9_broker.testing import FakeServer

LONG: Call = call(messages=[{"role": "user", "content": "river " * 99}])


@pytest.mark.parametrize(("asked", "least"), [(LONG, 0.2), (STREAM, 0.006), (NATIVE, 0.006)])
def test_each_token_of_a_prompt_takes_time_to_read(fake: FakeServer, asked: Call, least: float) -> None:
    fake.behave(prompt_token_ms=2)
    began = time.perf_counter()
    assert ask(fake, asked)[0] == 200
    assert least <= time.perf_counter() - began < least + 1


def test_vectors_have_no_first_token(fake: FakeServer) -> None:
    fake.behave(prompt_token_ms=2000)
    began = time.perf_counter()
    assert ask(fake, EMBED)[0] == 200
    assert time.perf_counter() - began < 2


@pytest.mark.parametrize("flavour", ["plain", "vllm", "openai"])
def test_a_server_whose_queue_is_full_refuses(fake: FakeServer, flavour: str) -> None:
    fake.behave(flavour=flavour, slots=2, max_waiting=1, hang=True)
    taken = [send(fake, CHAT) for _ in range(3)]
    fake.wait(lambda stats: (stats["active"], stats["waiting"]) == (2, 1))
    status, _, data = ask(fake)
    assert (status, fake.stats()["rate_limited"]) == (429, 1)
    assert b"error" in data
    for link in taken:
        link.close()
    fake.wait(lambda stats: stats["active"] + stats["waiting"] == 0)


def test_whoever_finds_a_slot_is_not_refused(fake: FakeServer) -> None:
    fake.behave(slots=1, max_waiting=0)
    assert [ask(fake)[0] for _ in range(3)] == [200] * 3


def test_without_slots_nobody_waits_and_nobody_is_refused(fake: FakeServer) -> None:
    fake.behave(max_waiting=0, latency_ms=100)
    with ThreadPoolExecutor(4) as pool:
        assert {answer[0] for answer in pool.map(lambda _: ask(fake), range(4))} == {200}
