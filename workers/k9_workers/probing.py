"""Looks after one instance: how busy it is, whether an idle one is there, whether an ill one is well again.

A look asks for the server's load, or for its list of models when it has had no traffic: it costs nothing
and loads no model. That it answers says nothing of its inferences, so a circuit that failed inferences
opened is tried with a real one of a single token; only at local backends, where it is free. What runs in
a cloud is tried by the next job.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from k9_broker.breaker import Sign, sign_of
from k9_broker.errors import BackendOverloaded, BackendTimeout, BackendUnreachable, K9Error
from k9_broker.health import CircuitState
from k9_broker.requests import InferenceRequest, Operation
from k9_workers.live import LiveInstance

logger = logging.getLogger(__name__)

LOOK_SECONDS = 10.0
"""How long a look may take."""
TRIAL_SECONDS = 60.0
"""How long a probe with a real inference may take; a model may have to be loaded first."""
LOOK_AGAIN = 0.5
"""Seconds after a look that found something wrong, and between two trials."""

_SMALLEST: Mapping[Operation, Mapping[str, Any]] = {
    Operation.CHAT: {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1},
    Operation.COMPLETIONS: {"prompt": "Hi", "max_tokens": 1},
    Operation.EMBEDDINGS: {"input": "Hi"},
}


async def look_after(one: LiveInstance) -> None:
    """Look at the instance every `probe_seconds` until cancelled, and as soon as an open circuit's time
    is over. With 0 seconds it is not looked at, and jobs alone try an open circuit."""
    every = one.backend.probe_seconds
    if not every:
        await asyncio.Event().wait()
    due, epoch = time.monotonic(), one.breaker.epoch
    while True:
        one.changed.clear()
        now = time.monotonic()
        if one.breaker.epoch != epoch:  # it has opened since: it is tried as soon as it may be
            due, epoch = now, one.breaker.epoch
        wait: float | None = max(0.0, due - now)
        match one.breaker.state_at(now):
            case CircuitState.OUT:
                wait = None
            case CircuitState.OPEN:
                wait = one.breaker.retry_seconds(now)
            case CircuitState.HALF_OPEN if not one.breaker.fit(now):
                wait = None
            case CircuitState.HALF_OPEN if now >= due:
                due = time.monotonic() + (LOOK_AGAIN if await _try(one) else every)
                continue
            case CircuitState.CLOSED if now >= due:
                well = await _look(one, idle=not one.in_flight and now - one.heard_at >= every)
                # Workers that look at one server do not do it in step.
                due = time.monotonic() + (every * random.uniform(0.9, 1.1) if well else LOOK_AGAIN)  # noqa: S311
                continue
        with suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await one.changed.wait()


async def _look(one: LiveInstance, *, idle: bool) -> bool:
    """Read the load; find out whether an idle instance is there. Gives whether nothing is wrong."""
    epoch = one.breaker.epoch
    error = await _load(one)
    if error is None and one.load is None and idle:
        error = await _listed(one)
    if isinstance(error, BackendTimeout) and one.in_flight:  # it has more to do than to tell us
        return True
    if error is not None or idle:
        one.looked(epoch, error)
    return error is None


async def _try(one: LiveInstance) -> bool:
    """Find out whether the instance of a half-open circuit is well. Gives whether a probe could show it."""
    if not one.breaker.needs_inference:
        epoch = one.begin_look()
        try:
            error = await _load(one) or await _listed(one)
        except BaseException:
            one.leave_look(epoch)
            raise
        one.looked(epoch, error)
        return True
    epoch = one.breaker.epoch
    error = await _load(one) or await _listed(one)
    if one.breaker.epoch != epoch or not one.breaker.fit(time.monotonic()):
        return True  # jobs were quicker
    if error is not None:
        one.looked(epoch, error)
        return True
    if one.failed_as is None or not one.probe_shows or one.breaker.state is CircuitState.CLOSED:
        return False
    await _infer(one, *one.failed_as)
    return True


async def _infer(one: LiveInstance, operation: Operation, model: str) -> None:
    request = InferenceRequest(operation, model, {"model": model, **_SMALLEST[operation]})
    call = one.begin(request)
    try:
        async with asyncio.timeout(TRIAL_SECONDS):
            await one.caller.call(request)
    except K9Error as error:
        one.failed(call, error)
        if sign_of(error) is Sign.REFUSED:  # so small a request tells nothing: the next job will
            one.failed_as = None
    except TimeoutError:
        one.failed(call, BackendTimeout())
    except BaseException:
        one.left(call)
        raise
    else:
        one.answering(call)
        one.left(call)


async def _load(one: LiveInstance) -> K9Error | None:
    """Read the load. Gives what is wrong with the server; one that only cannot tell its load is well."""
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            one.says(await one.caller.load())
    except (BackendUnreachable, BackendTimeout, BackendOverloaded) as error:
        one.says(None)
        return error
    except TimeoutError:
        one.says(None)
        return BackendTimeout()
    except K9Error as error:
        logger.debug("%s does not tell its load: %s", one.name, error.code)
        one.says(None)
    return None


async def _listed(one: LiveInstance) -> K9Error | None:
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            one.listed = frozenset(await one.caller.listed())
    except TimeoutError:
        return BackendTimeout()
    except K9Error as error:
        return error
    return None
