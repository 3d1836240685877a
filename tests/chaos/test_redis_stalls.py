"""Redis stops answering and comes back: what was refused stays refused."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from k9_broker.adapters.connect import Commands, connect
from k9_broker.adapters.redis_ledger import RedisLedger
from k9_broker.errors import LedgerUnavailable
from stand import JOBS, RedisProcess, free_port, wait_until
from walks import admit


def calls(server: RedisProcess) -> int:
    """Scripts run so far; the first of a kind is run twice, by hash and then by its text."""
    return int(server.client.info("commandstats")["cmdstat_evalsha"]["calls"])  # type: ignore[index]


async def test_an_admission_that_failed_is_not_made_when_redis_thaws(tmp_path: Path) -> None:
    server = RedisProcess(tmp_path, free_port()).start()
    commands = Commands(connect(server.url, retries=1))
    ledger = RedisLedger(commands, JOBS)
    assert server.process is not None
    try:
        await admit(ledger)
        server.process.send_signal(signal.SIGSTOP)
        with pytest.raises(LedgerUnavailable):
            await admit(ledger)
        server.process.send_signal(signal.SIGCONT)
        # The first try lay in its socket all the while: Redis reads it now.
        wait_until(lambda: calls(server) == 2, "Redis has met the late admission")
        assert server.client.llen("k9.local.a.interactive") == 1
        await admit(ledger)
        assert server.client.llen("k9.local.a.interactive") == 2
    finally:
        server.process.send_signal(signal.SIGCONT)
        await commands.close()
        server.stop()
