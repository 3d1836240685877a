"""Callers hang up, subscriptions break, and workers die in the middle of a stream."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import groupby
from statistics import median
from typing import Any

import pytest

from hazards.counted import kinds
from k9_broker.adapters import keys
from k9_broker.adapters.connect import Commands, connect
from k9_broker.adapters.redis_ledger import RedisLedger
from k9_broker.adapters.redis_relay import RedisRelayWriter
from k9_broker.adapters.redis_wake import RedisRelayReader
from stack import Stack, ask
from stand import RedisProcess, wait_until
from walks import admit, chat, claim, succeed

HELLO = [{"role": "user", "content": "hello"}]


# -- 5: a caller hangs up ---------------------------------------------------------------------------


@contextmanager
def asking(stack: Stack, **more: Any) -> Iterator[socket.socket]:
    """A caller's connection, on which a call is under way."""
    body = json.dumps({"model": stack.model, "messages": HELLO, **more}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: k9\r\ncontent-length: {len(body)}\r\n"
    with socket.create_connection(("127.0.0.1", stack.port)) as connection:
        connection.sendall(f"{head}content-type: application/json\r\n\r\n".encode() + body)
        yield connection


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_hazard_05_whoever_hangs_up_ends_the_call_and_no_other(steady: Stack, stream: bool) -> None:
    """Within a tenth of a second, on a machine that has time; renewal or the reaper would need many."""
    steady.fake.behave(tokens_per_second=10, answer_tokens=5000)
    took: list[float] = []
    with ExitStack() as neighbours:
        others = [neighbours.enter_context(asking(steady, stream=True)) for _ in range(3)]
        steady.fake.wait(lambda seen: seen["active"] == 3)
        for number in range(1, 6):
            with asking(steady, stream=stream):
                steady.fake.wait(lambda seen: seen["active"] == 4)
                hung_up = time.monotonic()
            steady.fake.wait(lambda seen, n=number: seen["disconnects"] == n)  # type: ignore[misc]
            took.append(time.monotonic() - hung_up)
        for other in others:
            other.settimeout(5)
            while b"data: " not in other.recv(65536):
                pass
        assert steady.fake.stats()["active"] == 3
    steady.fake.wait(lambda seen: seen["active"] == 0)
    assert min(took) < 0.1, took
    assert median(took) < 0.5, took


# -- 13: a gap in the subscription, and another attempt ---------------------------------------------


async def test_hazard_13_what_was_said_while_the_subscription_was_gone_is_read_when_it_is_back(
    clean_redis: RedisProcess, commands: Commands, ledger: RedisLedger
) -> None:
    """The job is admitted for nobody, so that no later wake-up can make good a lost one."""
    client = clean_redis.client
    reader = RedisRelayReader(connect(clean_redis.url, retries=0, connections=2), commands)
    writer = RedisRelayWriter(commands, lambda _: pytest.fail("the claim holds"))
    claimed = await claim(ledger, await admit(ledger, chat(stream=True)))
    relay = keys.relay(claimed.job.id)

    async def written(kind: bytes, count: int) -> None:
        while Counter(fields[b"kind"] for _, fields in client.xrange(relay))[kind] < count:
            await asyncio.sleep(0.01)

    async def cut() -> None:
        while not client.execute_command("CLIENT", "KILL", "TYPE", "pubsub"):
            await asyncio.sleep(0.01)

    reader.start()
    try:
        async with asyncio.timeout(6), reader.follow(claimed.job.id) as follower:
            events = follower.events()
            assert (await anext(events)).kind == "running"
            for number in range(3):
                later = asyncio.create_task(anext(events))
                await asyncio.sleep(0)
                writer.send(claimed, {"choices": [number]})
                await written(b"chunk", number + 1)
                await cut()
                assert (await later).data == {"choices": [number]}
            later = asyncio.create_task(anext(events))
            await asyncio.sleep(0)
            await writer.drain(claimed)
            await succeed(ledger, claimed)
            await cut()
            assert (await later).kind == "end"
    finally:
        await writer.close()
        await reader.close()


def frames(raw: bytes) -> list[dict[str, str]]:
    """The fields of each server-sent event."""
    parts = raw.decode().split("\n\n")
    rows = [[line.partition(": ") for line in part.splitlines() if line[:1] != ":"] for part in parts]
    return [{name: value for name, _, value in row} for row in rows if row]


def text(chunks: list[dict[str, Any]]) -> str:
    return "".join(one["delta"].get("content") or "" for chunk in chunks for one in chunk.get("choices", ()))


def test_hazard_13_a_stream_over_cut_subscriptions_is_whole(steady: Stack) -> None:
    body = {"model": steady.model, "messages": HELLO, "max_tokens": 40}
    steady.fake.behave(answer_tokens=40)
    whole = ask(f"{steady.url}/v1/chat/completions", body)[2]["choices"][0]["message"]["content"]
    steady.fake.behave(tokens_per_second=25)
    over = threading.Event()

    def cut() -> None:
        while not over.wait(0.15):
            steady.redis.client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")

    cutter = threading.Thread(target=cut)
    cutter.start()
    try:
        status, _, raw = ask(f"{steady.url}/v1/chat/completions", {**body, "stream": True})
    finally:
        over.set()
        cutter.join()
    *chunks, last = [one["data"] for one in frames(raw)]
    assert (status, last) == (200, "[DONE]")
    assert text([json.loads(chunk) for chunk in chunks]) == whole


def test_hazard_13_another_attempt_begins_the_stream_anew(pair: Stack) -> None:
    """Whoever reads events is told, and has the whole answer after it; a caller who has read half an answer
    is told that it will not be whole, and gets no second beginning."""
    stack, url = pair, f"{pair.url}/v1/chat/completions"
    body = {"model": stack.model, "messages": HELLO, "max_tokens": 60}
    stack.fake.behave(answer_tokens=60)
    whole = ask(url, body)[2]["choices"][0]["message"]["content"]
    stack.fake.behave(tokens_per_second=20)
    job = stack.submit(body={**body, "stream": True})
    with ThreadPoolExecutor(2) as threads:
        caller = threads.submit(ask, url, {**body, "stream": True})
        events = threads.submit(ask, f"{stack.url}/v1/jobs/{job}/events")
        stack.fake.wait(lambda seen: seen["active"] == 2)
        wait_until(lambda: kinds(stack, job).count("chunk") > 5, "the answer has begun")
        for child in stack.workers.values():
            child.stop(signal.SIGKILL)
            child.start()
        *chunks, last = [json.loads(one["data"]) for one in frames(caller.result()[2])]
        told = frames(events.result()[2])
    assert last["error"]["code"] == "stream_interrupted"
    assert 0 < len(text(chunks)) < len(whole)
    assert whole.startswith(text(chunks))
    said = [one for one in told if one["event"] != "queued"]
    order = [kind for kind, _ in groupby(one["event"] for one in said)]
    assert order == ["running", "chunk", "restart", "running", "chunk", "end"]
    again = [one["event"] for one in said].index("restart")
    assert text([json.loads(one["data"]) for one in said[again:]]) == whole
    assert json.loads(said[again]["data"])["generation"] == 2
