"""Readiness as real servers tell it, and a Redis that comes back as it was."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from pathlib import Path

import pytest
import redis

from k9_api.up.child import Backoff
from k9_api.up.plan import BackendServed, HttpOk, Process, Ready, RedisAnswers, Role
from k9_api.up.ready import Probe, Readiness
from k9_api.up.supervisor import Supervisor
from k9_broker.adapters.connect import Commands, connect
from k9_broker.adapters.embedded_redis import locate, private_redis
from k9_broker.adapters.redis_binary import installed
from k9_broker.adapters.redis_fleet import RedisFleet
from k9_broker.backends import Announcement
from k9_broker.requests import Kind, Operation

pytestmark = pytest.mark.skipif(not list(installed()), reason="no Redis server on this machine")


async def eventually_ready(probe: Probe, what: Ready, expected: Readiness) -> None:
    until = time.monotonic() + 15
    while (state := await probe.ask(what)) is not expected:
        assert time.monotonic() < until, f"it is {state}, not {expected}"
        await asyncio.sleep(0.02)


async def test_a_killed_redis_returns_with_its_data_port_and_password(tmp_path: Path) -> None:
    with locate(tmp_path, appendfsync="always") as server:
        process = Process(
            name="redis", role=Role.REDIS, argv=server.argv, env={}, ready=RedisAnswers(server.url)
        )
        async with Probe(server.url) as probe:
            up = Supervisor([process], tmp_path / "logs", probe, lambda line: None, Backoff(0.05, 0.2))
            async with up.running():
                with redis.Redis.from_url(server.url) as client:
                    client.set("kept", json.dumps({"a": 1}))
                before = up.children[0].pid
                assert before
                os.kill(before, signal.SIGKILL)
                while up.children[0].pid in (None, before):
                    await asyncio.sleep(0.01)
                await eventually_ready(probe, process.ready, Readiness.READY)
                with redis.Redis.from_url(server.url) as client:
                    assert client.get("kept") == b'{"a": 1}'


async def test_readiness_is_asked_for_not_assumed(tmp_path: Path) -> None:
    embedded = Announcement(
        node="k9-embedded@here",
        backend="embedded",
        kind=Kind.LOCAL,
        dialect="embedded",
        models=(),
        operations=(Operation.EMBEDDINGS,),
        slots=2,
        max_waiting=1,
        max_waiting_batch=1,
    )
    with private_redis(tmp_path) as server:
        served = BackendServed("embedded", server.url)
        async with Probe(server.url) as probe:
            assert await probe.ask(RedisAnswers(server.url)) is Readiness.READY
            assert await probe.ask(served) is Readiness.NOT
            commands = Commands(connect(server.url, retries=0))
            said = RedisFleet(commands)
            await said.announce(embedded)
            await eventually_ready(probe, served, Readiness.EMPTY)
            await said.announce(embedded.model_copy(update={"models": ("all-minilm-l6-v2",)}))
            await eventually_ready(probe, served, Readiness.READY)
            await said.withdraw(embedded.node)
            await eventually_ready(probe, served, Readiness.NOT)
            await commands.close()
            assert await probe.ask(HttpOk("http://127.0.0.1:1/readyz")) is Readiness.NOT
    async with Probe(server.url) as probe:
        assert await probe.ask(RedisAnswers(server.url)) is Readiness.NOT
        assert await probe.ask(served) is Readiness.NOT
