"""The decision that queued a job is kept with it, short or long."""

from __future__ import annotations

import pytest

from k9_broker.adapters import keys
from k9_broker.adapters.connect import Commands
from k9_broker.adapters.redis_ledger import RedisLedger
from k9_broker.jobs import new_job_id
from k9_broker.strategy.explanation import explain
from walks import candidate, chat, decided


@pytest.mark.parametrize("places", [1, 300])
async def test_a_decision_is_read_as_it_was_made(
    places: int, commands: Commands, ledger: RedisLedger
) -> None:
    decision = decided(*(candidate(f"place-{n}", model=f"model-{n}") for n in range(places)))
    job = await ledger.admit(new_job_id(), chat(), decision)
    found, explained = await ledger.explanation(job.id)
    said = explain(decision)
    assert found == job
    assert [one["model"] for one in explained["candidates"]] == [one["model"] for one in said["candidates"]]
    assert explained.keys() == said.keys()
    assert await commands.command("HSTRLEN", keys.job(job.id), "decision") < 8_000
