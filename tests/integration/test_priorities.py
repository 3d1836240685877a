"""Interactive jobs go first, and a queue at its mark sends work on or says how long to wait."""

from __future__ import annotations

from stack import Stack, ask


def test_an_interactive_job_passes_a_waiting_batch(own_stack: Stack) -> None:
    stack = own_stack
    stack.workers["w1"].stop()
    stack.start_worker("narrow", slots=2)
    stack.wait_ready(1)
    stack.fake.behave(latency_ms=200)
    batch = [stack.submit(f"line {i}", priority="batch") for i in range(30)]
    stack.fake.wait(lambda seen: seen["active"] == 2)
    urgent = [stack.submit(f"question {i}") for i in range(3)]
    assert stack.ended(urgent, 10) == {"succeeded": 3}
    last = max(stack.job(job)["ended_at"] for job in urgent)
    assert stack.ended(batch, 20) == {"succeeded": 30}
    after = [job for job in batch if (stack.job(job)["started_at"] or 0) > last]
    assert len(after) > 15
    assert stack.fake.stats()["max_active"] == 2


def test_a_full_backend_overflows_to_the_next_and_the_last_one_refuses(own_stack: Stack) -> None:
    stack = own_stack
    stack.workers["w1"].stop()
    stack.start_worker("first", name="first", slots=1, max_waiting=2)
    stack.start_worker("second", name="second", kind="cloud", slots=1, max_waiting=1)
    stack.wait_ready(2)
    stack.fake.behave(latency_ms=30_000)
    jobs: list[str] = []
    for count, (expected, active) in enumerate(
        [("first", 1), ("first", 1), ("first", 1), ("second", 2), ("second", 2)]
    ):
        jobs.append(stack.submit(f"prompt {count}"))
        said = stack.job(jobs[-1])
        assert said["backend"] == expected
        assert said["reason"] == ("task-type:local" if expected == "first" else "overflow:depth")
        stack.fake.wait(lambda seen, n=active: seen["active"] == n)  # type: ignore[misc]
    assert "first: overflow:depth" in said["skipped"]
    body = {"model": stack.model, "messages": [{"role": "user", "content": "one too many"}]}
    status, headers, refused = ask(f"{stack.url}/v1/chat/completions", body)
    assert (status, refused["error"]["code"]) == (503, "queue_full")
    assert 1 <= int(headers["retry-after"]) <= 60
    for job in jobs:
        ask(f"{stack.url}/v1/jobs/{job}", method="DELETE")
    stack.fake.behave(latency_ms=0)
    assert ask(f"{stack.url}/v1/chat/completions", body)[0] == 200
