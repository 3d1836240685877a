"""P2: one job, one id, one live claim, one recorded result; whatever comes twice steps aside."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import suppress

from k9_broker.adapters import keys
from k9_broker.adapters.redis_relay import RedisRelayWriter
from k9_broker.dead_letters import NoDeadLetter
from k9_broker.errors import IdempotencyConflict
from k9_broker.health import InstanceHealth
from k9_broker.jobs import Claim, Job, JobState, new_job_id
from k9_broker.models import ModelCard
from k9_broker.requests import InferenceRequest, Kind
from k9_broker.results import Chunk, Outcome, Result
from k9_workers.execute import execute
from k9_workers.runtime import Runtime
from letters import dies
from promises.mechanisms import lua, saying, swap
from promises.stage import Mechanism, Promise, Stage
from walks import admit, candidate, chat, claim, decided


async def one_of_many_claims_wins(stage: Stage) -> None:
    job = await admit(stage.ledger)
    claims = await asyncio.gather(*(stage.ledger.claim(job.id, 1, f"w{n}", Kind.LOCAL) for n in range(20)))
    assert sum(one is not None for one in claims) == 1, "several live claims of one job"
    (won,) = filter(None, claims)
    assert await stage.ledger.finish(won, Outcome.succeeded(Result("m")), 0)
    late = await stage.ledger.claim(job.id, 1, "late", Kind.LOCAL)
    assert late is None, "several live claims of one job"


async def brought_back(stage: Stage, old: Claim) -> Job:
    """The job under its next generation: its lease ran out."""
    stage.lease_ends(old.job)
    assert await stage.ledger.requeue_orphan(old.job) == "requeued"
    return await stage.ledger.get(old.job.id)


async def an_old_message_is_met_again(stage: Stage) -> None:
    job = await admit(stage.ledger)
    again = await brought_back(stage, await claim(stage.ledger, job))
    assert await stage.ledger.claim(job.id, 1, "old", Kind.LOCAL) is None, "a superseded copy is run"
    assert await stage.ledger.claim(job.id, again.generation, "new", Kind.LOCAL)


async def a_worker_wakes_up_late(stage: Stage) -> None:
    """It was frozen for longer than its lease, and goes on with what it holds."""
    old = await claim(stage.ledger, await admit(stage.ledger, chat(stream=True)))
    new = await claim(stage.ledger, await brought_back(stage, old))
    for one, word in ((old, "old"), (new, "new")):
        relay = RedisRelayWriter(stage.commands, lambda claim: None)
        relay.send(one, {"choices": [{"delta": {"content": word}}]})
        await relay.drain(one)
        await relay.close()
    events = await stage.commands.command("XRANGE", keys.relay(old.job.id), "-", "+")
    chunks = [event[b"data"] for _, event in events if event[b"kind"] == b"chunk"]
    assert not [one for one in chunks if b"old" in one], "two workers write one answer"
    recorded = [
        await stage.ledger.finish(one, Outcome.succeeded(Result(word)), 0)
        for one, word in ((old, "old"), (new, "new"))
    ]
    assert recorded == [False, True], "two results of one job are recorded"
    assert (await stage.ledger.result(old.job.id)).model == "new"


async def a_living_worker_keeps_its_job(stage: Stage) -> None:
    """Its renewal came between the reaper's look and its act."""
    held = await claim(stage.ledger, await admit(stage.ledger))
    await stage.ledger.requeue_orphan(held.job)
    taken = await stage.take()
    assert not taken, "a job is taken from a worker that lives"
    assert await stage.ledger.finish(held, Outcome.succeeded(Result("m")), 0)


async def a_submission_is_repeated(stage: Stage) -> None:
    """Its reply was lost, so it is sent again, while the job runs and after it has ended."""
    job_id, place = new_job_id(), decided(candidate("a"), removals=())
    for _ in range(3):
        await stage.ledger.admit(job_id, chat(), place)
    claims = await stage.take()
    for one in claims:
        await stage.ledger.finish(one, Outcome.succeeded(Result("m")), 0)
    again = await stage.ledger.admit(job_id, chat(), place)
    claims += await stage.take()
    assert len(claims) == 1, "one submission is run twice"
    assert again.state is JobState.SUCCEEDED
    with suppress(IdempotencyConflict):
        await stage.ledger.admit(job_id, chat(seed=1), place)
        raise AssertionError("another request is given this one's answer")


