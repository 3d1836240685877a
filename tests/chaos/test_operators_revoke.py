"""An operator revokes a task with Celery's own tools, Flower's buttons among them: the job is cancelled."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from stack import Stack
from stand import wait_until


def revoke(stack: Stack, job: str, *words: str) -> None:
    program = f"from k9_workers.app import app; app.control.revoke({job!r}, terminate={'terminate' in words})"
    subprocess.run([sys.executable, "-c", program], env={**os.environ, **stack.env()}, check=True)


@pytest.mark.parametrize("how", ["queued", "running"])
def test_a_revoked_job_is_cancelled(own_stack: Stack, how: str) -> None:
    own_stack.fake.behave(latency_ms=60_000)
    jobs = [own_stack.submit(f"prompt {i}") for i in range(own_stack.slots + 1)]
    own_stack.fake.wait(lambda seen: seen["active"] == own_stack.slots)
    state = {job: own_stack.job(job)["state"] for job in jobs}
    victim = next(job for job in jobs if state[job] == how)
    revoke(own_stack, victim, *(["terminate"] if how == "running" else []))
    if how == "queued":  # Celery looks at a queued task when its turn comes
        other = next(job for job in jobs if state[job] == "running")
        revoke(own_stack, other, "terminate")
    wait_until(lambda: own_stack.job(victim)["state"] == "cancelled", "it is cancelled", 10)
