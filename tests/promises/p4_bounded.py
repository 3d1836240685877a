"""P4: no queue grows beyond its mark, memory does not grow with a batch, refusals are early and honest."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import Any

import httpx
from starlette.requests import Request
from starlette.responses import Response

from embed_runs import lines, plan
from jobs_stand_in import StandIn, error_reply, serving
from k9_api import reading
from k9_api.batch import feeder, jobs
from k9_api.batch.answers import Answer
from k9_api.batch.chunks import Chunk
from k9_api.batch.jobs import JobsClient
from k9_api.batch.run import embed_file
from k9_broker import errors, snapshot
from k9_broker.adapters import keys, redis_wake
from k9_broker.adapters.connect import Commands
from k9_broker.adapters.redis_wake import RedisFollower
from k9_broker.errors import BodyTooLarge, QueueFull
from k9_broker.jobs import Job, new_job_id
from k9_broker.naming import queue_name
from k9_broker.requests import Kind, Priority
from k9_broker.saturation import wait_behind
from promises.mechanisms import both, lua, swap
from promises.stage import QUEUE, Mechanism, Promise, Stage, until
from walks import admit, announced, candidate, chat, claim, decided

MARKS = {Priority.INTERACTIVE: 7, Priority.BATCH: 11}


async def queues_stay_below_their_marks(stage: Stage) -> None:
    """Three tenants, two priorities, all at once."""

    async def ask(number: int) -> Job:
        priority = Priority.BATCH if number % 2 else Priority.INTERACTIVE
        request = replace(chat(), tenant=f"tenant{number % 3}", priority=priority, deadline=600.0)
        queue = queue_name(Kind.LOCAL, "a", priority)
        place = candidate("a", queue=queue, mark=MARKS[priority], service_seconds=0.5)
        return await stage.ledger.admit(new_job_id(), request, decided(place, shared=number % 7 == 0))

    outcomes = await asyncio.gather(*(ask(number) for number in range(150)), return_exceptions=True)
    for priority, mark in MARKS.items():
        queue = queue_name(Kind.LOCAL, "a", priority)
        depths = stage.client.zcard(keys.waiting(queue)), stage.client.llen(queue)
        assert max(depths) <= mark, "a queue has grown beyond its mark"
        assert min(depths) == mark, "there was room, and somebody was refused"
    refused = [one for one in outcomes if isinstance(one, QueueFull)]
    assert len(refused) + sum(isinstance(one, Job) for one in outcomes) == 150, outcomes
    assert {one.status for one in refused} == {503}


async def moves_stay_below_the_mark(stage: Stage) -> None:
    """Many jobs leave a backend that fails them for one that has little room."""
    await admit(stage.ledger, backend="b")
    held = [await claim(stage.ledger, await admit(stage.ledger)) for _ in range(8)]
    place = candidate("b", mark=4)
    went = await asyncio.gather(
        *(stage.ledger.reroute(one.job, [place], leaves="x", calls=1, token=one.token) for one in held)
    )
    assert stage.client.zcard(keys.waiting(place.queue)) <= 4, "moved jobs fill a queue beyond its mark"
    assert sorted(map(str, went)) == [""] * 5 + ["b"] * 3


async def a_refusal_says_when_to_come_back(stage: Stage) -> None:
    """The shortest wait there is, in whole seconds, from 1 to 60."""

    async def told(seconds: float) -> float:
        stage.client.flushdb()
        place = candidate("a", mark=5, service_seconds=seconds)
        for _ in range(5):
            await stage.ledger.admit(new_job_id(), chat(), decided(place))
        try:
            await stage.ledger.admit(new_job_id(), chat(), decided(place))
        except QueueFull as full:
            return full.retry_after or 0.0
        raise AssertionError("it was not refused")

    for seconds in (0.001, 0.9, 3.0, 100.0):
        wait = await told(seconds)
        assert 1 <= wait <= 60, "a caller is told a time that is none"
        expected = wait_behind(5, 0, 1, seconds).p50
        assert wait == min(60, max(1, math.ceil(expected))), "a caller is told a wrong time"


async def callers_are_refused_at_once(stage: Stage) -> None:
    """Over HTTP, with nobody working: whoever is let in waits, the others hear it early and go.

    Patient callers have the room of a batch, and those who would not wait so long theirs beside them.
    """
    await stage.fleet.announce(announced("a", max_waiting=3, max_waiting_batch=5))
    url = await stage.api()
    body = {"endpoint": "/v1/chat/completions", "body": {"model": "m", "messages": chat().body["messages"]}}
    patient = {"x-k9-queue": "wait"}
    async with httpx.AsyncClient(base_url=url, timeout=20) as http:
        posts = [http.post("/v1/jobs", json=body, headers=patient if n % 2 else {}) for n in range(24)]
        replies = await asyncio.gather(*posts)
        assert stage.client.llen(QUEUE) <= 3 + 5, "a queue has grown beyond its mark"
        replies.append(await http.post("/v1/chat/completions", json=body["body"]))
    refused = [one for one in replies if one.status_code != 202]
    assert len(refused) >= 24 + 1 - (3 + 5)
    for one in refused:
        assert (one.status_code, one.json()["error"]["code"]) == (503, "queue_full")
        assert 1 <= int(one.headers["retry-after"]) <= 60, "a caller is told a time that is none"


async def a_batch_is_read_as_it_is_answered(stage: Stage) -> None:
    """The first answer does not come: the reader stops a window further, however long the input is."""
    bound = 2 * 16 + 2 + 3  # done or under way, read ahead, and one in each hand
    read = 0

    def chunks() -> Iterator[Chunk]:
        nonlocal read
        for number in range(5000):
            read += 1
            yield Chunk(number, number + 1, ())

    first = asyncio.Event()

    async def embed(chunk: Chunk) -> Answer:
        if chunk.start == 0:
            await first.wait()
        return Answer(chunk)

    async def answered() -> int:
        ahead = feeder.ReadAhead(chunks())
        async with aclosing(feeder.in_order(ahead, embed, window=feeder.WINDOW)) as answers:
            return sum([1 async for _ in answers])

    running = asyncio.create_task(answered())
    try:
        await until(lambda: read >= 2 * 16, "the window is not filled")
        for _ in range(50):
            assert read <= bound, "a batch is read faster than it is answered"
            await asyncio.sleep(0.01)
        first.set()
        assert await running == 5000
    finally:
        running.cancel()


async def a_batch_waits_where_others_are_refused(stage: Stage) -> None:
    def refuse(number: int) -> Response | None:
        return error_reply(503, "queue_full", 0.05) if number < 24 else None  # more than a chunk has tries

    with serving(StandIn(refuse=refuse)) as server:
        done = await embed_file(plan(server, lines(stage.folder, 40), stage.folder / "out.jsonl"))
    assert (done.items, done.errors) == (40, 0), "a full queue fails a batch"


async def a_body_is_read_up_to_its_limit(stage: Stage) -> None:
    """Its length is not declared; the rest of it is never asked for."""
    pieces = 0

    async def receive() -> dict[str, Any]:
        nonlocal pieces
        pieces += 1
        return {"type": "http.request", "body": b" " * 1000, "more_body": pieces < 1000}

    scope = {"type": "http", "headers": [(b"content-type", b"application/json")]}
    with suppress(BodyTooLarge):
        await reading.read_body(Request(scope, receive), 10_000)
    assert pieces <= 11, "a body is read beyond its limit"


async def a_slow_reader_holds_a_page(stage: Stage) -> None:
    claimed = await claim(stage.ledger, await admit(stage.ledger, chat(stream=True)))
    relay = keys.relay(claimed.job.id)
    for _ in range(500):
        stage.client.xadd(relay, {"kind": "chunk", "data": b"{}"})
    most = 0

    class Counted(Commands):
        async def command(self, *words: Any) -> Any:
            nonlocal most
            reply = await super().command(*words)
            if words[0] == "XRANGE":
                most = max(most, len(reply))
            return reply

    follower = RedisFollower(Counted(stage.commands._redis), claimed.job.id)
    async with aclosing(follower.events()) as events:  # type: ignore[type-var]
        for _ in range(300):
            await anext(events)
    assert 0 < most <= 100, "a slow reader holds the whole answer"


async def _sends_once(self: JobsClient, method: str, path: str, headers: Any, body: Any = None) -> Any:
    return await self._http.request(method, path, headers=headers, content=body)


_read_body = reading.read_body


async def _reads_all(request: Request, limit: int) -> bytes:
    return await _read_body(request, 1_000_000_000)


P4 = Promise(
    "p4_bounded",
    {
        "the mark of a queue": Mechanism(
            queues_stay_below_their_marks,
            lua("parts/places", "local full = counted >= place.mark", "local full = false"),
            "a queue has grown beyond its mark",
        ),
        "the mark of a queue, over HTTP": Mechanism(
            callers_are_refused_at_once,
            lua("parts/places", "local full = counted >= place.mark", "local full = false"),
            "a queue has grown beyond its mark",
        ),
        "the depth is counted in the script that adds to it": Mechanism(
            queues_stay_below_their_marks,
            lua("parts/queues", "waiting = redis.call('ZCARD', index),", "waiting = 0,"),
            "a queue has grown beyond its mark",
        ),
        "a job moves only to where there is room": Mechanism(
            moves_stay_below_the_mark,
            lua(
                "reroute",
                "local place = choose(asked, 14, tonumber(ARGV[13]))",
                "local place = candidate(14)",
            ),
            "moved jobs fill a queue beyond its mark",
        ),
        "a refusal tells the shortest wait": Mechanism(
            a_refusal_says_when_to_come_back,
            lua("parts/places", "if wait then shortest = math.min(shortest or wait, wait) end"),
            "a caller is told a wrong time",
        ),
        "a refusal tells a minute at most": Mechanism(
            a_refusal_says_when_to_come_back,
            both(swap(snapshot, "MAX_RETRY_AFTER", 1e6), swap(errors, "MAX_RETRY_AFTER", 1e6)),
            "a caller is told a time that is none",
        ),
        "the feeder has a window": Mechanism(
            a_batch_is_read_as_it_is_answered,
            swap(feeder, "WINDOW", 100_000),
            "a batch is read faster than it is answered",
        ),
        "the reader stops a little ahead": Mechanism(
            a_batch_is_read_as_it_is_answered,
            swap(feeder.ReadAhead.__init__, "__defaults__", (0,)),
            "a batch is read faster than it is answered",
        ),
        "the feeder holds back when it is refused": Mechanism(
            a_batch_waits_where_others_are_refused,
            both(swap(JobsClient, "_send", _sends_once), swap(jobs, "BACKOFF", 0.001)),
            "a full queue fails a batch",
        ),
        "a body has a limit": Mechanism(
            a_body_is_read_up_to_its_limit,
            swap(reading, "read_body", _reads_all),
            "a body is read beyond its limit",
        ),
        "a follower reads pages": Mechanism(
            a_slow_reader_holds_a_page,
            swap(redis_wake, "_PAGE", 100_000),
            "a slow reader holds the whole answer",
        ),
    },
)
