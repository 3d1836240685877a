"""Commands that share round trips: each asker gets an answer or an error of its own, never silence."""

from __future__ import annotations

import asyncio

import pytest

from k9_broker.adapters.connect import Commands
from k9_broker.errors import LedgerUnavailable
from stand import RedisProcess


async def test_a_word_that_cannot_be_sent_fails_and_leaves_nobody_waiting(commands: Commands) -> None:
    async with asyncio.timeout(5):
        said = await asyncio.gather(
            *(commands.command("SET", "k", "\ud800"), commands.command("PING")), return_exceptions=True
        )
        assert isinstance(said[0], UnicodeEncodeError)
        assert await commands.command("PING")


async def test_a_redis_that_refuses_to_write_is_unavailable(
    commands: Commands, clean_redis: RedisProcess
) -> None:
    clean_redis.client.config_set("min-replicas-to-write", 1)
    try:
        with pytest.raises(LedgerUnavailable, match="NOREPLICAS"):
            await commands.command("SET", "k", "v")
        with pytest.raises(LedgerUnavailable, match="NOREPLICAS"):
            await commands.script("announce", ["k9:workers", "k9:worker:n"], ["n", "{}", 8, 600])
    finally:
        clean_redis.client.config_set("min-replicas-to-write", 0)
