"""What the figures of scale stand on: a Redis whose time is read from Redis itself, and deep queues."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any

from redis import Redis

from ground import Options, only_redis
from k9_broker.adapters import keys
from k9_broker.adapters.celery_message import message
from k9_broker.adapters.connect import Commands, connect
from k9_broker.adapters.records import subject_of
from k9_broker.adapters.redis_fleet import RedisFleet
from k9_broker.adapters.redis_ledger import RedisLedger
from k9_broker.jobs import Job, new_job_id
from k9_broker.naming import queue_name
from k9_broker.requests import InferenceRequest, Kind, Operation, Priority
from k9_broker.settings import JobSettings
from k9_broker.strategy.decision import Candidate, Decision

MODEL = "some-model"
BACKEND = "nobody"
"""A backend whose queue nobody reads."""
TENANT = "default"
LINE = "Ticket 4711: the queue was full, please try again."
BOUNDLESS = 10**9

_FILL = """
-- ARGV: sample's record · queue · its index · the tenant's part of it · then per job: id, number, message
for i = 5, #ARGV, 3 do
  local id = ARGV[i]
  redis.call('COPY', ARGV[1], 'k9:job:' .. id)
  redis.call('ZADD', 'k9:deadlines', redis.call('HGET', ARGV[1], 'deadline_at'), id)
  redis.call('ZADD', ARGV[3], ARGV[i + 1], id)
  redis.call('SADD', ARGV[4], id)
  redis.call('LPUSH', ARGV[2], ARGV[i + 2])
end
"""
_TOGETHER = 500


@dataclass
class Store:
    """A private Redis without a file, and K-9's adapters on it."""

    client: Redis
    commands: Commands
    ledger: RedisLedger
    fleet: RedisFleet

    @property
    def memory(self) -> int:
        """Bytes in use."""
        return int(self.client.info("memory")["used_memory"])

    def script_seconds(self) -> float:
        """What all scripts have taken in Redis so far."""
        found = self.client.info("commandstats").get("cmdstat_evalsha", {"usec": 0})
        return float(found["usec"]) / 1e6

    def cpu(self) -> float:
        """CPU seconds of Redis' one thread that carries out commands."""
        found = self.client.info("cpu")
        return float(found["used_cpu_user_main_thread"] + found["used_cpu_sys_main_thread"])


@asynccontextmanager
async def store() -> AsyncIterator[Store]:
    with only_redis(Options()) as server:
        client = server.client
        client.config_set("appendonly", "no")  # its rewrites would share the core
        commands = Commands(connect(server.url, retries=1))
        try:
            yield Store(client, commands, RedisLedger(commands, JobSettings()), RedisFleet(commands))
        finally:
            await commands.close()
            client.close()


def line(tenant: str = TENANT, priority: Priority = Priority.BATCH, lines: int = 1) -> InferenceRequest:
    """An embeddings request of one line, or of a chunk of them."""
    body = {"model": MODEL, "input": [f"{LINE} {number}" for number in range(lines)]}
    return InferenceRequest(Operation.EMBEDDINGS, MODEL, body, tenant=tenant, priority=priority)


def decided(priority: Priority = Priority.BATCH, *, shared: bool = False) -> Decision:
    """For the one backend, whose marks are raised."""
    candidate = Candidate(
        backend=BACKEND, kind=Kind.LOCAL, queue=queue(priority), max_waiting=BOUNDLESS, slots=64,
        reason="task-type:local", model=MODEL, seconds=0.001, service_seconds=0.001,
    )  # fmt: skip
    return Decision((candidate,), (), shared=shared)


def queue(priority: Priority = Priority.BATCH) -> str:
    return queue_name(Kind.LOCAL, BACKEND, priority)


async def fill(at: Store, depth: int) -> None:
    """Let so many batch jobs of one tenant wait, as admission would, but a hundred times as fast.

    One job is admitted; the others are copies of it under ids and at turns of their own. Raises
    `RuntimeError` when a copy is not what admission writes.
    """
    client, where, asked = at.client, queue(), line()
    load = client.register_script(_FILL)
    sample = await at.ledger.admit(new_job_id(), asked, decided())
    waiting = client.llen(where)
    begin = float(client.hget(keys.turns(where), f"of {TENANT}") or 0)
    charge = float(client.hget(keys.job(sample.id), "charge") or 0)
    words = [keys.job(sample.id), where, keys.waiting(where), keys.queued(where, TENANT)]
    text, rows, job_id = _messages(asked), [], ""
    for number in range(waiting, depth):
        job_id, turn = new_job_id(), f"{begin + (number - waiting) * charge:.0f}"
        rows += [job_id, turn, text(job_id, turn)]
        if len(rows) == 3 * _TOGETHER or number == depth - 1:
            load(args=[*words, *rows])
            client.hset(keys.turns(where), f"of {TENANT}", f"{float(turn) + charge:.0f}")
            rows = []
    if job_id:
        _compare(client, sample, asked, job_id)


def _compare(client: Redis, sample: Job, asked: InferenceRequest, copy: str) -> None:
    number = client.zscore(keys.waiting(queue()), copy)
    pieces = message(copy, 1, subject_of(asked, len(asked.dump())))
    should = f"{pieces.of_model(MODEL)}{queue()}{pieces.middle}{number:.0f}{pieces.tail}"
    same = client.hgetall(keys.job(copy)) == client.hgetall(keys.job(sample.id))
    if client.lindex(queue(), 0) != should.encode() or not same:
        raise RuntimeError("the filler writes something else than admission does")


def _messages(asked: InferenceRequest) -> Callable[[str, str], str]:
    """The message of any job of this request: the template is cut at its id once, not made anew."""
    known = new_job_id()
    made = message(known, 1, subject_of(asked, len(asked.dump())))
    whole = f"{made.of_model(MODEL)}{queue()}{made.middle}\0{made.tail}"
    encoded = whole.split('"body": "', 1)[1].split('"', 1)[0]
    raw = base64.b64decode(encoded).decode().split(known)
    pieces = [part.split(known) for part in whole.replace(encoded, "\1").split("\1")]

    def text(job_id: str, number: str) -> str:
        body = base64.b64encode(job_id.join(raw).encode()).decode()
        return body.join(job_id.join(part) for part in pieces).replace("\0", number)

    return text


@dataclass
class Cost:
    """What some steps took: in Redis by its own count, and for whoever asked."""

    redis: list[float]
    asked: list[float]

    @classmethod
    def none(cls) -> Cost:
        return cls([], [])

    async def of(self, at: Store, steps: Iterator[Awaitable[Any]]) -> list[Any]:
        """Wait for the steps one by one, and count the mean of Redis' time and each one's own."""
        before = at.script_seconds()
        done = []
        for step in steps:
            began = perf_counter()
            done.append(await step)
            self.asked.append(perf_counter() - began)
        after = at.script_seconds()
        self.redis.append((after - before) / max(1, len(done)))
        return done

    @property
    def microseconds(self) -> float:
        """Of Redis, for one step: the middle of all rounds, so that the rest of the machine hardly shows."""
        return 1e6 * median(self.redis)

    @property
    def milliseconds(self) -> float:
        """For whoever asked."""
        return 1e3 * median(self.asked)
