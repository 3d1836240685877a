"""Readers of a job's events that lose their connection again and again: each event, exactly once."""

from __future__ import annotations

import asyncio
import json
import random
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from k9_broker.testing import FakeServer
from raw_callers import RawCaller, Told
from stack import Child, Stack, ask
from stand import RedisProcess, free_port, wait_until

READERS, TOKENS, PER_SECOND = 12, 90, 30


@pytest.fixture(scope="module")
def twofold(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, list[Child], list[int]]]:
    """A K-9 with two API processes."""
    folder = tmp_path_factory.mktemp("twofold")
    stack = Stack(folder, RedisProcess(folder, free_port()).start(), FakeServer(), slots=4)
    stack.start_worker(probe_seconds=0)
    first = stack.start_api()
    ports = [stack.port, free_port()]
    env = {**stack.env(), "K9_API__PORT": str(ports[1])}
    second = Child("api-second", ["k9_api"], env, folder).start()
    try:
        stack.wait_ready()
        wait_until(lambda: alive(ports[1]), "the second API is ready", 30)
        yield stack, [first, second], ports
    finally:
        second.stop()
        stack.stop()


def alive(port: int) -> bool:
    return ask(f"http://127.0.0.1:{port}/readyz")[0] == 200


async def restless(path: str, ports: list[int], chance: random.Random) -> list[Told]:
    """Every event with an id, over as many connections as it takes; most are cut after a few events."""
    seen: list[Told] = []
    while not seen or seen[-1].name != "end":
        port, most = chance.choice(ports), chance.choice([0, 1, 2, 5, 11, 1000])
        after = {"last_event_id": seen[-1].id} if seen else {}
        try:
            caller = await RawCaller.ask(port, path, **after)
            status, _ = await caller.head()
        except (OSError, asyncio.IncompleteReadError):
            await asyncio.sleep(0.05)  # that API is away
            continue
        if status == 200:
            read = 0
            async for one in caller.told():
                if one.id:
                    seen.append(one)
                    read += 1
                if read >= most and chance.random() < 0.7:
                    break
        else:
            assert status == 503  # it cannot reach Redis yet
        chance.choice([caller.leave, caller.reset])()
    return seen


async def everything(path: str, port: int) -> list[Told]:
    caller = await RawCaller.ask(port, path)
    await caller.head()
    return [one async for one in caller.told() if one.id]


def stream(stack: Stack) -> str:
    body: dict[str, Any] = {"model": "fake-chat", "messages": [{"role": "user", "content": "hi"}]}
    stack.fake.behave(tokens_per_second=PER_SECOND, answer_tokens=TOKENS)
    reply = ask(
        f"{stack.url}/v1/jobs", {"endpoint": "/v1/chat/completions", "body": {**body, "stream": True}}
    )
    return f"/v1/jobs/{reply[2]['id']}/events"


@pytest.mark.parametrize("what_dies", ["nothing", "an API process", "every subscription"])
async def test_each_event_is_read_once_however_often_the_connection_is_lost(
    twofold: tuple[Stack, list[Child], list[int]], what_dies: str
) -> None:
    stack, apis, ports = twofold
    path = await asyncio.to_thread(stream, stack)
    async with asyncio.timeout(60):
        readers = [asyncio.create_task(restless(path, ports, random.Random(seed))) for seed in range(READERS)]
        await asyncio.to_thread(stack.fake.wait, lambda seen: seen["generated_tokens"] > TOKENS / 4)
        if what_dies == "an API process":
            await asyncio.to_thread(apis[0].stop, signal.SIGKILL)
            apis[0].start()
        if what_dies == "every subscription":
            stack.redis.client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        read = await asyncio.gather(*readers)
        await asyncio.to_thread(wait_until, lambda: alive(ports[0]), "both are there", 30)
    whole = await everything(path, ports[0])
    assert [one.name for one in whole] == ["running", *["chunk"] * (len(whole) - 2), "end"]
    texts = [json.loads(one.data)["choices"] for one in whole if one.name == "chunk"]
    assert sum(bool(choices and choices[0]["delta"].get("content")) for choices in texts) == TOKENS
    assert await everything(path, ports[1]) == whole
    assert read == [whole] * READERS
