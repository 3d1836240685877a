"""Of two workers of one backend one cannot reach the server: it leaves the jobs to the other."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from k9_broker.testing import FakeServer
from stack import Stack, ask
from stand import RedisProcess, free_port, wait_until


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    redis = RedisProcess(tmp_path, free_port()).start()
    started = Stack(tmp_path, redis, FakeServer(latency_ms=100, answer_tokens=2), slots=4)
    try:
        yield started
    finally:
        started.stop()
        started.fake.stop()


@pytest.mark.timeout(90)
def test_no_caller_hears_of_a_worker_that_is_cut_off(stack: Stack) -> None:
    stack.start_worker("w1", models=("fake-chat",))
    stack.start_worker("w2", models=("fake-chat",), url=f"http://127.0.0.1:{free_port()}", probe_seconds=0)
    stack.start_api()
    stack.wait_ready()
    body = {"model": "fake-chat", "messages": [{"role": "user", "content": "hello"}]}

    def call(number: int) -> int:
        return ask(f"{stack.url}/v1/chat/completions", {**body, "user": str(number)})[0]

    with ThreadPoolExecutor(12) as callers:
        assert set(callers.map(call, range(200))) == {200}

    def cut_off() -> bool:
        said = ask(f"{stack.url}/v1/queues")[2]["data"][0]
        return said["workers"] == 2 and said["slots"] == 4

    wait_until(cut_off, "the fleet knows")
    assert ask(f"{stack.url}/v1/queues")[2]["data"][0]["waiting"]["interactive"] == 0
