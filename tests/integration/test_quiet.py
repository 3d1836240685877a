"""Prompts, answers and keys are where they must be and nowhere else."""

from __future__ import annotations

import base64
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from celery import Celery

from stack import Stack, ask
from stand import wait_until

PROMPT = "zebra-quartz-manifesto"
KEY = "sk-not-for-anybodys-eyes"


def everything_celery_keeps(stack: Stack) -> bytes:
    """All of Redis but K-9's own records and relays: queues, unacked, bindings, worker control."""
    client = stack.redis.client
    kept = b""
    for key in client.scan_iter():
        if key.startswith((b"k9:job:", b"k9:relay:")):
            continue
        kind = client.type(key)
        read = {
            b"list": lambda k: client.lrange(k, 0, -1),
            b"hash": client.hgetall,
            b"zset": lambda k: client.zrange(k, 0, -1),
            b"set": client.smembers,
            b"string": client.get,
        }[kind]
        kept += key + repr(read(key)).encode()
    bodies = re.findall(rb'"body": ?"([A-Za-z0-9+/=]+)"', kept)
    return kept + b"".join(base64.b64decode(body) for body in bodies)


@contextmanager
def listening(stack: Stack) -> Iterator[list[str]]:
    """Every Celery event while the block runs, as Flower would get it."""
    events: list[str] = []
    over = threading.Event()
    app = Celery("listener", broker=stack.redis.url, set_as_current=False)

    def listen() -> None:
        with app.connection_for_read() as connection:
            receiver = app.events.Receiver(connection, {"*": lambda event: events.append(repr(event))})
            while not over.is_set():
                with suppress(TimeoutError, OSError):
                    receiver.capture(limit=None, timeout=0.5, wakeup=False)

    thread = threading.Thread(target=listen)
    thread.start()
    wait_until(lambda: any("worker-heartbeat" in event for event in events), "events arrive")
    try:
        yield events
    finally:
        over.set()
        thread.join(10)


def test_no_prompt_answer_or_key_outside_the_record(own_stack: Stack) -> None:
    stack = own_stack
    body = {"model": stack.model, "messages": [{"role": "user", "content": f"{PROMPT} please"}]}
    headers = {"authorization": f"Bearer {KEY}"}
    with listening(stack) as events:
        status, _, said = ask(f"{stack.url}/v1/chat/completions", body, headers=headers)
        assert status == 200
        answer = said["choices"][0]["message"]["content"]
        assert len(answer) > 10
        for bad in (
            {**body, "messages": [{"role": "user", "content": {"text": PROMPT}}]},
            {**body, "model": "unknown", "user": PROMPT},
            {**body, "temperature": PROMPT},
        ):
            status, _, said = ask(f"{stack.url}/v1/chat/completions", bad, headers=headers)
            assert 400 <= status < 500
            assert PROMPT not in repr(said)
        stack.fake.behave(fail_next=1, error_status=400)
        assert ask(f"{stack.url}/v1/chat/completions", body, headers=headers)[0] == 400
        stack.fake.behave(latency_ms=5000)
        waiting = [stack.submit(PROMPT) for _ in range(stack.slots + 3)]
        stack.fake.wait(lambda seen: seen["active"] >= stack.slots)
        kept = everything_celery_keeps(stack)
        wait_until(lambda: sum("task-started" in event for event in events) >= stack.slots, "events")
    assert waiting[-1].encode() in kept  # the queued message is among what was read
    places = {
        "redis": kept,
        "events": "".join(events).encode(),
        "metrics": ask(f"{stack.url}/metrics")[2],
        "logs": b"".join(path.read_bytes() for path in Path(stack.folder).glob("*.log")),
    }
    for secret in (PROMPT, answer[:30], KEY):
        for name, text in places.items():
            assert secret.encode() not in text, f"{secret} in {name}"
    for job in waiting:
        ask(f"{stack.url}/v1/jobs/{job}", method="DELETE")
    wait_until(lambda: stack.fake.stats()["active"] == 0, "all calls were closed", 5)
