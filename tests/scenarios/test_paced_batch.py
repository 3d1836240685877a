"""A batch goes to a cloud with a rate limit at that rate, from two workers, without a storm of 429s."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from k9_broker.testing import FakeServer
from stack import Stack, ask
from stand import RedisProcess, free_port, wait_until

MODEL = "fake-chat"
PER_MINUTE = 1200
PRICE = {MODEL: {"input_usd": 1.0, "output_usd": 1.0}}


@pytest.fixture
def limited(tmp_path: Path) -> Iterator[Stack]:
    fake = FakeServer(flavour="openai", requests_per_minute=PER_MINUTE, rate_burst=2, answer_tokens=2)
    redis = RedisProcess(tmp_path, free_port()).start()
    stack = Stack(tmp_path, redis, fake, slots=8)
    try:
        yield stack
    finally:
        stack.stop()


def start(stack: Stack, **backend: Any) -> None:
    for node in ("c1", "c2"):
        stack.start_worker(
            node, name="cloud", kind="cloud", dialect="openai", models=(MODEL,), cards=PRICE, **backend
        )
    stack.start_api()
    stack.wait_ready()


@pytest.mark.timeout(150)
@pytest.mark.parametrize("known", [True, False], ids=["configured", "learned"])
def test_a_batch_keeps_the_pace_of_the_limit(limited: Stack, known: bool) -> None:
    start(limited, **({"requests_per_minute": PER_MINUTE} if known else {}))
    if not known:  # the headers of a few answers tell
        assert limited.ended([limited.submit(f"first {i}") for i in range(3)], 30) == {"succeeded": 3}
    before = limited.fake.stats()
    began = time.monotonic()
    jobs = [limited.submit(f"line {i}", priority="batch") for i in range(60)]
    assert limited.ended(jobs, 90) == {"succeeded": 60}
    took = time.monotonic() - began
    seen = limited.fake.stats()
    assert seen["rate_limited"] - before["rate_limited"] <= (2 if known else 12)
    assert took > 0.5 * 60 * 60 / PER_MINUTE, "the limit is the fake's own; nobody can be faster"
    assert took < 5 * 60 * 60 / PER_MINUTE


@pytest.mark.timeout(120)
def test_an_interactive_caller_goes_elsewhere_or_hears_when(limited: Stack) -> None:
    limited.fake.behave(requests_per_minute=6, rate_burst=1)
    start(limited, requests_per_minute=6)
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}]}
    statuses = [ask(f"{limited.url}/v1/chat/completions", body) for _ in range(3)]
    assert statuses[0][0] == 200
    late = statuses[-1]
    assert late[0] == 429, late
    assert late[2]["error"]["code"] == "rate_limit_exceeded"
    assert 1 <= int({name.lower(): value for name, value in late[1].items()}["retry-after"]) <= 60
    assert limited.fake.stats()["rate_limited"] == 0
    with FakeServer(answer_tokens=2) as other:
        limited.start_worker("here", name="other", url=other.url, models=(MODEL,))
        limited.wait_ready(3)

        def elsewhere() -> bool:
            status, headers, _ = ask(f"{limited.url}/v1/chat/completions", body)
            return status == 200 and {k.lower(): v for k, v in headers.items()}["x-k9-backend"] == "other"

        wait_until(elsewhere, "another backend with the model takes it", 20)
