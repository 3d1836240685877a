"""What `auto` embedded with is remembered by Redis, whoever comes and goes."""

from __future__ import annotations

from dataclasses import replace

from k9_broker.adapters.connect import Commands
from k9_broker.adapters.redis_fleet import RedisFleet
from k9_broker.adapters.redis_ledger import RedisLedger
from k9_broker.jobs import new_job_id
from k9_broker.requests import InferenceRequest, Operation
from walks import candidate, decided

REQUEST = InferenceRequest(Operation.EMBEDDINGS, "auto", {"model": "auto", "input": "a"})


async def test_the_model_that_auto_embeds_with_is_remembered(commands: Commands, ledger: RedisLedger) -> None:
    fleet = RedisFleet(commands)
    assert (await fleet.snapshot()).embedding_model is None
    chosen = replace(decided(candidate("here", model="minilm")), embedding_model="minilm")
    await ledger.admit(new_job_id(), REQUEST, chosen)
    assert (await fleet.snapshot(fresh=True)).embedding_model == "minilm"


async def test_other_jobs_change_nothing_about_it(commands: Commands, ledger: RedisLedger) -> None:
    await ledger.admit(new_job_id(), REQUEST, decided(candidate("here", model="other")))
    assert (await RedisFleet(commands).snapshot()).embedding_model is None