async def a_dead_letter_is_replayed_twice(stage: Stage) -> None:
    dead = await dies(stage.ledger)
    request = await stage.letters.request(dead.id)

    async def replay() -> bool:
        with suppress(NoDeadLetter):
            await stage.letters.replay(dead, request, decided(candidate("a")))
            return True
        return False

    assert sorted(await asyncio.gather(*(replay() for _ in range(5)))) == [False] * 4 + [True], (
        "a dead letter is queued twice"
    )
    assert [one.job.generation for one in await stage.take()] == [2]


class Paid:
    """A backend that counts what it is asked."""

    def __init__(self) -> None:
        self.calls = 0

    def spare(self, model: str) -> bool:
        return False

    async def models(self) -> Mapping[str, ModelCard]:
        return {"m": ModelCard()}

    def health(self) -> Sequence[InstanceHealth]:
        return ()

    async def watch(self) -> None:
        await asyncio.Event().wait()

    def reset(self) -> None:
        return

    async def call(self, request: InferenceRequest) -> Result:
        self.calls += 1
        return Result("m")

    async def stream(self, request: InferenceRequest) -> AsyncGenerator[Chunk, None]:
        self.calls += 1
        yield {}

    async def close(self) -> None:
        return


async def a_call_is_paid_once(stage: Stage) -> None:
    """A worker is frozen before its call, and its job given to another."""
    frozen, other = Paid(), Paid()
    one = await stage.runtime(frozen, start=False)
    two = await stage.runtime(other, start=False)
    reached, thawed = asyncio.Event(), asyncio.Event()

    async def turn(*_: object, **__: object) -> None:
        reached.set()
        await thawed.wait()

    one.pacing.turn = turn  # type: ignore[method-assign]
    job = await admit(stage.ledger)
    freezes = asyncio.create_task(execute(one, job.id, 1))
    await reached.wait()
    held = one._held[job.id]
    again = await brought_back(stage, held.claim)
    assert (await execute(two, job.id, again.generation))["state"] == "succeeded"
    held.renewed -= 2 * stage.jobs.lease_seconds
    thawed.set()
    await freezes
    assert frozen.calls + other.calls == 1, "one job is paid twice"


_ALREADY = "if h[1] ~= 'queued' or h[2] ~= ARGV[2] then"

P2 = Promise(
    "p2_once",
    {
        "a claim wants a job that waits": Mechanism(
            one_of_many_claims_wins,
            lua("claim", _ALREADY, "if h[2] ~= ARGV[2] then"),
            "several live claims of one job",
        ),
        "a claim wants the present generation": Mechanism(
            an_old_message_is_met_again,
            lua("claim", _ALREADY, "if h[1] ~= 'queued' then"),
            "a superseded copy is run",
        ),
        "a job that comes back has the next generation": Mechanism(
            an_old_message_is_met_again,
            lua("requeue", "redis.call('HINCRBY', job, 'generation', 1)", "h[2]"),
            "a superseded copy is run",
        ),
        "a result wants the token of the claim": Mechanism(
            a_worker_wakes_up_late,
            lua("finish", "if h[2] ~= ARGV[2] then return { 0 } end"),
            "two results of one job are recorded",
        ),
        "a chunk wants the token of the claim": Mechanism(
            a_worker_wakes_up_late,
            lua("relay", "if h[1] == 'running' and h[2] == token then", "if h[1] == 'running' then"),
            "two workers write one answer",
        ),
        "an orphan's lease is over": Mechanism(
            a_living_worker_keeps_its_job,
            lua("requeue", "if due and tonumber(due) > clock() then return 'superseded' end"),
            "a job is taken from a worker that lives",
        ),
        "a submission is known by its id": Mechanism(
            a_submission_is_repeated,
            lua("admit", "if known then", "if false then"),
            "one submission is run twice",
        ),
        "a submission is known by its content": Mechanism(
            a_submission_is_repeated,
            lua("admit", "known == fingerprint and 'duplicate' or 'conflict'", "'duplicate'"),
            "another request is given this one's answer",
        ),
        "a replay wants the generation that was seen": Mechanism(
            a_dead_letter_is_replayed_twice,
            lua(
                "replay",
                "if h[2] ~= ARGV[2] or (h[1] ~= 'dead' and h[1] ~= 'failed') then",
                "if false then",
            ),
            "a dead letter is queued twice",
        ),
        "whoever was frozen asks before it pays": Mechanism(
            a_call_is_paid_once, swap(Runtime, "make_sure", saying(None)), "one job is paid twice"
        ),
    },
)
