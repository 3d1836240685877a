"""While interactive jobs come, a worker's last slots stay free of batch jobs; alone, a batch has them all."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

import pytest

from k9_broker.serving import HOLD
from k9_broker.testing import FakeServer
from stack import Stack, ask
from stand import RedisProcess, free_port, wait_until

SLOTS, KEPT = 6, 2
PACE = {"tokens_per_second": 40, "answer_tokens": 16}
"""Of the fake: a batch job takes 0.4 s, an interactive one of a single token next to nothing."""


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A K-9 whose one worker has six slots and keeps two."""
    folder = tmp_path_factory.mktemp("narrow")
    redis = RedisProcess(folder, free_port(), fsync="always").start()
    stack = Stack(folder, redis, FakeServer(**PACE))
    stack.start_worker("narrow", slots=SLOTS, reserved_slots=KEPT)
    stack.start_api()
    try:
        yield stack.wait_ready()
    finally:
        stack.stop()


def urgent(stack: Stack) -> str:
    """An interactive job that ended well."""
    body = {"model": stack.model, "messages": [{"role": "user", "content": "now"}], "max_tokens": 1}
    status, headers, said = ask(f"{stack.url}/v1/chat/completions", body)
    assert status == 200, said
    return {key.lower(): value for key, value in headers.items()}["x-k9-job"]


def batch(stack: Stack, count: int) -> list[str]:
    return [stack.submit(f"line {number}", priority="batch") for number in range(count)]


def spans(stack: Stack, jobs: list[str]) -> list[tuple[float, float]]:
    """When each job began and ended, Unix seconds."""
    said: list[dict[str, Any]] = [stack.job(job) for job in jobs]
    assert {one["state"] for one in said} == {"succeeded"}
    return sorted((one["started_at"], one["ended_at"]) for one in said)


def running(taken: list[tuple[float, float]], at: float) -> int:
    return sum(began <= at < ended for began, ended in taken)


def pauses(taken: list[tuple[float, float]], slots: int) -> list[float]:
    """Seconds between the end of a batch job and the beginning of the one that took its slot."""
    ends = sorted(ended for _, ended in taken)
    return [began - ended for (began, _), ended in zip(taken[slots:], ends, strict=False)]


@contextmanager
def hanging(stack: Stack) -> Iterator[None]:
    """A batch whose jobs hold their slots until they are cancelled."""
    stack.fake.behave(hang=True)
    jobs = batch(stack, 2 * SLOTS)
    try:
        yield
    finally:
        for job in jobs:
            ask(f"{stack.url}/v1/jobs/{job}", method="DELETE")
        stack.fake.behave(hang=False)
        stack.fake.wait(lambda seen: seen["active"] == 0)


def test_a_batch_alone_has_every_slot_and_again_soon_after_interactive_jobs(narrow: Stack) -> None:
    with hanging(narrow):
        narrow.fake.wait(lambda seen: seen["active"] == SLOTS, timeout=HOLD + 5)
    urgent(narrow)
    came = time.monotonic()
    with hanging(narrow):
        narrow.fake.wait(lambda seen: seen["active"] == SLOTS - KEPT)  # and holds them
        narrow.fake.wait(lambda seen: seen["active"] == SLOTS, timeout=HOLD + 5)
        assert HOLD - 0.5 < time.monotonic() - came < HOLD + 2


def test_while_interactive_jobs_come_a_batch_leaves_the_kept_slots(narrow: Stack) -> None:
    calls = [urgent(narrow)]
    jobs = batch(narrow, 6 * SLOTS)
    while len(calls) < 12:
        calls.append(urgent(narrow))
    assert narrow.ended(jobs, 30) == {"succeeded": len(jobs)}
    taken, interactive = spans(narrow, jobs), spans(narrow, calls)
    beside = [began for began, _ in taken if began < interactive[-1][0] + HOLD]
    assert max(running(taken, began) for began in beside) == SLOTS - KEPT
    assert max(running(taken + interactive, began) for began in beside) == SLOTS - KEPT


def test_a_freed_slot_has_its_next_batch_job_at_once(narrow: Stack) -> None:
    """The worker waits for interactive jobs alone then, and none comes to end that wait."""
    urgent(narrow)
    jobs = batch(narrow, 8 * (SLOTS - KEPT))
    assert narrow.ended(jobs, 30) == {"succeeded": len(jobs)}
    taken = spans(narrow, jobs)
    assert max(running(taken, began) for began, _ in taken) == SLOTS - KEPT
    assert median(pauses(taken, SLOTS - KEPT)) < 0.1


def test_a_new_connection_is_ended_too_and_nothing_is_lost_with_the_old(narrow: Stack) -> None:
    urgent(narrow)
    jobs = batch(narrow, 4 * SLOTS)
    narrow.fake.wait(lambda seen: seen["active"] > 1)
    narrow.redis.stop(kill=True)
    narrow.redis.start()
    wait_until(lambda: ask(f"{narrow.url}/v1/queues")[0] == 200, "the API has Redis again")
    narrow.wait_ready(1)
    assert narrow.ended(jobs, 60) == {"succeeded": len(jobs)}
    urgent(narrow)
    jobs = batch(narrow, 6 * (SLOTS - KEPT))
    assert narrow.ended(jobs, 30) == {"succeeded": len(jobs)}
    assert median(pauses(spans(narrow, jobs), SLOTS - KEPT)) < 0.1


def test_where_redis_lets_nobody_end_the_wait_everything_still_runs(narrow: Stack) -> None:
    narrow.redis.client.execute_command("ACL", "SETUSER", "default", "-client|unblock")
    urgent(narrow)
    jobs = batch(narrow, 2 * SLOTS)
    assert narrow.ended(jobs, 30) == {"succeeded": len(jobs)}
    assert narrow.workers["narrow"].log.count("refuses CLIENT UNBLOCK") == 1
