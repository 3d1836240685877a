"""Workers are killed and told to leave; every job must end within seconds."""

from __future__ import annotations

import signal

from stack import LEASE_SECONDS, Stack
from stand import wait_until

SOON = 3 * LEASE_SECONDS + 5
"""Seconds: a lease runs out, the reaper sweeps, another worker takes the job."""


def running(stack: Stack, count: int) -> None:
    stack.fake.wait(lambda seen: seen["active"] >= count, timeout=20)


def test_a_killed_workers_job_is_done_by_another_within_seconds(own_stack: Stack) -> None:
    own_stack.fake.behave(latency_ms=1500)
    first = own_stack.workers["w1"]
    job = own_stack.submit()
    running(own_stack, 1)
    own_stack.start_worker("w2")
    first.stop(signal.SIGKILL)
    assert own_stack.ended([job], SOON) == {"succeeded": 1}
    said = own_stack.job(job)
    assert said["attempts"] == 2
    assert said["worker"] == "k9-w2@test"


def test_a_lone_killed_worker_finds_its_jobs_again_when_it_is_restarted(own_stack: Stack) -> None:
    own_stack.fake.behave(latency_ms=1000)
    jobs = [own_stack.submit(f"prompt {i}") for i in range(20)]
    running(own_stack, 10)
    own_stack.workers["w1"].stop(signal.SIGKILL)
    own_stack.workers["w1"].start()
    assert own_stack.ended(jobs, SOON + 10) == {"succeeded": 20}


def test_a_worker_told_to_leave_finishes_what_is_short(own_stack: Stack) -> None:
    own_stack.fake.behave(latency_ms=1500)
    jobs = [own_stack.submit(f"prompt {i}") for i in range(10)]
    running(own_stack, 10)
    assert own_stack.workers["w1"].stop(signal.SIGTERM) == 0
    assert own_stack.ended(jobs, 1) == {"succeeded": 10}
    assert {own_stack.job(job)["attempts"] for job in jobs} == {1}


def test_a_job_that_kills_its_workers_becomes_a_dead_letter(own_stack: Stack) -> None:
    own_stack.fake.behave(latency_ms=60_000)
    job = own_stack.submit()
    for attempt in range(1, 4):
        wait_until(lambda n=attempt: own_stack.job(job)["attempts"] == n, f"attempt {attempt}", SOON + 10)
        running(own_stack, 1)
        own_stack.workers["w1"].stop(signal.SIGKILL)
        own_stack.workers["w1"].start()
    assert own_stack.ended([job], SOON + 10) == {"dead": 1}
    assert own_stack.job(job)["error"]["code"] == "worker_lost"
