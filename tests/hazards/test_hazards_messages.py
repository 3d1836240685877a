"""The message that wakes a worker: one copy, Celery's own shape, and whatever else rides on it."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from celery import Celery

from k9_broker.adapters import keys
from k9_broker.adapters.connect import Commands, connect
from k9_broker.adapters.redis_ledger import RedisLedger
from k9_broker.jobs import Job
from stack import Stack, ask
from stand import JOBS, RedisProcess, wait_until
from tiny_server import Exchange, chat, serving
from walks import admit

QUEUE = "k9.local.a.interactive"


# -- 6: a lost reply --------------------------------------------------------------------------------


class Lossy:
    """Stands between a client and Redis. Once armed, the next commands reach Redis, but their replies are
    lost with the connection."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.armed = False
        self.lost = 0

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_redis, to_redis = await asyncio.open_connection("127.0.0.1", self._port)
        silent = asyncio.Event()

        async def ask() -> None:
            while data := await reader.read(65536):
                if self.armed:
                    self.armed = False
                    silent.set()
                to_redis.write(data)

        async def answer() -> None:
            while data := await from_redis.read(65536):
                if not silent.is_set():
                    writer.write(data)
                    continue
                self.lost += 1
                with suppress(TimeoutError):  # until Redis has answered all of it
                    while await asyncio.wait_for(from_redis.read(65536), 0.2):
                        pass
                return

        pumps = [asyncio.ensure_future(ask()), asyncio.ensure_future(answer())]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            writer.transport.abort()
            to_redis.close()


@asynccontextmanager
async def lossy(redis: RedisProcess) -> AsyncIterator[tuple[Lossy, Commands]]:
    between = Lossy(redis.port)
    listening = await asyncio.start_server(between.connected, "127.0.0.1")
    port = listening.sockets[0].getsockname()[1]
    commands = Commands(connect(f"redis://127.0.0.1:{port}/0", retries=3))
    try:
        yield between, commands
    finally:
        await commands.close()
        listening.close()


@pytest.mark.parametrize("count", [1, 60], ids=["alone", "many at once"])
async def test_hazard_06_a_lost_reply_to_an_admission_makes_one_copy(
    clean_redis: RedisProcess, count: int
) -> None:
    """The client sends again what it got no reply to: a plain push stands in its list twice."""
    client = clean_redis.client
    async with lossy(clean_redis) as (between, commands):
        ledger = RedisLedger(commands, JOBS)
        first = await admit(ledger)  # from now on Redis knows the script
        between.armed = True
        await commands.command("LPUSH", "plain", "x")
        assert (between.lost, client.llen("plain")) == (1, 2), "the hazard is there"
        between.armed = True
        jobs: list[Job] = [first, *await asyncio.gather(*(admit(ledger) for _ in range(count)))]
        assert between.lost == 2
    taken = [json.loads(message)["headers"]["id"] for message in client.lrange(QUEUE, 0, -1)]
    assert sorted(taken) == sorted(job.id for job in jobs)
    assert client.zcard(keys.waiting(QUEUE)) == client.zcard(keys.DEADLINES) == len(jobs)


# -- 7: the envelope --------------------------------------------------------------------------------


async def test_hazard_07_what_admission_pushes_is_what_send_task_would_have(
    clean_redis: RedisProcess, ledger: RedisLedger
) -> None:
    job = await admit(ledger)
    mine = json.loads(clean_redis.client.rpop(QUEUE))
    Celery("stock", broker=clean_redis.url, set_as_current=False).send_task(
        "k9.chat", (job.id, 1), task_id=job.id, queue=QUEUE, ignore_result=True,
        argsrepr=mine["headers"]["argsrepr"], kwargsrepr=mine["headers"]["kwargsrepr"],
    )  # fmt: skip
    stock = json.loads(clean_redis.client.rpop(QUEUE))
    assert json.loads(base64.b64decode(mine.pop("body"))) == json.loads(base64.b64decode(stock.pop("body")))
    for one in (mine, stock):
        one["headers"].pop("origin")
        assert one["properties"].pop("delivery_tag")
        for leaked in ("reply_to", "argsrepr", "kwargsrepr"):  # send_task repeats its options here
            one["properties"].pop(leaked, None)
    assert mine == stock


APP = """
import asyncio, os
from contextvars import ContextVar

import redis
from celery import Celery
from celery.signals import task_prerun

from k9_workers.pool import AsyncTask

trace = ContextVar("trace")
app = Celery("traced", broker=os.environ["BROKER"])
app.conf.update(worker_prefetch_multiplier=1, worker_disable_prefetch=True)

@task_prerun.connect
def begin(task, **_):
    trace.set(task.request.get("traceparent") or "none")

@app.task(base=AsyncTask, name="k9.chat")
async def chat(job_id, generation):
    await asyncio.sleep(0.05)
    redis.Redis.from_url(os.environ["BROKER"]).rpush("seen", f"{job_id} {generation} {trace.get()}")
"""


