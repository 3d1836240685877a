"""A Celery pool on one asyncio event loop: a slot costs a coroutine, not a thread or a process.

Celery's tracer is synchronous. It runs inside a greenlet on the loop's thread; a task whose body is
`async def` is awaited by switching to the parent greenlet, which is a coroutine of the loop. So
signals, events, acknowledgements, revocation and time limits stay Celery's own, and any stock task
runs here too (as long as it does not block).

Select it with `worker_pool="k9_workers.pool:TaskPool"` in the Celery configuration.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import math
import sys
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from typing import Any, ClassVar

from celery import Task, signals
from celery.concurrency.base import BasePool
from celery.exceptions import SoftTimeLimitExceeded
from celery.utils.log import get_logger
from celery.worker import state
from greenlet import getcurrent, greenlet
from kombu.asynchronous import get_event_loop
from vine import promise

logger = get_logger(__name__)

SWITCH_INTERVAL = 0.0001
"""Seconds a thread may keep the interpreter while the other waits for it. With Python's 5 ms the consumer,
which takes messages and talks to Redis in many small steps, would be held up at each of them."""

HAND_BACK_WITHIN = 5.0
"""Seconds the tasks have to end in a cold shutdown; those that do not are left behind."""


def _new_loop() -> asyncio.AbstractEventLoop:
    """uvloop where there is one: a third less CPU per token."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


class _Tracer(greenlet):  # type: ignore[misc]
    """The greenlet Celery's tracer runs in; only here may a task wait."""


class AsyncTask(Task):  # type: ignore[misc]
    """A Celery task whose `run` is `async def`."""

    abstract = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        answer = self.run(*args, **kwargs)
        if not inspect.isawaitable(answer):
            return answer
        tracer = getcurrent()
        if not isinstance(tracer, _Tracer):
            return asyncio.run(_await(answer))
        # What the tracer's signals set up (a trace span, say) lives in this greenlet's context.
        return tracer.parent.switch(_in_context(answer, contextvars.copy_context()))


async def _await(answer: Awaitable[Any]) -> Any:
    return await answer


async def _in_context(answer: Awaitable[Any], context: contextvars.Context) -> Any:
    return await asyncio.get_running_loop().create_task(_await(answer), context=context)


class Slot:
    """One task in the pool; Celery holds it to be able to terminate the task."""

    __slots__ = ("__weakref__", "loop", "reason", "task")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.task: asyncio.Task[None] | None = None
        self.reason: str | None = None

    def cancel(self, reason: str) -> None:
        """On the loop's thread only."""
        if self.task is not None and not self.task.done() and self.reason is None:
            self.reason = reason
            self.task.cancel()

    def terminate(self, signal: Any = None) -> None:
        self.loop.call_soon_threadsafe(self.cancel, "terminated")


