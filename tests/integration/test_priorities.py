"""A queue at its mark sends work on or says how long to wait."""

from __future__ import annotations

from stack import Stack, ask


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
