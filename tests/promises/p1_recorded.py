"""P1: what was answered with 2xx is in the ledger, and outlives the death of any process."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from k9_broker.adapters import embedded_redis, keys, redis_folder
from k9_broker.adapters.celery_message import message
from k9_broker.adapters.connect import Commands, connect
from k9_broker.adapters.reaper import Reaper
from k9_broker.adapters.records import subject_of
from k9_broker.adapters.redis_ledger import RedisLedger
from k9_broker.jobs import Job, JobState
from k9_broker.requests import InferenceRequest
from k9_broker.settings import JobSettings
from k9_broker.strategy.decision import Decision
from k9_workers.execute import execute
from k9_workers.runtime import Runtime
from promises.mechanisms import both, lua, saying, swap
from promises.stage import QUEUE, Mechanism, Promise, Stage
from stand import wait_until
from walks import admit, announced, chat, succeed


async def a_job_that_is_answered_is_recorded(stage: Stage) -> None:
    await stage.fleet.announce(announced("a"))
    url = await stage.api()
    body = {"endpoint": "/v1/chat/completions", "body": {"model": "m", "messages": chat().body["messages"]}}
    async with httpx.AsyncClient(base_url=url, timeout=20) as http:
        replies = await asyncio.gather(*(http.post("/v1/jobs", json=body) for _ in range(5)))
    for reply in replies:
        assert reply.status_code == 202, reply.text
        name = keys.job(reply.json()["id"])
        assert stage.client.hget(name, "state") == b"queued", "answered, and not recorded"


async def one_whose_api_is_killed_while_it_admits_is_there_or_not(stage: Stage) -> None:
    dies(_admits_and_dies, stage.redis.url)
    names = [key.decode().removeprefix(keys.job("")) for key in stage.client.scan_iter(keys.job("*"))]
    assert len(names) == 1, "the process was killed after its first step"
    await stage.fleet.announce(announced("a"))
    await stage.sweep()
    assert [one.job.id for one in await stage.take()] == names, "recorded, and nobody ever runs it"


async def one_whose_worker_is_killed_runs_again(stage: Stage) -> None:
    await stage.fleet.announce(announced("a"))
    stage.fake.behave(hang=True)
    job = await admit(stage.ledger)
    assert stage.messages() == [(job.id, 1)]
    dies(_runs, stage.redis.url, stage.runtime, job.id, when=lambda: stage.fake.stats()["active"])
    assert (await stage.ledger.get(job.id)).state is JobState.RUNNING
    stage.lease_ends(job)
    await stage.sweep()
    again = await stage.take()
    assert [one.job.generation for one in again] == [2], "the job of a killed worker is lost"
    await succeed(stage.ledger, again[0])


async def one_whose_message_is_lost_runs(stage: Stage) -> None:
    """A worker was killed after it had read the message, and before it claimed the job."""
    await stage.fleet.announce(announced("a"))
    lost, waits = [await admit(stage.ledger) for _ in range(2)]
    stage.client.rpop(QUEUE)
    await stage.sweep()
    found = {one.job.id: one.job.generation for one in await stage.take()}
    assert found == {lost.id: 2, waits.id: 1}, "a job without a message waits for ever"


async def redis_is_killed_and_comes_back(stage: Stage) -> None:
    jobs: list[Job] = []
    with embedded_redis.private_redis(stage.folder, appendfsync="always") as server:
        commands = Commands(connect(server.url, retries=0))
        ledger = RedisLedger(commands, stage.jobs)
        jobs += [await admit(ledger) for _ in range(6)]
        claimed = await ledger.claim(jobs[0].id, 1, "w", jobs[0].kind)
        assert claimed
        await succeed(ledger, claimed)
        await ledger.cancel(jobs[1].id)
        before = [await ledger.get(job.id) for job in jobs]
        told = await commands.command("CONFIG", "GET", "appendfsync")
        process = int((await commands.command("INFO", "server"))["process_id"])
        os.kill(process, signal.SIGKILL)
        await commands.close()
        wait_until(lambda: not embedded_redis.answers(server.url), "Redis is dead")
    assert [*dict(told).values()] == [b"always"], "a reply does not wait for the disk"
    with embedded_redis.private_redis(stage.folder, appendfsync="always") as server:
        commands = Commands(connect(server.url, retries=0))
        ledger = RedisLedger(commands, stage.jobs)
        after = {
            key.decode().removeprefix(keys.job(""))
            for key in await commands.command("KEYS", keys.job("*"))
        }  # fmt: skip
        assert after == {job.id for job in jobs}, "Redis has forgotten jobs it had taken"
        assert [(await ledger.get(job.id)).state for job in jobs] == [job.state for job in before]
        assert await commands.command("LLEN", QUEUE) == 6
        await commands.close()


def dies(act: Callable[..., Awaitable[None]], *given: Any, when: Callable[[], Any] | None = None) -> None:
    """Run `act` in a process that is killed when `when` is true, or kills itself. Its patches are ours."""
    process = multiprocessing.get_context("fork").Process(target=_main, args=(act, *given), daemon=True)
    process.start()
    if when is not None:
        wait_until(when, "the process is at its work")
        process.kill()
    process.join(20)
    assert process.exitcode == -signal.SIGKILL, process.exitcode


def _main(act: Callable[..., Awaitable[None]], *given: Any) -> None:
    asyncio.run(act(*given))  # type: ignore[arg-type]


async def _admits_and_dies(url: str) -> None:
    script = Commands.script

    async def last(self: Commands, name: str, keys: list[str], args: list[Any]) -> Any:
        reply = await script(self, name, keys, args)
        if name == "admit":
            os.kill(os.getpid(), signal.SIGKILL)
        return reply

    Commands.script = last  # type: ignore[method-assign]
    await admit(RedisLedger(Commands(connect(url, retries=0)), JobSettings()))


async def _runs(url: str, runtime: Callable[[], Awaitable[Runtime]], job_id: str) -> None:
    await execute(await runtime(), job_id, 1)


def _answers_first(patch: pytest.MonkeyPatch) -> None:
    """As if the API did not wait for the ledger: the job is made up, and admitted some time later."""
    admitted = RedisLedger.admit

    async def promised(
        self: RedisLedger, job_id: str, request: InferenceRequest, decision: Decision, **more: Any
    ) -> Job:
        loop, taken = asyncio.get_running_loop(), decision.candidates[0]
        loop.call_later(60, lambda: loop.create_task(admitted(self, job_id, request, decision, **more)))
        return Job(
            id=job_id, state=JobState.QUEUED, generation=1, operation=request.operation, model=taken.model,
            tenant=request.tenant, priority=request.priority, backend=taken.backend, kind=taken.kind,
            reason=taken.reason, stream=request.stream, created_at=0.0, deadline_at=0.0,
        )  # fmt: skip

    swap(RedisLedger, "admit", promised)(patch)


def _in_two_steps(patch: pytest.MonkeyPatch) -> None:
    """As if the record were written by the script, and the message sent after it."""
    admitted = RedisLedger.admit

    async def then_sent(
        self: RedisLedger, job_id: str, request: InferenceRequest, decision: Decision, **more: Any
    ) -> Job:
        job = await admitted(self, job_id, request, decision, **more)
        parts = message(job_id, 1, subject_of(request, 0))
        queue = decision.candidates[0].queue
        await self._commands.command("ZADD", keys.waiting(queue), 0, job_id)
        text = f"{parts.of_model(job.model)}{queue}{parts.middle}0{parts.tail}"
        await self._commands.command("LPUSH", queue, text)
        return job

    swap(RedisLedger, "admit", then_sent)(patch)


_TURN = (
    "take_turn(job, place.queue, id, tenant, place.busy, ARGV[6] .. in_json(place.model) .. ARGV[7], ARGV[8],"
    " ARGV[9])"
)


def _prepared(**instead: str) -> Callable[[pytest.MonkeyPatch], None]:
    """The private Redis' configuration with one setting changed."""
    prepare = redis_folder.prepare

    def otherwise(*given: Any) -> Any:
        note, config = prepare(*given)
        text = config.read_text()
        for setting, value in instead.items():
            lines = [line for line in text.splitlines() if line.startswith(f"{setting} ")]
            if len(lines) != 1:
                raise LookupError(f"{setting} is set {len(lines)} times")
            text = text.replace(lines[0], f"{setting} {value}")
        config.write_text(text)
        return note, config

    return swap(embedded_redis, "prepare", otherwise)


