"""Redis stops, is killed, or cuts everybody off: K-9 says so, loses nothing, and heals by itself."""

from __future__ import annotations

import pytest

from stack import Stack, ask
from stand import wait_until


def test_submissions_are_refused_clearly_and_work_again_when_redis_is_back(own_stack: Stack) -> None:
    own_stack.redis.stop()
    body = {"model": own_stack.model, "messages": [{"role": "user", "content": "hi"}]}
    status, headers, said = ask(f"{own_stack.url}/v1/chat/completions", body)
    assert status == 503
    assert said["error"]["code"] == "ledger_unavailable"
    assert 1 <= int(headers["retry-after"]) <= 60
    assert ask(f"{own_stack.url}/readyz")[0] == 503
    assert ask(f"{own_stack.url}/livez")[0] == 200
    own_stack.redis.start()
    wait_until(lambda: ask(f"{own_stack.url}/readyz")[0] == 200, "ready again", 15)
    own_stack.wait_ready()
    assert ask(f"{own_stack.url}/v1/chat/completions", body)[0] == 200


@pytest.mark.parametrize("kill", [False, True], ids=["restart", "kill"])
def test_jobs_in_flight_survive_a_redis_restart(own_stack: Stack, kill: bool) -> None:
    own_stack.fake.behave(latency_ms=3000)
    jobs = [own_stack.submit(f"prompt {i}") for i in range(40)]  # 32 run, 8 wait
    own_stack.fake.wait(lambda seen: seen["active"] == 32)
    own_stack.redis.stop(kill)
    own_stack.redis.start()
    assert own_stack.ended(jobs, 60) == {"succeeded": 40}
    assert own_stack.workers["w1"].alive
    # In-flight calls outlived the restart: nothing was called twice.
    assert own_stack.fake.stats()["inferences"] == 40


def test_cut_connections_do_not_run_jobs_twice(own_stack: Stack) -> None:
    own_stack.fake.behave(latency_ms=300)
    jobs = []
    for _ in range(6):
        jobs += [own_stack.submit(f"prompt {len(jobs) + i}") for i in range(20)]
        for kind in ("normal", "pubsub"):
            own_stack.redis.client.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
    assert own_stack.ended(jobs, 60) == {"succeeded": 120}
    assert own_stack.workers["w1"].alive
    assert own_stack.fake.stats()["inferences"] == 120


def test_a_waiting_caller_gets_its_answer_across_a_cut(own_stack: Stack) -> None:
    """The wake-up is lost with the subscription; the answer is not."""
    import threading

    own_stack.fake.behave(latency_ms=1500)
    answers: list[int] = []
    body = {"model": own_stack.model, "messages": [{"role": "user", "content": "hi"}]}
    callers = [
        threading.Thread(target=lambda: answers.append(ask(f"{own_stack.url}/v1/chat/completions", body)[0]))
        for _ in range(5)
    ]
    for caller in callers:
        caller.start()
    own_stack.fake.wait(lambda seen: seen["active"] == 5)
    own_stack.redis.client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    for caller in callers:
        caller.join(20)
    assert answers == [200] * 5
