"""Redis stops, or cuts everybody off: K-9 says so, and heals by itself."""

from __future__ import annotations

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