class TaskPool(BasePool):  # type: ignore[misc]
    """`--concurrency` is the number of slots; `worker_disable_prefetch` keeps messages beyond it in Redis."""

    body_can_be_buffer = True
    signal_safe = False
    task_join_will_block = False
    running: ClassVar[TaskPool | None] = None
    """The pool of this process, for what lives on its loop."""

    def on_start(self) -> None:
        self._slots: dict[int, Slot] = {}
        self._bookkeeping: deque[tuple[Callable[..., Any], tuple[Any, ...]]] = deque()
        # One promise for ever: kombu's hub keeps pending callbacks in a set, so order is our own.
        self._turn = promise(self._do_bookkeeping)
        self._hub = get_event_loop()
        sys.setswitchinterval(SWITCH_INTERVAL)
        self.loop = _new_loop()
        self._thread = threading.Thread(target=self._run_loop, name="k9-pool", daemon=True)
        self._thread.start()
        TaskPool.running = self
        signals.worker_process_init.send(sender=None)

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Future[Any]:
        """Run a coroutine on the pool's loop, from any thread."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def post(self, function: Callable[..., Any], *args: Any) -> None:
        """Call on the consumer's thread, in order. Celery's bookkeeping may talk to Redis
        synchronously, which must not happen on the thread that carries every open stream."""
        self._bookkeeping.append((function, args))
        if self._hub is not None:
            self._hub.call_soon(self._turn)

    def _do_bookkeeping(self) -> None:
        while self._bookkeeping:
            function, args = self._bookkeeping.popleft()
            try:
                function(*args)
            except Exception:
                logger.exception("bookkeeping of a task failed")

    def on_apply(
        self,
        target: Callable[..., Any],
        args: Any = (),
        kwargs: Any = None,
        callback: Any = None,
        accept_callback: Any = None,
        timeout_callback: Any = None,
        soft_timeout: float | None = None,
        timeout: float | None = None,
        **_: Any,
    ) -> Slot:
        slot = Slot(self.loop)
        self._slots[id(slot)] = slot

        def start() -> None:
            task = slot.task = self.loop.create_task(
                self._run_task(
                    slot,
                    lambda: target(*args, **(kwargs or {})),
                    callback,
                    accept_callback,
                    timeout_callback,
                    soft_timeout,
                    timeout,
                )
            )
            # Not at the end of `_run_task`: a task that is cancelled before its first step runs none of it.
            task.add_done_callback(lambda _: self._slots.pop(id(slot), None))

        self.loop.call_soon_threadsafe(start)
        return slot

    async def _run_task(
        self,
        slot: Slot,
        trace: Callable[[], Any],
        callback: Any,
        accept_callback: Any,
        timeout_callback: Any,
        soft_timeout: float | None,
        timeout: float | None,
    ) -> None:
        if accept_callback:
            self.post(accept_callback, id(slot), time.monotonic())
        timers = [
            self.loop.call_later(seconds, slot.cancel, reason)
            for seconds, reason in ((soft_timeout, "soft"), (timeout, "hard"))
            if seconds
        ]
        try:
            returned = await self._drive(slot, trace, soft_timeout)
            if callback:
                self.post(callback, returned)
        except asyncio.CancelledError:
            # A cancelled task has not succeeded: calling back would acknowledge and lose it.
            if slot.reason == "hard" and timeout_callback:
                self.post(timeout_callback, False, timeout)
        except Exception:
            logger.exception("the tracer of a task failed")
        finally:
            for timer in timers:
                timer.cancel()

    async def _drive(self, slot: Slot, trace: Callable[[], Any], soft_timeout: float | None) -> Any:
        """Run the tracer; each time it switches out with an awaitable, await it and switch back in."""
        tracer = _Tracer(trace)
        tracer.gr_context = contextvars.copy_context()
        handed = tracer.switch()
        while not tracer.dead:
            try:
                answer = await handed
            except asyncio.CancelledError as cancelled:
                if slot.reason == "soft":
                    slot.reason = None
                    current = asyncio.current_task()
                    if current is not None:
                        current.uncancel()
                    handed = tracer.throw(SoftTimeLimitExceeded(soft_timeout))
                else:
                    handed = tracer.throw(cancelled)
            except BaseException as error:
                handed = tracer.throw(error)
            else:
                handed = tracer.switch(answer)
        return handed

    def terminate_job(self, pid: int, signal: Any = None) -> None:
        if slot := self._slots.get(pid):
            slot.terminate(signal)

    def on_stop(self) -> None:
        """Wait until every slot is free; in a cold shutdown, when Celery calls this too, end the tasks."""
        if state.should_terminate:
            self.on_terminate()
            return
        self._wait(math.inf)
        self._leave()

    def on_terminate(self) -> None:
        def end_all() -> None:
            for slot in list(self._slots.values()):
                slot.cancel("shutdown")

        self.loop.call_soon_threadsafe(end_all)
        self._wait(HAND_BACK_WITHIN)
        self._leave()

    def _wait(self, seconds: float) -> None:
        """Until every slot is free. The hub turns no more, so its part is done here."""
        end = time.monotonic() + seconds
        while self._slots and time.monotonic() < end:
            self._do_bookkeeping()
            time.sleep(0.02)

    def _leave(self) -> None:
        if not self._thread.is_alive():
            return
        self._do_bookkeeping()
        signals.worker_process_shutdown.send(sender=None, pid=None, exitcode=0)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(5)

    @property
    def num_processes(self) -> int:
        return int(self.limit)

    def _get_info(self) -> dict[str, Any]:
        info: dict[str, Any] = super()._get_info()
        return {**info, "running": len(self._slots)}
