"""Asks the processes themselves whether they are ready; nothing is assumed after some time."""

from __future__ import annotations

from enum import Enum
from types import TracebackType
from typing import Self

import httpx
from redis.exceptions import RedisError

from k9_api.up.plan import FLOWER_USER, BackendServed, FlowerSees, HttpOk, Ready, RedisAnswers
from k9_broker.adapters.connect import Commands, connect
from k9_broker.adapters.redis_fleet import RedisFleet
from k9_broker.errors import LedgerUnavailable
from k9_broker.snapshot import Snapshot


class Readiness(Enum):
    """What a process says of itself."""

    NOT = "not ready"
    EMPTY = "a worker that runs, but whose backend tells no model"
    READY = "ready"


class Probe:
    """Connections for readiness checks; an async context."""

    def __init__(self, redis_url: str) -> None:
        self._http = httpx.AsyncClient(timeout=2.0, trust_env=False, verify=False)  # noqa: S501 - plain http
        self._redis = connect(redis_url, retries=0, connections=2)
        self._commands = Commands(self._redis)
        self._fleet = RedisFleet(self._commands)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()
        await self._commands.close()

    async def ask(self, ready: Ready) -> Readiness:
        """Whether the condition holds now; a process that cannot be asked is not ready."""
        match ready:
            case HttpOk(url):
                return await self._get(url)
            case RedisAnswers():
                return await self._ping()
            case FlowerSees(url, password):
                return await self._seen(url, password)
            case BackendServed(backend, node=str(node)):
                return await self._announced(backend, node)
            case BackendServed(backend):
                views = (await self.fleet()).backends
                live = [view for view in views if view.name == backend and view.workers]
                if not live:
                    return Readiness.NOT
                return Readiness.READY if live[0].models else Readiness.EMPTY

    async def _announced(self, backend: str, node: str) -> Readiness:
        """Whether this worker serves, whoever else serves the backend."""
        try:
            announced = await self._fleet.announcements()
        except (LedgerUnavailable, RedisError):
            return Readiness.NOT
        said = [one for one in announced if (one.backend, one.node) == (backend, node)]
        if not said:
            return Readiness.NOT
        return Readiness.READY if said[0].models else Readiness.EMPTY

    async def _seen(self, flower: str, password: str) -> Readiness:
        """Asking Flower with `refresh` makes it ask its workers again, which takes it a second."""
        live = sum(view.workers for view in (await self.fleet()).backends)
        try:
            answer = await self._http.get(
                f"{flower}/api/workers?refresh=1", auth=(FLOWER_USER, password), timeout=5.0
            )
            known = answer.json() if answer.status_code == 200 else {}
        except (httpx.HTTPError, ValueError):
            return Readiness.NOT
        seen = sum(1 for worker in known.values() if worker.get("active_queues"))
        return Readiness.READY if answer.status_code == 200 and seen >= live else Readiness.NOT

    async def _get(self, url: str) -> Readiness:
        try:
            status = (await self._http.get(url)).status_code
        except httpx.HTTPError:
            return Readiness.NOT
        return Readiness.READY if status == 200 else Readiness.NOT

    async def _ping(self) -> Readiness:
        try:
            await self._redis.execute_command("PING")
        except (RedisError, OSError):
            return Readiness.NOT
        return Readiness.READY

    async def fleet(self) -> Snapshot:
        """The fleet now; empty when Redis cannot be asked."""
        try:
            return await self._fleet.snapshot()
        except (LedgerUnavailable, RedisError):
            return Snapshot()
