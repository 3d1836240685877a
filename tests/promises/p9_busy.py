"""Everything that K-9 does with Redis, once: a busy day, and its end."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any

from k9_broker.adapters import keys
from k9_broker.adapters.moving import Mover
from k9_broker.adapters.moving_late import LateMover
from k9_broker.adapters.redis_pacer import RedisPacer
from k9_broker.adapters.redis_relay import RedisRelayWriter
from k9_broker.adapters.redis_wake import RedisRelayReader
from k9_broker.backends import Backend
from k9_broker.health import CircuitState
from k9_broker.jobs import Claim, Job, new_job_id
from k9_broker.naming import queue_name
from k9_broker.requests import InferenceRequest, Kind, Operation, Priority
from k9_broker.results import Outcome, Result, Vectors
from k9_broker.strategy.decision import Candidate
from letters import dies, done, loses_its_workers
from promises.stage import Stage
from walks import admit, announced, candidate, chat, claim, decided, succeed, sweep

CLOUD = candidate("away", Kind.CLOUD, cost=100)
SATURATED = candidate("filled", overflow_at=2)


async def queued(
    stage: Stage, *places: Candidate, request: InferenceRequest | None = None, **more: Any
) -> Job:
    decision = decided(*places or (candidate(),), **more)
    return await stage.ledger.admit(new_job_id(), request or chat(), decision)


async def a_busy_day(stage: Stage) -> None:
    """When it is over, there are jobs in every state."""
    await answers(stage)
    await ends_that_are_none(stage)
    await letters(stage)
    await a_tenant_with_a_cap(stage)
    await moves(stage)
    await paces_and_leases(stage)
    for _ in range(4):
        await queued(stage, SATURATED)


async def answers(stage: Stage) -> None:
    """Chats, a stream, embeddings, a batch, one that is charged, one that is submitted again."""
    ledger = stage.ledger
    await succeed(ledger, await claim(ledger, await admit(ledger)))
    await claim(ledger, await admit(ledger))
    for ends in (True, False):
        streaming = await claim(ledger, await admit(ledger, chat(stream=True)))
        relay = RedisRelayWriter(stage.commands, lambda claim: None)
        relay.send(streaming, {"choices": [{"delta": {"content": "a"}}]})
        await relay.drain(streaming)
        await relay.close()
        if ends:
            await succeed(ledger, streaming)
    embeds = InferenceRequest(Operation.EMBEDDINGS, "m", {"model": "m", "input": ["a"]})
    held = await claim(ledger, await queued(stage, request=embeds, embedding_model="m"))
    await ledger.finish(held, Outcome.succeeded(Result("m", vectors=Vectors.from_floats([[0.5]]))), 0)
    batch = candidate(queue=queue_name(Kind.LOCAL, "a", Priority.BATCH))
    lines = [await queued(stage, batch, request=replace(chat(), priority=Priority.BATCH)) for _ in range(4)]
    await claim(ledger, lines[0])
    for cost in (60, None):
        charged = await claim(ledger, await queued(stage, CLOUD, budget=10_000), Kind.CLOUD)
        await ledger.finish(charged, done(), cost)
    job_id = new_job_id()
    for _ in range(3):
        await ledger.admit(job_id, chat(), decided(candidate()))
    reader = RedisRelayReader(stage.commands._redis, stage.commands)
    await reader.attend(job_id)


async def ends_that_are_none(stage: Stage) -> None:
    """Cancelled, expired, handed back, orphaned."""
    ledger = stage.ledger
    await ledger.cancel((await admit(ledger)).id)
    await ledger.cancel((await claim(ledger, await admit(ledger))).job.id)
    short = replace(chat(), deadline=0.01)
    late = [await queued(stage, candidate(name), request=short) for name in ("brief", "short")]
    while stage.now <= late[1].deadline_at:
        await asyncio.sleep(0.002)
    await ledger.claim(late[0].id, 1, "w", Kind.LOCAL)
    await ledger.expire(late[1].id)
    await ledger.hand_back(await claim(ledger, await admit(ledger)))
    orphan = await claim(ledger, await admit(ledger))
    stage.lease_ends(orphan.job)
    await ledger.requeue_orphan(orphan.job)


async def letters(stage: Stage) -> None:
    """Two that stay, one that is replayed, one that is dropped."""
    await loses_its_workers(stage.ledger, stage.redis)
    _, again, dropped = [await dies(stage.ledger, place=CLOUD) for _ in range(3)]
    place = candidate("replayed")
    await stage.letters.replay(again, await stage.letters.request(again.id), decided(place))
    await stage.letters.drop(dropped.id)


async def a_tenant_with_a_cap(stage: Stage) -> None:
    for _ in range(4):
        request = replace(chat(), tenant="capped")
        await queued(stage, candidate("capped"), request=request, max_in_flight=1, weight=2.0)
    await stage.take("k9.local.capped.interactive")


async def moves(stage: Stage) -> None:
    """Away from a backend that is down, back again, and to where it is quicker."""
    await stage.fleet.announce(announced("down"))
    await stage.fleet.announce(announced("up", max_waiting=20))
    for _ in range(4):
        await queued(stage, candidate("down"), candidate("up"))
    await stage.fleet.announce(announced("down", CircuitState.OPEN))
    mover = Mover(stage.commands, stage.ledger)
    await sweep(mover, stage.fleet)
    await stage.fleet.announce(announced("down", slots=1))
    await sweep(mover, stage.fleet)
    await stage.fleet.announce(announced("slow", slots=1, service_seconds=4.0, overflow_wait=10.0))
    places = candidate("slow"), candidate("up")
    await claim(stage.ledger, await queued(stage, *places))
    for _ in range(8):
        await queued(stage, *places)
    found = await stage.fleet.snapshot(fresh=True)
    await LateMover(stage.commands, stage.ledger).sweep(found, time.monotonic() + 5)


async def paces_and_leases(stage: Stage) -> None:
    said = {"name": "paced", "dialect": "fake", "url": stage.fake.url, "requests_per_minute": 60}
    pacer = RedisPacer(stage.commands, Backend.model_validate({**said, "tokens_per_minute": 6000}))
    for _ in range(3):
        await pacer.take(100)
    await pacer.settle(100, 10)
    await pacer.hold(5)
    await stage.reaper._is_mine()


async def everything_ends(stage: Stage) -> None:
    """Workers take what waits; what runs elsewhere is cancelled; the machines go away."""
    for number in range(12):
        if not (claims := await _taken(stage)):
            break
        for one in claims:
            await stage.ledger.finish(one, done(), 10 * number)
    for name in stage.client.scan_iter(keys.job("*"), count=1000):
        if stage.client.hget(name, "state") in (b"queued", b"running"):
            await stage.ledger.cancel(name.decode().removeprefix(keys.job("")))
    last = await claim(stage.ledger, await queued(stage, SATURATED))
    await succeed(stage.ledger, last)
    await _taken(stage)
    for name in stage.client.scan_iter(keys.worker("*"), count=1000):
        stage.client.delete(name)  # its ten minutes are over
    await stage.fleet.snapshot(fresh=True)


async def _taken(stage: Stage) -> list[Claim]:
    claims = []
    for kind in Kind:
        for name in stage.client.scan_iter(f"k9.{kind}.*", count=1000):
            claims += await stage.take(name.decode(), kind)
    return claims


def what_happened(stage: Stage) -> set[str]:
    """The states in which there are jobs now, and the reasons for which some have moved."""
    names = list(stage.client.scan_iter(keys.job("*"), count=1000))
    states = {bytes(stage.client.hget(name, "state") or b"").decode() for name in names}  # type: ignore[arg-type]
    moves = [bytes(field).decode() for field in stage.client.hkeys(keys.REROUTED)]  # type: ignore[arg-type]
    return states | {move.split(" ", 2)[2] for move in moves}
