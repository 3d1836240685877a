"""Redis is away for longer than a lease, and longer than one command is retried: no call is repeated."""

from __future__ import annotations

import time

import pytest

from stack import LEASE_SECONDS, Stack


@pytest.mark.parametrize(
    ("latency", "away"),
    [(12.0, LEASE_SECONDS + 4), (2.0, 25.0)],
    ids=["while calls are under way", "after their answers have come"],
)
def test_answers_outlive_the_outage(own_stack: Stack, latency: float, away: float) -> None:
    own_stack.fake.behave(latency_ms=int(latency * 1000))
    own_stack.start_worker("w2")
    own_stack.wait_ready(2)
    jobs = [own_stack.submit(f"prompt {i}") for i in range(40)]
    own_stack.fake.wait(lambda seen: seen["active"] == 40)
    own_stack.redis.stop()
    time.sleep(away)  # the length of the outage is what is tested
    own_stack.redis.start()
    assert own_stack.ended(jobs, 60) == {"succeeded": 40}
    assert own_stack.fake.stats()["inferences"] == 40
