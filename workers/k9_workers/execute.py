"""The walk of one job in a worker: claim → call → relay → finish, or on to the next candidate."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from contextlib import aclosing
from functools import partial
from typing import Any

from k9_broker.errors import BackendRateLimited, CircuitOpen, JobNotFound, K9Error, LedgerUnavailable
from k9_broker.failover import RETURNED, onward
from k9_broker.jobs import Claim, Job, JobState
from k9_broker.requests import Operation, Priority
from k9_broker.results import Chunk, Outcome, Result, Usage
from k9_broker.strategy.decision import Candidate
from k9_broker.verdict import Reroute, Retry, concerns_backend, on_failure
from k9_workers.measuring import bears_token
from k9_workers.pacing import tokens_of
from k9_workers.runtime import Runtime

logger = logging.getLogger(__name__)

TURN = {Priority.INTERACTIVE: 5.0, Priority.BATCH: math.inf}
"""Seconds a call may wait for its backend's rate limit; then the job goes elsewhere, or its caller hears.
A batch runs at the limit, however long that takes: its deadline alone ends the wait."""
AHEAD = {Priority.INTERACTIVE: TURN[Priority.INTERACTIVE], Priority.BATCH: 2.0}
"""Seconds before its turn that a call takes it: a batch leaves the line short for those who cannot wait."""

OTHER_WORKERS = 5
"""Times a job may go on to another worker of the same backend: none may be as it was announced."""

RECORD_AGAIN_AFTER = 1.0
"""Seconds between tries to record an outcome while Redis is away."""


async def execute(runtime: Runtime, job_id: str, generation: int) -> dict[str, Any]:
    """Run one generation of a job, if it is still wanted. Gives what operators may see of the end.

    A job is taken from its worker by cancelling the call (it ended, or another worker has it); it is
    handed back when the worker itself must go.
    """
    asked = time.monotonic()
    claim = await runtime.ledger.claim(job_id, generation, runtime.node, runtime.backend.kind)
    if claim is None:
        return {"superseded": True}
    started = time.monotonic()
    call = asyncio.create_task(_attempts(runtime, claim))
    with runtime.holding(claim, call, since=asked) as held:
        try:
            await asyncio.wait([call])
        except asyncio.CancelledError:
            await asyncio.shield(runtime.ledger.hand_back(claim))
            raise
        if held.taken:
            return {"backend": runtime.backend.name, "taken": True}
        if call.cancelled():
            await runtime.ledger.hand_back(claim)
            return {"backend": runtime.backend.name, "handed_back": True}
        outcome = call.result()
        if isinstance(outcome, str):
            return {"backend": runtime.backend.name, "rerouted": outcome}
        elapsed = time.monotonic() - started
        recorded = await _record(runtime, claim, outcome, elapsed)
    runtime.measuring.job_took(elapsed, answered=outcome.state is JobState.SUCCEEDED)
    return {
        "backend": runtime.backend.name,
        "state": outcome.state.value if recorded else "superseded",
        "tokens": outcome.usage.total,
        "ms": round(elapsed * 1000),
    }


async def _record(runtime: Runtime, claim: Claim, outcome: Outcome, elapsed: float) -> bool:
    """Record the outcome as soon as Redis is there: it is paid for, and another worker would pay again."""
    cost = runtime.cost(claim.job.model, outcome, elapsed)
    while True:
        try:
            return await runtime.ledger.finish(claim, outcome, cost)
        except LedgerUnavailable:
            if runtime.leaving:
                raise
            await asyncio.sleep(RECORD_AGAIN_AFTER)


async def _attempts(runtime: Runtime, claim: Claim) -> Outcome | str:
    """The one retry loop; `on_failure` judges. Gives the outcome, or the backend that has the job now."""
    job = claim.job
    calls, waited = job.calls, 0.0
    ends = _deadline(job)
    while True:
        answer = _Answer()
        try:
            return await answer.fetch(runtime, claim, ends)
        except K9Error as error:
            failure = error
        except Exception as unforeseen:
            # The class says what broke; the text may hold what the caller wrote.
            logger.error("job %s: unforeseen %s", job.id, type(unforeseen).__name__)
            failure = K9Error()
        calls += answer.called
        places = [] if answer.begun else await _onward(runtime, job, failure)
        judged = partial(
            on_failure,
            failure,
            priority=job.priority,
            calls=calls,
            most_calls=runtime.most_calls(job.priority),
            answered=answer.begun,
            seconds_left=ends - time.monotonic(),
            waited=waited,
            another=bool(answer.called) and runtime.caller.spare(job.model),
        )
        verdict = judged(elsewhere=bool(places))
        if isinstance(verdict, Reroute):
            # Where it was not even called it has not failed, and may have the job back, once.
            stays_away = answer.called or job.home or job.reason == RETURNED
            home = "" if stays_away else job.backend
            if went := await _moved(runtime, claim, places, failure, calls, home):
                return went
            verdict = judged()  # nobody else has room
        if not isinstance(verdict, Retry):
            return Outcome.failed(failure, answer.usage, answered=answer.begun)
        logger.info("job %s: %s, again in %.1f s", job.id, failure.code, verdict.delay)
        await asyncio.sleep(verdict.delay)
        waited += verdict.delay


def _deadline(job: Job) -> float:
    """The deadline of a job claimed just now, on this process's monotonic clock. What the ledger says is
    by Redis' clock, which this machine's may be far from."""
    claimed_at = job.created_at if job.started_at is None else job.started_at
    return time.monotonic() + job.deadline_at - claimed_at


async def _onward(runtime: Runtime, job: Job, failure: K9Error) -> list[Candidate]:
    """Where else the job may go; nowhere while Redis is away."""
    if not concerns_backend(failure):
        return []
    try:
        _, explained = await runtime.ledger.explanation(job.id)
        snapshot = await runtime.fleet.snapshot(fresh=True)
    except (LedgerUnavailable, JobNotFound):
        return []
    left = sum(line.startswith(f"{job.backend}: failed:") for line in job.skipped)
    others = runtime.leaves_it_to_others(snapshot) and left < OTHER_WORKERS
    return onward(explained, job, snapshot, reason=f"failover:{failure.code}", again=others)


async def _moved(
    runtime: Runtime, claim: Claim, places: list[Candidate], failure: K9Error, calls: int, home: str
) -> str | None:
    """The backend the job went to, or nothing when none had room.

    When Redis does not say whether it went, it is left alone: if it did not, the reaper finds it.
    """
    try:
        went = await runtime.ledger.reroute(
            claim.job, places, leaves=f"failed:{failure.code}", calls=calls, token=claim.token, home=home
        )
    except LedgerUnavailable:
        return "unknown"
    if went is None:
        return "superseded"
    if went:
        logger.info("job %s: %s, on to %s", claim.job.id, failure.code, went)
    return went


class _Answer:
    """What one attempt has brought so far."""

    def __init__(self) -> None:
        self.called = 0
        """Upstream calls it made."""
        self.begun = False
        self.usage = Usage()

    async def fetch(self, runtime: Runtime, claim: Claim, ends: float) -> Outcome:
        pacing = runtime.pacing
        tokens = tokens_of(claim.request, most=runtime.counts_most) if pacing.needed else 0
        priority, left = claim.job.priority, ends - time.monotonic()
        await pacing.turn(tokens, min(TURN[priority], left), ahead=AHEAD[priority])
        await runtime.make_sure(claim)
        self.called = 1
        try:
            outcome = await self._fetched(runtime, claim)
        except CircuitOpen:
            self.called = 0
            raise
        except BackendRateLimited as error:
            await pacing.limited(error)
            raise
        if tokens and not runtime.counts_most:
            await pacing.settle(tokens, outcome.usage.total)
        return outcome

    async def _fetched(self, runtime: Runtime, claim: Claim) -> Outcome:
        request = claim.request
        if request.stream and request.operation is not Operation.EMBEDDINGS:
            return Outcome.succeeded(await self._relayed(runtime, claim))
        with runtime.measuring.call(claim.job.model, streamed=False) as measured:
            result = await runtime.caller.call(request)
            if result.usage.completion or request.operation is Operation.EMBEDDINGS:
                measured.answered(result.usage.completion)
        return Outcome.succeeded(result)

    async def _relayed(self, runtime: Runtime, claim: Claim) -> Result:
        chunks = 0
        empty: list[Chunk] = []
        try:
            with runtime.measuring.call(claim.job.model, streamed=True) as measured:
                async with aclosing(runtime.caller.stream(claim.request)) as stream:
                    async for chunk in stream:
                        measured.chunk(chunk)
                        if not self.begun and not _says_something(chunk):
                            empty.append(chunk)  # until there is an answer, another backend may give it
                            continue
                        self.begun = True
                        for one in (*empty, chunk):
                            runtime.relay.send(claim, one)
                        empty.clear()
                        chunks += 1
                        if chunk.get("usage"):
                            self.usage = Usage.from_openai(chunk["usage"])
                        runtime.report(claim, f"streaming {chunks} chunks")
                measured.answered(self.usage.completion)
        finally:
            await runtime.relay.drain(claim)
        return Result(model=claim.job.model, usage=self.usage)


def _says_something(chunk: Chunk) -> bool:
    """Whether a chunk is more than the beginning that servers send before they know how they will end."""
    ends = chunk.get("usage") or any(choice.get("finish_reason") for choice in chunk.get("choices") or ())
    return bool(ends) or bears_token(chunk)
