"""Workers are killed, frozen and told to leave; every job must end once, and within seconds."""

from __future__ import annotations

import signal

import pytest

from stack import LEASE_SECONDS, Stack, ask
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


def test_a_worker_told_to_leave_at_once_hands_its_jobs_back(own_stack: Stack) -> None:
    own_stack.fake.behave(latency_ms=60_000)
    jobs = [own_stack.submit(f"prompt {i}") for i in range(10)]
    running(own_stack, 10)
    own_stack.workers["w1"].stop(signal.SIGQUIT, seconds=8)
    wait_until(
        lambda: {own_stack.job(job)["state"] for job in jobs} == {"queued"}, "all jobs are queued again", 2
    )
    own_stack.fake.wait(lambda seen: seen["active"] == 0)  # the calls were closed
    own_stack.fake.behave(latency_ms=0)
    own_stack.start_worker("w2")
    assert own_stack.ended(jobs, 20) == {"succeeded": 10}
    assert {own_stack.job(job)["attempts"] for job in jobs} == {1}


def test_a_frozen_worker_is_fenced_when_it_wakes(own_stack: Stack) -> None:
    own_stack.fake.behave(latency_ms=500)
    frozen = own_stack.workers["w1"]
    jobs = [own_stack.submit(f"prompt {i}") for i in range(5)]
    running(own_stack, 5)
    frozen.send(signal.SIGSTOP)
    own_stack.start_worker("w2")
    assert own_stack.ended(jobs, SOON + 10) == {"succeeded": 5}
    finished_at = {job: own_stack.job(job)["ended_at"] for job in jobs}
    frozen.send(signal.SIGCONT)
    # It renews, learns that it lost its jobs, and must still be of use.
    own_stack.workers["w2"].stop(signal.SIGTERM)
    assert own_stack.ended([own_stack.submit("after the thaw")], 20) == {"succeeded": 1}
    assert {job: own_stack.job(job)["ended_at"] for job in jobs} == finished_at


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


@pytest.mark.timeout(180)
def test_nothing_is_lost_or_done_twice_while_workers_die(own_stack: Stack) -> None:
    """200 jobs over two workers, one of which is killed again and again."""
    own_stack.fake.behave(latency_ms=150)
    own_stack.start_worker("w2")
    own_stack.wait_ready(2)
    jobs = [own_stack.submit(f"prompt {i}") for i in range(200)]
    for kill in range(4):
        wait_until(lambda: own_stack.fake.stats()["active"] > 0, "work is going on", 20)
        victim = own_stack.workers[f"w{kill % 2 + 1}"]
        victim.stop(signal.SIGKILL)
        victim.start()
        jobs += [own_stack.submit(f"more {kill} {i}") for i in range(30)]
    assert own_stack.ended(jobs, 90) == {"succeeded": 320}
    status, _, queues = ask(f"{own_stack.url}/v1/queues")
    assert status == 200
    assert [(one["in_flight"], sum(one["waiting"].values())) for one in queues["data"]] == [(0, 0)]
