"""What a tenant used: one row a day, kind and model, from jobs that ran."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from k9_broker.adapters import keys
from k9_broker.adapters.redis_ledger import RedisLedger
from k9_broker.errors import BackendUnreachable
from k9_broker.jobs import JobState, new_job_id
from k9_broker.models import Prices
from k9_broker.requests import Kind
from k9_broker.results import Outcome, Result, Usage
from k9_broker.strategy.decision import Candidate
from k9_broker.usage import UsageRow
from stand import RedisProcess
from walks import candidate, chat, claim, decided

LOCAL = candidate("here", model="small")
CLOUD = candidate("away", Kind.CLOUD, model="large one", cost=100)
UNPRICED = candidate("away", Kind.CLOUD, model="unpriced", cost=None)
LISTED = Prices("large one", 0.002, 0.004)
"""Two nano-dollars a token in, four a token out."""


async def run(
    ledger: RedisLedger,
    place: Candidate,
    cost: int | None,
    *,
    tenant: str = "acme",
    cloud: Prices | None = None,
    outcome: Outcome | None = None,
) -> None:
    asked = replace(chat(), tenant=tenant)
    job = await ledger.admit(new_job_id(), asked, decided(place, cloud=cloud))
    outcome = outcome or Outcome.succeeded(Result(place.model, Usage(30, 10)))
    assert await ledger.finish(await claim(ledger, job, place.kind), outcome, cost)


async def test_jobs_tokens_and_money_add_up_by_kind_and_model(ledger: RedisLedger) -> None:
    await run(ledger, LOCAL, 0, cloud=LISTED)
    await run(ledger, LOCAL, 25, cloud=LISTED)
    await run(ledger, CLOUD, 90, cloud=LISTED)
    await run(ledger, CLOUD, 110)  # nothing to compare with: counts as cost, not in the saving
    await run(ledger, UNPRICED, None, cloud=LISTED)
    await run(ledger, LOCAL, 7, tenant="other")
    today = datetime.now(UTC).date()
    rows = await ledger.usage("acme", 2)
    assert rows == [
        UsageRow(today, "large one", Kind.CLOUD, 2, 60, 20, 200, 90, 100),
        UsageRow(today, "small", Kind.LOCAL, 2, 60, 20, 25, 25, 200),
        UsageRow(today, "unpriced", Kind.CLOUD, 1, 30, 10, 0, 0, 0),
    ]
    assert [row.saving for row in rows] == [10, 175, 0]
    assert [(row.model, row.cost) for row in await ledger.usage("other", 1)] == [("small", 7)]
    assert await ledger.usage("nobody", 3) == []


async def test_one_job_tells_what_it_saved(ledger: RedisLedger) -> None:
    job = await ledger.admit(new_job_id(), chat(), decided(LOCAL, cloud=LISTED))
    assert job.cloud == LISTED
    claimed = await claim(ledger, job)
    await ledger.finish(claimed, Outcome.succeeded(Result("small", Usage(1000, 500))), 3)
    ended = await ledger.get(job.id)
    assert (ended.cost, ended.cloud_cost, ended.cloud) == (3, 4000, LISTED)


async def test_a_failed_job_counts_with_what_it_used(ledger: RedisLedger) -> None:
    await run(ledger, CLOUD, 12, outcome=Outcome.failed(BackendUnreachable(), Usage(30, 2)))
    (row,) = await ledger.usage("acme", 1)
    assert (row.jobs, row.prompt_tokens, row.completion_tokens, row.cost) == (1, 30, 2, 12)


async def test_what_never_ran_leaves_no_trace(ledger: RedisLedger) -> None:
    job = await ledger.admit(new_job_id(), chat(), decided(CLOUD, budget=100))
    await ledger.cancel(job.id)
    assert await ledger.usage("default", 1) == []


async def test_a_job_that_is_cancelled_while_it_runs_counts_with_its_estimate(ledger: RedisLedger) -> None:
    job = await ledger.admit(new_job_id(), chat(), decided(CLOUD, cloud=LISTED))
    await ledger.cancel((await claim(ledger, job, Kind.CLOUD)).job.id)
    (row,) = await ledger.usage("default", 1)
    assert (row.jobs, row.cost, row.compared_cost, row.cloud_cost) == (1, 100, 0, 0)


async def test_money_is_on_the_account_of_the_day_it_was_set_aside(
    ledger: RedisLedger, clean_redis: RedisProcess
) -> None:
    """A job that began before midnight is settled there, not on the next day's budget."""
    redis = clean_redis.client
    job = await ledger.admit(new_job_id(), chat(), decided(CLOUD, budget=100))
    today = await ledger._today()
    account = keys.spent("default", today)
    assert redis.hget(keys.job(job.id), "account") == account.encode()
    yesterday = keys.spent("default", today - 1)
    redis.rename(account, yesterday)
    redis.hset(keys.job(job.id), "account", yesterday)
    assert await ledger.spent("default") == 0
    await ledger.finish(await claim(ledger, job, Kind.CLOUD), Outcome.succeeded(Result("m")), 30)
    assert (redis.get(yesterday), redis.get(account)) == (b"30", None)
    assert redis.ttl(yesterday) > 39 * 86400


async def test_an_account_that_is_gone_is_not_made_again(
    ledger: RedisLedger, clean_redis: RedisProcess
) -> None:
    job = await ledger.admit(new_job_id(), chat(), decided(CLOUD, budget=100))
    account = keys.spent("default", await ledger._today())
    clean_redis.client.delete(account)
    await ledger.finish(await claim(ledger, job, Kind.CLOUD), Outcome.succeeded(Result("m")), 30)
    assert not clean_redis.client.exists(account)


async def test_an_answer_whose_tokens_nobody_counted_is_compared_with_nothing(ledger: RedisLedger) -> None:
    uncounted = Outcome.succeeded(Result("large one"))
    await run(ledger, CLOUD, None, cloud=LISTED, outcome=uncounted)
    (row,) = await ledger.usage("acme", 1)
    assert (row.jobs, row.cost, row.saving) == (1, 100, 0)


async def test_numbers_that_redis_cannot_count_do_not_keep_a_job_from_ending(ledger: RedisLedger) -> None:
    job = await ledger.admit(new_job_id(), chat(), decided(LOCAL, cloud=LISTED))
    absurd = Outcome.succeeded(Result("small", Usage(10**30, 10**30)))
    assert await ledger.finish(await claim(ledger, job), absurd, 10**30)
    assert (await ledger.get(job.id)).state is JobState.SUCCEEDED
