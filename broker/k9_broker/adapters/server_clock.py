"""Redis' clock, as near as a process can know it."""

from __future__ import annotations

import time

from k9_broker.adapters.connect import Commands

_READ_EVERY = 60.0


class ServerClock:
    """Read once a minute, and carried on by this process's monotonic clock in between.

    It is behind by at most the round trip of the last reading, and never ahead.
    """

    def __init__(self, commands: Commands) -> None:
        self._commands = commands
        self._offset = 0.0
        self._read_at = float("-inf")

    async def now(self) -> float:
        """Unix seconds. Raises `LedgerUnavailable`."""
        here = time.monotonic()
        if here - self._read_at > _READ_EVERY:
            seconds, microseconds = await self._commands.command("TIME")
            here = time.monotonic()
            self._offset = int(seconds) + int(microseconds) / 1e6 - here
            self._read_at = here
        return here + self._offset
