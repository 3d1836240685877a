"""Ties the runtime to Celery's life: when the pool starts, when the worker is ready, when it must go.

A worker that is told to stop is announced no more, takes no more messages, lets running jobs end, and after
`LEAVE_AFTER` seconds hands the rest back to their queues. Told to stop at once (SIGQUIT), the pool
ends every task and each hands its job back.
"""

from __future__ import annotations

import gc
import logging
from typing import Any

from celery import signals

from k9_broker.backends import Backend
from k9_broker.errors import K9Error
from k9_broker.jobs import Claim
from k9_broker.limits import RateLimits
from k9_broker.naming import task_name
from k9_broker.settings import Settings
from k9_workers.callers import build_caller
from k9_workers.pool import TaskPool
from k9_workers.restart import Restart
from k9_workers.runtime import Runtime

logger = logging.getLogger(__name__)

LEAVE_AFTER = 20.0
"""Seconds running jobs may still take after the worker was told to stop."""


class Lifecycle:
    """Holds the runtime between Celery's signals."""

    def __init__(self, backend: Backend, order: int, node: str, settings: Settings) -> None:
        self._backend = backend
        self._order = order
        self._node = node
        self._settings = settings
        self._runtime: Runtime | None = None
        self._consumer: Any = None
        self._restart: Restart | None = None

    def connect(self) -> None:
        signals.worker_process_init.connect(self._pool_started, weak=False)
        signals.worker_ready.connect(self._worker_ready, weak=False)
        signals.worker_shutting_down.connect(self._must_leave, weak=False)
        signals.worker_process_shutdown.connect(self._pool_leaves, weak=False)
        signals.task_revoked.connect(self._task_revoked, weak=False)

    @property
    def runtime(self) -> Runtime:
        if self._runtime is None:
            raise RuntimeError("the pool has not started")
        return self._runtime

    @property
    def _comes_back(self) -> bool:
        return self._restart is not None and self._restart.is_due

    @property
    def _pool(self) -> TaskPool:
        if TaskPool.running is None:
            raise RuntimeError("K-9's tasks need K-9's pool: start the worker with `k9 worker`")
        return TaskPool.running

    def _pool_started(self, **_: Any) -> None:
        try:
            self._pool.run(self._start()).result(30)
        except Exception as error:
            # Celery only logs what a signal's receiver raises, and would go on to take messages.
            said = error.message if isinstance(error, K9Error) else type(error).__name__
            logger.critical("the worker of %s cannot start: %s", self._backend.name, said)
            raise SystemExit(1) from error

    async def _start(self) -> None:
        settings = self._settings
        if settings.redis_url is None:
            raise RuntimeError("K9_REDIS_URL is not set")
        self._runtime = Runtime(
            backend=self._backend,
            order=self._order,
            node=self._node,
            caller=build_caller(self._backend, settings.model_folder, self._heard),
            redis_url=settings.redis_url,
            jobs=settings.jobs,
            models=settings.models,
        )
        self._runtime.on_report = self._report
        self._runtime.on_aside = self._aside
        await self._runtime.start()

    def _heard(self, limits: RateLimits) -> None:
        """An answer told its backend's rate limits."""
        self.runtime.pacing.heard(limits)

    def _worker_ready(self, sender: Any = None, **_: Any) -> None:
        self._consumer = sender
        self._restart = Restart(self._backend, self._node)
        self._restart.listen()  # in the place of Celery
        self._pool.run(self.runtime.announce())
        # What is loaded by now stays: collections need not look at it again and again.
        gc.collect()
        gc.freeze()
        logger.info("serving %s as %s", self._backend.name, self._node)

    def _must_leave(self, how: str, **_: Any) -> None:
        if self._restart is not None:
            self._restart.leaving()
        if self._runtime is not None and how == "Warm":
            loop = self._pool.loop
            if not self._comes_back:
                self._pool.run(self._runtime.withdraw())
            loop.call_soon_threadsafe(loop.call_later, LEAVE_AFTER, self._runtime.hand_back_all)

    def _pool_leaves(self, **_: Any) -> None:
        if self._runtime is not None:
            self._pool.run(self._runtime.close(withdraw=not self._comes_back)).result(10)
            self._runtime = None

    def _task_revoked(self, request: Any, **_: Any) -> None:
        self._pool.run(self._cancel(request.id))

    async def _cancel(self, job_id: str) -> None:
        """An operator revoked the task with Celery's tools. A call that was ended for it may have handed
        the job back meanwhile; cancelling it is right before and after that."""
        try:
            await self.runtime.ledger.cancel(job_id)
        except K9Error as error:
            logger.warning("job %s was revoked, but could not be cancelled: %s", job_id, error.code)

    def _aside(self, aside: bool) -> None:
        """Take no more messages, or take them again. A limit of 0 Celery would read as none."""
        if self._consumer is not None:
            self._consumer.controller.max_concurrency = -1 if aside else None

    def _report(self, claim: Claim, progress: str) -> None:
        """A repeated `task-started` is how Flower shows progress without leaving the state STARTED."""
        if self._consumer is not None:
            self._pool.post(self._send_report, claim, progress)

    def _send_report(self, claim: Claim, progress: str) -> None:
        # Celery makes a new dispatcher when it reconnects.
        if dispatcher := self._consumer.event_dispatcher:
            dispatcher.send(
                "task-started", uuid=claim.job.id, name=task_name(claim.job.operation), result=progress
            )
