"""A broker that calls its backends itself: dialects and transport are real, queues and workers are not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from k9_broker.backends import Backend
from k9_broker.errors import K9Error
from k9_broker.jobs import Job, JobState
from k9_broker.ports import Caller, Event
from k9_broker.requests import InferenceRequest, Operation
from k9_broker.results import Result
from k9_broker.snapshot import Snapshot
from k9_broker.strategy.decision import Decision
from k9_workers.callers import build_caller, operations_of
from scripted import VIEW, Scripted


@dataclass
class Direct(Scripted):
    """Each backend serves one chat model, `Backend.models[0]`."""

    backends: tuple[Backend, ...] = ()
    callers: dict[str, Caller] = field(default_factory=dict)
    asked: dict[str, InferenceRequest] = field(default_factory=dict)
    results: dict[str, Result] = field(default_factory=dict)

    def open(self) -> Direct:
        """Call it in the event loop that serves."""
        self.callers = {one.name: build_caller(one, Path()) for one in self.backends}
        return self

    async def close(self) -> None:
        for caller in self.callers.values():
            await caller.close()

    async def snapshot(self, *, fresh: bool = False) -> Snapshot:
        return Snapshot(
            tuple(
                replace(
                    VIEW,
                    name=one.name,
                    dialect=one.dialect,
                    models=frozenset(one.models),
                    operations=frozenset(operations_of(one)),
                    order=order,
                )
                for order, one in enumerate(self.backends)
            )
        )

    def admitted(self, backend: str, priority: Any) -> None:
        assert backend in self.callers

    async def admit(
        self, job_id: str, request: InferenceRequest, decision: Decision, *, waiter: str | None = None
    ) -> Job:
        job = await super().admit(job_id, request, decision, waiter=waiter)
        self.asked[job_id] = request.for_model(job.model)
        return job

    async def outcome(self, job_id: str) -> tuple[Job, Result | None]:
        return self.jobs[job_id], self.results.get(job_id)

    @asynccontextmanager
    async def follow(self, job_id: str) -> AsyncIterator[_Follower]:
        yield _Follower(self, job_id)


@dataclass
class _Follower:
    broker: Direct
    job_id: str

    async def ended(self) -> None:
        broker, job = self.broker, self.broker.jobs[self.job_id]
        try:
            broker.results[job.id] = await broker.callers[job.backend].call(broker.asked[job.id])
            broker.jobs[job.id] = replace(job, state=JobState.SUCCEEDED)
        except K9Error as error:
            broker.jobs[job.id] = replace(job, state=JobState.FAILED, error=error)

    async def events(self, after: str = "0") -> AsyncIterator[Event]:
        broker, job = self.broker, self.broker.jobs[self.job_id]
        assert job.operation is Operation.CHAT
        end: Mapping[str, Any] = {"state": JobState.SUCCEEDED}
        yield Event("1-0", "running", {"generation": 1})
        try:
            async with aclosing(broker.callers[job.backend].stream(broker.asked[job.id])) as chunks:
                async for chunk in chunks:
                    yield Event("2-0", "chunk", chunk)
                    await asyncio.sleep(0)
        except K9Error as error:
            end = {"state": JobState.FAILED, "error": error.record()}
        yield Event("3-0", "end", end)
