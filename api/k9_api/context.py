"""What every request needs, made once when the application starts."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Protocol

from starlette.requests import Request

from k9_api import metrics
from k9_api.auth import Keys
from k9_api.standing import Standings
from k9_broker.jobs import Job
from k9_broker.ports import Fleet, Ledger, RelayReader
from k9_broker.requests import InferenceRequest
from k9_broker.settings import Settings
from k9_broker.snapshot import Snapshot
from k9_broker.strategy.decision import Decision
from k9_broker.strategy.engine import Router
from k9_broker.submit import submit
from k9_broker.tokens import strings

LONG = 100_000
"""Characters that take some milliseconds to look through."""
EACH = 200
"""As many characters as a text takes to look through beside its own."""


class Broker(Protocol):
    """The ports over one store. `RedisBroker` is the one that is used."""

    @property
    def ledger(self) -> Ledger: ...

    @property
    def fleet(self) -> Fleet: ...

    @property
    def relay(self) -> RelayReader: ...

    async def close(self) -> None:
        """Release the connections."""
        ...


@dataclass(frozen=True, slots=True)
class Context:
    broker: Broker
    router: Router
    keys: Keys
    max_body_bytes: int
    standings: Standings

    def reread(self, settings: Settings) -> Context:
        """The same connections under another policy and other keys. Raises `ConfigurationError`."""
        router = Router(settings.policy)
        router.warm_up()
        return replace(
            self, router=router, keys=Keys(settings.keys), max_body_bytes=settings.api.max_body_bytes
        )

    async def decide(self, asked: InferenceRequest, snapshot: Snapshot) -> Decision:
        """`Router.decide`; for long or many texts in a thread, so that others are served meanwhile."""
        if _long(asked):
            return await asyncio.to_thread(self.router.decide, asked, snapshot)
        return self.router.decide(asked, snapshot)

    async def submit(self, asked: InferenceRequest, job_id: str, waiter: str | None) -> Job:
        """Decide and queue; raises what `k9_broker.submit` raises."""
        job = await submit(
            asked,
            ledger=self.broker.ledger,
            fleet=self.broker.fleet,
            decide=self.decide,
            job_id=job_id,
            waiter=waiter,
        )
        metrics.SUBMITTED.labels(job.operation, job.backend, job.priority).inc()
        metrics.DECISIONS.labels(job.strategy, job.task_type, job.kind).inc()
        return job


def _long(asked: InferenceRequest) -> bool:
    left = LONG
    for text in strings(asked.body):
        left -= len(text) + EACH
        if left <= 0:
            return True
    return False


def context(request: Request) -> Context:
    found = request.app.state.context
    assert isinstance(found, Context)
    return found