P1 = Promise(
    "p1_recorded",
    {
        "the answer waits for the ledger": Mechanism(
            a_job_that_is_answered_is_recorded, _answers_first, "answered, and not recorded"
        ),
        "record, index and message are one script": Mechanism(
            one_whose_api_is_killed_while_it_admits_is_there_or_not,
            both(lua("admit", _TURN), _in_two_steps),
            "recorded, and nobody ever runs it",
        ),
        "a claim has a lease": Mechanism(
            one_whose_worker_is_killed_runs_again,
            lua("claim", "redis.call('ZADD', 'k9:leases:' .. h[5], instant(now + tonumber(ARGV[4])), id)"),
            "the job of a killed worker is lost",
        ),
        "the reaper brings orphans back": Mechanism(
            one_whose_worker_is_killed_runs_again,
            swap(RedisLedger, "requeue_orphan", saying("superseded")),
            "the job of a killed worker is lost",
        ),
        "the reaper sends lost messages again": Mechanism(
            one_whose_message_is_lost_runs,
            swap(Reaper, "_gone_long_enough", lambda self, seen: []),
            "a job without a message waits for ever",
        ),
        "waiting jobs stand in an index": Mechanism(
            one_whose_message_is_lost_runs,
            lua("parts/queues", "redis.call('ZADD', index, text, id)"),
            "a job without a message waits for ever",
        ),
        "Redis writes to a file": Mechanism(
            redis_is_killed_and_comes_back,
            _prepared(appendonly="no"),
            "Redis has forgotten jobs it had taken",
        ),
        "Redis replies after it has written": Mechanism(
            redis_is_killed_and_comes_back,
            _prepared(appendfsync="everysec"),
            "a reply does not wait for the disk",
        ),
    },
)
