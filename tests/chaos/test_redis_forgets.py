"""Redis comes back without a job it had been given: who waits for it hears so, at once, and may ask again."""

from __future__ import annotations

import threading

import pytest

from k9_broker.adapters import keys
from stack import Stack, ask
from stand import wait_until


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_caller_whose_job_was_forgotten_is_told_so(own_stack: Stack, stream: bool) -> None:
    own_stack.fake.behave(latency_ms=60_000)
    body = {"model": own_stack.model, "messages": [{"role": "user", "content": "hi"}], "stream": stream}
    told: list[tuple[int, dict[str, str], object]] = []
    url = f"{own_stack.url}/v1/chat/completions"
    caller = threading.Thread(target=lambda: told.append(ask(url, body)))
    caller.start()
    own_stack.fake.wait(lambda seen: seen["active"] == 1)
    client = own_stack.redis.client
    for key in [*client.scan_iter(match=keys.job("*")), *client.scan_iter(match=keys.relay("*"))]:
        client.delete(key)
    client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")  # as a restart would
    caller.join(5)
    assert not caller.is_alive()
    [(status, headers, said)] = told
    if status != 200:
        assert (status, said["error"]["code"]) == (503, "ledger_unavailable")
        assert 1 <= int(headers["retry-after"]) <= 60
    else:
        assert b'"ledger_unavailable"' in said
    own_stack.fake.wait(lambda seen: seen["active"] == 0)  # nobody pays for it any more
    wait_until(lambda: ask(f"{own_stack.url}/readyz")[0] == 200, "all is well", 10)
