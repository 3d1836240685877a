"""The walk of one job in a worker: claim → call → relay → finish."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import aclosing
from typing import Any

from k9_broker.errors import K9Error, LedgerUnavailable
from k9_broker.jobs import Claim
from k9_broker.requests import Operation
from k9_broker.results import Outcome, Result, Usage
from k9_broker.verdict import GiveUp, on_failure
from k9_workers.runtime import Runtime

logger = logging.getLogger(__name__)

RECORD_AGAIN_AFTER = 1.0
"""Seconds between tries to record an outcome while Redis is away."""


async def execute(runtime: Runtime, job_id: str, generation: int) -> dict[str, Any]:
    """Run one generation of a job, if it is still wanted. Gives what operators may see of the end.

    A job is taken from its worker by cancelling the call (it ended, or another worker has it); it is
    handed back when the worker itself must go.
    """
    claim = await runtime.ledger.claim(job_id, generation, runtime.node, runtime.backend.kind)
    if claim is None:
        return {"superseded": True}
    started = time.monotonic()
    call = asyncio.create_task(_attempts(runtime, claim))
    with runtime.holding(claim, call) as held:
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
        elapsed = time.monotonic() - started
        recorded = await _record(runtime, claim, outcome, elapsed)
    runtime.measuring.job_took(elapsed)
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


async def _attempts(runtime: Runtime, claim: Claim) -> Outcome:
    """The one retry loop; `on_failure` judges."""
    attempt = 0
    while True:
        attempt += 1
        answer = _Answer()
        try:
            return await answer.fetch(runtime, claim)
        except K9Error as error:
            failure = error
        except Exception as unforeseen:
            # The class says what broke; the text may hold what the caller wrote.
            logger.error("job %s: unforeseen %s", claim.job.id, type(unforeseen).__name__)
            failure = K9Error()
        verdict = on_failure(
            failure,
            priority=claim.job.priority,
            attempt=attempt,
            answered=answer.begun,
            seconds_left=claim.job.deadline_at - time.time(),
        )
        if isinstance(verdict, GiveUp):
            return Outcome.failed(failure, answer.usage, answered=answer.begun)
        logger.info("job %s: %s, again in %.1f s", claim.job.id, failure.code, verdict.delay)
        await asyncio.sleep(verdict.delay)


class _Answer:
    """What one attempt has brought so far."""

    def __init__(self) -> None:
        self.begun = False
        self.usage = Usage()

    async def fetch(self, runtime: Runtime, claim: Claim) -> Outcome:
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
        try:
            with runtime.measuring.call(claim.job.model, streamed=True) as measured:
                async with aclosing(runtime.caller.stream(claim.request)) as stream:
                    async for chunk in stream:
                        measured.chunk(chunk)
                        runtime.relay.send(claim, chunk)
                        self.begun = True
                        chunks += 1
                        if chunk.get("usage"):
                            self.usage = Usage.from_openai(chunk["usage"])
                        runtime.report(claim, f"streaming {chunks} chunks")
                measured.answered(self.usage.completion)
        finally:
            await runtime.relay.drain(claim)
        return Result(model=claim.job.model, usage=self.usage)
