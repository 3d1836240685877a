"""Everything a process needs of one Redis, opened together and closed together."""

from __future__ import annotations

import asyncio
from typing import Self

from k9_broker.adapters.connect import Commands, connect
from k9_broker.adapters.reaper import Reaper
from k9_broker.adapters.redis_fleet import RedisFleet
from k9_broker.adapters.redis_ledger import RedisLedger
from k9_broker.adapters.redis_wake import RedisRelayReader
from k9_broker.settings import JobSettings


class RedisBroker:
    """The API's adapters. Opening does not need Redis to be up; each call says when it is not."""

    def __init__(
        self,
        commands: Commands,
        ledger: RedisLedger,
        fleet: RedisFleet,
        relay: RedisRelayReader,
        reaper: asyncio.Task[None],
    ) -> None:
        self.ledger = ledger
        self.fleet = fleet
        self.relay = relay
        self._commands = commands
        self._reaper = reaper

    @classmethod
    async def open(cls, url: str, jobs: JobSettings) -> Self:
        # One retry: a caller would rather hear 503 and a Retry-After than wait.
        commands = Commands(connect(url, retries=1))
        ledger = RedisLedger(commands, jobs)
        fleet = RedisFleet(commands)
        relay = RedisRelayReader(connect(url, retries=0, connections=2), commands)
        relay.start()
        reaper = Reaper(commands, ledger, fleet, lease_seconds=jobs.lease_seconds)
        return cls(commands, ledger, fleet, relay, asyncio.create_task(reaper.run(), name="reaper"))

    async def close(self) -> None:
        self._reaper.cancel()
        await asyncio.wait([self._reaper])
        await self.relay.close()
        await self._commands.close()
