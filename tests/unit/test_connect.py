"""What every connection to Redis has to cope with."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from k9_broker.adapters.connect import ended


async def test_a_task_that_swallows_its_cancellation_ends_all_the_same() -> None:
    async def listen() -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)
        await asyncio.sleep(3600)

    task = asyncio.create_task(listen())
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await ended(task)
    assert task.cancelled()