@contextmanager
def worker(redis: RedisProcess, folder: Path, pool: str) -> Iterator[None]:
    """A worker of the installed Celery that takes K-9's messages."""
    (folder / "traced.py").write_text(APP)
    process = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "traced", "worker", "-P", pool, "-c", "8", "-Q", QUEUE],
        cwd=folder,
        env={**os.environ, "BROKER": redis.url, "CELERY_CUSTOM_WORKER_POOL": "k9_workers.pool:TaskPool"},
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)


def seen(redis: RedisProcess, count: int) -> list[str]:
    wait_until(lambda: redis.client.llen("seen") >= count, "the tasks ran", 40)
    return sorted(one.decode() for one in redis.client.lrange("seen", 0, -1))


@pytest.mark.timeout(60)
async def test_hazard_07_a_stock_worker_runs_it(
    clean_redis: RedisProcess, ledger: RedisLedger, tmp_path: Path
) -> None:
    jobs = [await admit(ledger) for _ in range(3)]
    with worker(clean_redis, tmp_path, "solo"):
        assert await asyncio.to_thread(seen, clean_redis, 3) == sorted(f"{job.id} 1 none" for job in jobs)
        wait_until(lambda: not clean_redis.client.hlen("unacked"), "the messages were acknowledged")


# -- 16: traces -------------------------------------------------------------------------------------
# K-9 sends no traces of its own yet. What would carry one through the queue is there: headers beside its
# own, the context of Celery's signals, aiohttp's hooks, and one id from the answer to the message.


def trace(number: int) -> str:
    return f"00-{number:032x}-b7ad6b7169203331-01"


def traced(message: bytes, parent: str) -> str:
    """The message with what instrumentation adds to it. That the API adds it itself waits for tracing."""
    read = json.loads(message)
    read["headers"] |= {"traceparent": parent, "tracestate": "vendor=1"}
    return json.dumps(read)


@pytest.mark.timeout(60)
async def test_hazard_16_a_trace_in_the_headers_reaches_the_coroutine(
    clean_redis: RedisProcess, ledger: RedisLedger, tmp_path: Path
) -> None:
    """Eight run at once on one thread: each sees the context that the signal before it has set."""
    jobs = [await admit(ledger) for _ in range(16)]
    client = clean_redis.client
    for number in range(len(jobs)):
        client.lpush("later", traced(client.rpop(QUEUE), trace(number)))
    client.rename("later", QUEUE)
    with worker(clean_redis, tmp_path, "custom"):
        expected = sorted(f"{job.id} 1 {trace(number)}" for number, job in enumerate(jobs))
        assert await asyncio.to_thread(seen, clean_redis, 16) == expected


def test_hazard_16_one_id_from_the_answer_to_the_message_and_headers_of_others_are_welcome(
    steady: Stack,
) -> None:
    client, queue = steady.redis.client, "k9.local.fake.interactive"
    steady.fake.behave(latency_ms=60_000)
    busy = [steady.submit() for _ in range(steady.slots)]
    steady.fake.wait(lambda now: now["active"] == steady.slots)
    body = {"model": steady.model, "messages": [{"role": "user", "content": "hello"}]}
    answers: list[tuple[int, dict[str, str]]] = []

    def call() -> None:
        answers.append(ask(f"{steady.url}/v1/chat/completions", body, headers={"traceparent": trace(7)})[:2])

    caller = threading.Thread(target=call)
    caller.start()
    wait_until(lambda: client.llen(queue) == 1, "it waits")
    message = client.lindex(queue, 0)
    client.lset(queue, 0, traced(message, trace(7)))
    steady.fake.behave(latency_ms=0)
    for job in busy:
        ask(f"{steady.url}/v1/jobs/{job}", method="DELETE")
    caller.join(20)
    ((status, headers),) = answers
    read = json.loads(message)
    ids = {read["headers"]["id"], read["headers"]["root_id"], read["properties"]["correlation_id"]}
    assert (status, ids) == (200, {headers["x-k9-job"]})
    assert steady.job(headers["x-k9-job"])["attempts"] == 1


async def test_hazard_16_hooks_on_aiohttp_see_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Instrumentation of httpx does not see this transport; that of aiohttp adds hooks to each session."""
    made = aiohttp.ClientSession.__init__

    async def begin(_: object, __: object, call: aiohttp.TraceRequestStartParams) -> None:
        call.headers["traceparent"] = trace(3)

    def with_hook(self: aiohttp.ClientSession, *args: Any, **more: Any) -> None:
        hook = aiohttp.TraceConfig()
        hook.on_request_start.append(begin)
        made(self, *args, **{**more, "trace_configs": [*(more.get("trace_configs") or ()), hook]})

    monkeypatch.setattr(aiohttp.ClientSession, "__init__", with_hook)

    async def answer(exchange: Exchange) -> None:
        await exchange.reply({"choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}}]})

    async with serving(answer) as (server, caller):
        for _ in range(2):
            await caller.call(chat())
    assert [one.headers.get("traceparent") for one in server.seen] == [trace(3)] * 2
