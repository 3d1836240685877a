"""A broker that plays a script: the ports of `k9_broker.ports` as far as the API uses them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from k9_broker.errors import BackendError, JobCancelled, JobNotFound, QueueFull
from k9_broker.jobs import Job, JobState
from k9_broker.ports import Event
from k9_broker.requests import InferenceRequest, Kind, Operation, Priority
from k9_broker.results import Result, Usage
from k9_broker.snapshot import BackendView, Snapshot
from k9_broker.strategy.decision import Decision
from k9_broker.strategy.explanation import explain
from k9_broker.usage import UsageRow

VIEW = BackendView(
    name="fake",
    kind=Kind.LOCAL,
    dialect="fake",
    models=frozenset({"m"}),
    operations=frozenset(Operation),
    order=0,
    slots=4,
    max_waiting=dict.fromkeys(Priority, 8),
    workers=1,
)
Step = Event | threading.Event


def running() -> Event:
    return Event("1-0", "running", {"generation": 1})


def chunk(text: str) -> Event:
    return Event("2-0", "chunk", {"choices": [{"index": 0, "delta": {"content": text}}]})


def restart() -> Event:
    return Event("3-0", "restart", {"generation": 2})


def end(error: BackendError | None = None) -> Event:
    state = JobState.FAILED if error else JobState.SUCCEEDED
    return Event("9-0", "end", {"state": state, **({"error": error.record()} if error else {})})


@dataclass
class Scripted:
    """A broker whose jobs go as told. An `Event` is relayed; a `threading.Event` is waited for."""

    steps: list[Step] = field(default_factory=list)
    refusal: QueueFull | None = None
    jobs: dict[str, Job] = field(default_factory=dict)
    decisions: dict[str, Decision] = field(default_factory=dict)
    cancelled: dict[str, float] = field(default_factory=dict)
    before: dict[str, int] = field(default_factory=dict)
    """How many jobs are ahead of one, by its id; `everybody` stands for those that are not named."""

    @property
    def ledger(self) -> Scripted:
        return self

    fleet = relay = ledger
    waiter = "w"

    async def rerouted(self) -> dict[object, int]:
        return {}

    async def dead_letters(self) -> int:
        return 0

    async def ended(self) -> dict[object, int]:
        return {}

    async def snapshot(self, *, fresh: bool = False) -> Snapshot:
        return Snapshot((VIEW,))

    def admitted(self, backend: str, priority: Priority) -> None:
        assert backend == VIEW.name

    async def ping(self) -> None:
        return

    async def find(self, job_id: str, request: InferenceRequest) -> Job | None:
        return self.jobs.get(job_id)

    async def spent(self, tenant: str) -> int:
        return 0

    async def usage(self, tenant: str, days: int) -> Sequence[UsageRow]:
        return []

    async def explanation(self, job_id: str) -> tuple[Job, Mapping[str, Any]]:
        return await self.get(job_id), explain(self.decisions[job_id])

    async def admit(
        self, job_id: str, request: InferenceRequest, decision: Decision, *, waiter: str | None = None
    ) -> Job:
        if self.refusal:
            raise self.refusal
        now, taken = time.time(), decision.candidates[0]
        self.decisions[job_id] = decision
        self.jobs[job_id] = Job(
            id=job_id, state=JobState.QUEUED, generation=1, operation=request.operation, model=taken.model,
            tenant=request.tenant, priority=request.priority, backend=taken.backend, kind=taken.kind,
            reason=taken.reason, stream=request.stream, created_at=now, deadline_at=now + 60,
            asked=request.model, task_type=decision.recognition.task_type, strategy=decision.strategy,
            privacy=decision.privacy, cost=taken.cost,
        )  # fmt: skip
        return self.jobs[job_id]

    async def get(self, job_id: str) -> Job:
        if job_id not in self.jobs:
            raise JobNotFound
        return self.jobs[job_id]

    async def outcome(self, job_id: str) -> tuple[Job, Result | None]:
        job = await self.get(job_id)
        if job.state is not JobState.SUCCEEDED:
            return job, None
        return job, Result(
            "m", Usage(1, 2), {"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]}
        )

    async def cancel(self, job_id: str) -> Job:
        self.cancelled[job_id] = time.monotonic()
        return replace(await self.get(job_id), state=JobState.CANCELLED, error=JobCancelled())

    async def ahead(self, job_ids: Sequence[str]) -> Sequence[tuple[str, int] | None]:
        found = ((one, self.before.get(one, self.before.get("everybody"))) for one in job_ids)
        return [None if ahead is None else (self.jobs[one].backend, ahead) for one, ahead in found]

    async def attend(self, job_id: str) -> None:
        await self.get(job_id)

    async def close(self) -> None:
        return

    @asynccontextmanager
    async def follow(self, job_id: str) -> AsyncIterator[Follower]:
        yield Follower(self, job_id)


@dataclass
class Follower:
    broker: Scripted
    job_id: str

    async def events(self, after: str = "0") -> AsyncIterator[Event]:
        for step in self.broker.steps:
            if isinstance(step, Event):
                yield step
                continue
            while not step.is_set():
                await asyncio.sleep(0.005)

    async def ended(self) -> None:
        async for event in self.events():
            if event.kind == "end":
                error = BackendError(event.data["error"]["message"]) if "error" in event.data else None
                state = JobState(event.data["state"])
                self.broker.jobs[self.job_id] = replace(
                    self.broker.jobs[self.job_id], state=state, error=error, started_at=time.time()
                )
