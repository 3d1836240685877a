"""The reaper: what a sweep costs beside a long queue, what its death costs, and that two do no harm."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import pytest

from k9_broker.adapters import keys, reaper
from k9_broker.adapters.connect import Commands, connect
from k9_broker.adapters.reaper import Reaper
from k9_broker.adapters.redis_fleet import RedisFleet
from k9_broker.adapters.redis_ledger import RedisLedger
from k9_broker.jobs import Job, new_job_id
from stand import JOBS, RedisProcess, wait_until
from walks import admit, announced, candidate, chat, claim, decided

QUEUE = "k9.local.a.interactive"
MANY = 50_000
SLICE = 5_000


@pytest.fixture
async def sweeper(commands: Commands, ledger: RedisLedger, fleet: RedisFleet) -> Reaper:
    await fleet.announce(announced("a", max_waiting=10 * MANY))
    return Reaper(commands, ledger, fleet, lease_seconds=JOBS.lease_seconds)


# -- the cost of a sweep ----------------------------------------------------------------------------


class Repeated(Commands):
    """Runs the next admission many times in one go, under other ids: only Redis is busy with it."""

    times = 1
    made = 0

    async def script(self, name: str, keys: list[str], args: list[Any]) -> Any:
        if name != "admit" or self.times == 1:
            return await super().script(name, keys, args)
        _, source = self._load(name)
        many = f"""
            local keys, words, id, named = KEYS, ARGV, ARGV[1], {{}}
            local function admit(KEYS, ARGV) {source}
            end
            for _, list in ipairs({{ keys, words }}) do
              for i = 1, #list do
                local from, to = string.find(list[i], id, 1, true)
                if from then
                  local before, after = string.sub(list[i], 1, from - 1), string.sub(list[i], to + 1)
                  named[#named + 1] = {{ list, i, before, after }}
                end
              end
            end
            local answer
            for number = {self.made + 1}, {self.made + self.times} do
              local other = 'job-' .. string.rep('0', 20) .. string.format('%06d', number)
              for _, one in ipairs(named) do
                one[1][one[2]] = one[3] .. other .. one[4]
              end
              answer = admit(keys, words)
            end
            return answer"""
        self.made, self.times = self.made + self.times, 1
        return await self.command("EVAL", many, len(keys), *keys, *args)


class Cost(NamedTuple):
    """What Redis did for a sweep."""

    commands: int
    microseconds: int
    bytes: int


def spent(redis: RedisProcess) -> Cost:
    """So far. Commands inside a script count too, their time once: a script's holds theirs."""
    said: Any = redis.client.info("all")
    usec = sum(
        row["usec"]
        for name, row in said.items()
        if name in ("cmdstat_evalsha", "cmdstat_eval", "cmdstat_set", "cmdstat_get", "cmdstat_pexpire")
    )
    return Cost(said["total_commands_processed"], usec, said["total_net_output_bytes"])


async def cost_of_sweep(sweeper: Reaper, redis: RedisProcess) -> Cost:
    """The cheapest of some sweeps, in each figure."""
    costs = []
    nothing_after = spent(redis)
    overhead = spent(redis).bytes - nothing_after.bytes
    for _ in range(7):
        before = spent(redis)
        await sweeper.sweep()
        after = spent(redis)
        costs.append([late - early for late, early in zip(after, before, strict=True)])
    commands, microseconds, sent = (min(column) for column in zip(*costs, strict=True))
    return Cost(commands, microseconds, sent - overhead)


@pytest.fixture
def unlogged(clean_redis: RedisProcess) -> Iterator[RedisProcess]:
    """Redis without its log, of which 50,000 records would be a hundred megabytes."""
    clean_redis.client.config_set("appendonly", "no")
    yield clean_redis
    clean_redis.client.flushall()
    clean_redis.client.config_set("appendonly", "yes")
    done = {"aof_rewrite_in_progress": 0, "aof_rewrite_scheduled": 0}  # until then Redis does not stop
    wait_until(lambda: done.items() <= clean_redis.client.info("persistence").items(), "a log is there")


async def test_hazard_11_a_sweep_costs_the_same_beside_fifty_thousand_waiting(
    unlogged: RedisProcess, sweeper: Reaper, fleet: RedisFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = unlogged.client
    commands = Repeated(connect(f"{unlogged.url}?socket_timeout=60", retries=0))
    ledger = RedisLedger(commands, JOBS)
    place = decided(candidate("a", mark=10 * MANY))

    async def fill(count: int) -> None:
        for _ in range(0, count, SLICE):  # an admission that takes Redis seconds is refused as late
            commands.times = min(count, SLICE)
            await ledger.admit(new_job_id(), replace(chat(), deadline=1e7), place)

    try:
        await fill(50)
        few = await cost_of_sweep(sweeper, unlogged)
        client.flushdb()
        await fleet.announce(announced("a", max_waiting=10 * MANY))
        await fill(MANY)
    finally:
        await commands.close()
    assert client.llen(QUEUE) == client.zcard(keys.waiting(QUEUE)) == MANY
    many = await cost_of_sweep(sweeper, unlogged)
    assert many.commands <= few.commands + 5
    assert many.microseconds <= 3 * few.microseconds + 1000
    assert many.bytes <= few.bytes + 1000
    # Cheap, and yet it sees the one whose message is gone.
    monkeypatch.setattr(reaper, "LOST_AFTER", 0.0)
    lost = json.loads(client.rpop(QUEUE))["headers"]["id"]
    assert (await sweeper.sweep())["requeued"] == 1
    assert client.hget(keys.job(lost), "generation") == b"2"
    assert client.llen(QUEUE) == MANY


# -- its death, and a second one --------------------------------------------------------------------

SWEEPS = """
import asyncio, sys
from k9_broker.adapters.connect import Commands, connect
from k9_broker.adapters.reaper import Reaper
from k9_broker.adapters.redis_fleet import RedisFleet
from k9_broker.adapters.redis_ledger import RedisLedger
from stand import JOBS

async def main():
    commands = Commands(connect(sys.argv[1], retries=1))
    await Reaper(commands, RedisLedger(commands, JOBS), RedisFleet(commands), lease_seconds=2.0).run()

asyncio.run(main())
"""


async def orphans(ledger: RedisLedger, redis: RedisProcess, count: int) -> list[Job]:
    """Running jobs whose worker is long dead, and whose messages it had taken."""
    jobs = [(await claim(ledger, await admit(ledger))).job for _ in range(count)]
    redis.client.delete(QUEUE)
    redis.client.zadd(keys.leases("a"), dict.fromkeys((job.id for job in jobs), 0))
    return jobs


async def requeued_once(ledger: RedisLedger, redis: RedisProcess, jobs: list[Job]) -> bool:
    now = [await ledger.get(job.id) for job in jobs]
    taken = Counter(json.loads(message)["headers"]["id"] for message in redis.client.lrange(QUEUE, 0, -1))
    assert set(taken.values()) <= {1}
    assert {job.generation for job in now} <= {1, 2}
    return all(job.generation == 2 for job in now) and len(taken) == len(jobs)


async def test_hazard_11_a_killed_reaper_is_succeeded_within_seconds(
    ledger: RedisLedger, sweeper: Reaper, clean_redis: RedisProcess
) -> None:
    """It dies with the lease in its hand, as a worker does inside kombu's sweep."""
    client = clean_redis.client
    first = subprocess.Popen(
        [sys.executable, "-c", SWEEPS, clean_redis.url],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        await asyncio.to_thread(wait_until, lambda: client.exists(reaper.LEASE), "it sweeps")
    finally:
        first.kill()
        first.wait(10)
    jobs = await orphans(ledger, clean_redis, 5)
    assert client.exists(reaper.LEASE), "nobody has let go of it"
    successor = asyncio.create_task(sweeper.run())
    try:
        async with asyncio.timeout(10):
            while not await requeued_once(ledger, clean_redis, jobs):
                await asyncio.sleep(0.05)
    finally:
        successor.cancel()
        await asyncio.wait([successor])


async def test_hazard_11_two_reapers_at_once_bring_a_job_back_once(
    commands: Commands,
    ledger: RedisLedger,
    fleet: RedisFleet,
    sweeper: Reaper,
    clean_redis: RedisProcess,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As when one was frozen beyond its lease."""
    monkeypatch.setattr(reaper, "LOST_AFTER", 0.0)
    jobs = await orphans(ledger, clean_redis, 30)
    jobs += [await admit(ledger) for _ in range(30)]
    clean_redis.client.delete(QUEUE)  # their messages are lost
    other = Commands(connect(clean_redis.url, retries=0))
    second = Reaper(other, RedisLedger(other, JOBS), RedisFleet(other), lease_seconds=JOBS.lease_seconds)
    try:
        counts = await asyncio.gather(sweeper.sweep(), second.sweep())
    finally:
        await other.close()
    assert sum(one["requeued"] for one in counts) == 60
    assert await requeued_once(ledger, clean_redis, jobs)
    for job in jobs:
        assert await ledger.claim(job.id, 2, "w", job.kind)
        assert (await ledger.get(job.id)).attempts <= 2
