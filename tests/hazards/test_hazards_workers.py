"""Workers die, freeze, are cut off and leave: every job ends once, and nothing of Celery's is waited for."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
import redis

from hazards.conftest import LONG_LEASE, SLOTS, start_as
from hazards.counted import NONE, Tally, frozen
from k9_broker.adapters import keys
from k9_broker.testing import FakeServer
from stack import LEASE_SECONDS, Stack
from stand import RedisProcess, free_port, wait_until

QUEUE = "k9.local.fake.interactive"


def submitted(stack: Stack, count: int) -> list[str]:
    return [stack.submit(f"prompt {number}") for number in range(count)]


# -- 3: killed, cut, frozen -------------------------------------------------------------------------


def test_hazard_03_nothing_is_lost_or_done_twice_while_workers_are_killed(pair: Stack) -> None:
    tally, jobs = Tally(pair), []
    pair.fake.behave(latency_ms=150)
    for kill in range(4):
        jobs += submitted(pair, 40)
        pair.fake.wait(lambda seen: seen["active"] > 0, timeout=20)
        victim = pair.workers[f"w{kill % 2 + 1}"]
        victim.stop(signal.SIGKILL)
        victim.start()
    assert tally.damage(jobs, 60) == NONE


def test_hazard_03_cut_connections_neither_lose_a_job_nor_call_twice(pair: Stack) -> None:
    tally, jobs = Tally(pair), []
    pair.fake.behave(latency_ms=300)
    for _ in range(6):
        jobs += submitted(pair, 20)
        for kind in ("normal", "pubsub"):
            pair.redis.client.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
    assert tally.damage(jobs, 60) == NONE
    assert pair.fake.stats()["inferences"] == len(jobs)
    assert all(child.alive for child in pair.workers.values())


def test_hazard_03_a_frozen_worker_is_fenced_when_it_thaws(pair: Stack) -> None:
    """Its answers have come meanwhile, and another worker has recorded others."""
    tally = Tally(pair)
    pair.fake.behave(latency_ms=4000)
    jobs = submitted(pair, 2 * SLOTS)
    pair.fake.wait(lambda seen: seen["active"] == 2 * SLOTS, timeout=20)
    held = [job for job in jobs if pair.job(job)["worker"] == "k9-w1@test"]
    frozen(pair, "w1")
    pair.fake.behave(latency_ms=50)
    assert held
    assert pair.ended(jobs, 4 * LEASE_SECONDS + 10) == {"succeeded": 2 * SLOTS}
    before = {job: pair.job(job) for job in jobs}
    assert {before[job]["worker"] for job in held} == {"k9-w2@test"}
    pair.workers["w1"].send(signal.SIGCONT)

    def is_of_use_again() -> bool:
        more = submitted(pair, 20)
        jobs.extend(more)
        pair.ended(more, 20)
        return any(pair.job(job)["worker"] == "k9-w1@test" for job in more)

    wait_until(is_of_use_again, "the thawed worker takes jobs")
    assert tally.damage(jobs, 20) == NONE
    assert {job: pair.job(job) for job in before} == before


# -- 10: the orphaned mutex -------------------------------------------------------------------------


@contextmanager
def overheard(client: redis.Redis) -> Iterator[list[str]]:
    """Every command Redis is given while the block runs."""
    said: list[str] = []

    def listen() -> None:
        with suppress(redis.RedisError, OSError, ValueError), client.monitor() as monitor:
            for command in monitor.listen():
                said.append(str(command["command"]))

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    wait_until(lambda: said, "commands are overheard")
    yield said
    for one in client.client_list():
        if one["cmd"] == "monitor":
            client.client_kill_filter(_id=one["id"])
    thread.join(10)


def test_hazard_10_nothing_waits_for_an_orphaned_unacked_mutex(pair: Stack) -> None:
    """kombu restores lost messages under a lock, which a worker that dies during it leaves behind. K-9's
    workers neither note messages in `unacked` nor look there: who brings jobs back is the reaper."""
    tally, client = Tally(pair), pair.redis.client
    client.set("unacked_mutex", "left by a worker that died")
    pair.fake.behave(latency_ms=3000)
    try:
        with overheard(client) as said:
            jobs = submitted(pair, 2 * SLOTS)
            pair.fake.wait(lambda seen: seen["active"] == 2 * SLOTS, timeout=20)
            pair.workers["w1"].stop(signal.SIGKILL)
            assert tally.damage(jobs, 3 * LEASE_SECONDS + 10) == NONE
        assert any(QUEUE in command for command in said)
        assert not [command for command in said if "unacked" in command]
        assert client.keys("unacked*") == [b"unacked_mutex"]
    finally:
        client.delete("unacked_mutex")


# -- 4: leaving -------------------------------------------------------------------------------------

LEAVES_SOON = """
from k9_workers import lifecycle
from k9_workers.__main__ import main

lifecycle.LEAVE_AFTER = 4.0
raise SystemExit(main())
"""


@pytest.fixture(scope="module")
def leaving_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    redis = RedisProcess(tmp_path_factory.mktemp("leaving"), free_port()).start()
    stack = Stack(redis.folder, redis, FakeServer(), slots=8, extra=LONG_LEASE)
    stack.start_api()
    try:
        yield stack
    finally:
        stack.stop()


@pytest.fixture
def leaving(leaving_stack: Stack) -> Stack:
    """One worker, which waits four seconds for its jobs before it hands them back."""
    stack = leaving_stack
    stack.fake.reset()
    for child in stack.workers.values():
        child.stop()
    start_as(stack, "leaves_soon", LEAVES_SOON)
    return stack.wait_ready(1)


@pytest.mark.parametrize(("how", "kept"), [(signal.SIGQUIT, 0), (signal.SIGTERM, 4)], ids=["cold", "soft"])
def test_hazard_04_what_runs_goes_back_when_a_worker_leaves(
    leaving: Stack, how: signal.Signals, kept: int
) -> None:
    """Eight run and three wait. A soft shutdown lets the short ones end. No job is acknowledged and gone,
    none is left with a lease."""
    tally, client = Tally(leaving), leaving.redis.client
    leaving.fake.behave(latency_ms=3000 if kept else 60_000)
    short = submitted(leaving, 4)
    leaving.fake.wait(lambda seen: seen["active"] == 4)
    leaving.fake.behave(latency_ms=60_000)
    others = submitted(leaving, 7)
    leaving.fake.wait(lambda seen: seen["active"] == 8)
    leaving.workers["w1"].stop(how, seconds=10)
    states = [leaving.job(job)["state"] for job in (*short, *others)]
    assert states == ["succeeded"] * kept + ["queued"] * (11 - kept)
    assert {leaving.job(job)["attempts"] for job in others} == {0}
    assert client.zcard(keys.leases("fake")) == 0
    assert client.llen(QUEUE) == client.zcard(keys.waiting(QUEUE)) == 11 - kept
    leaving.fake.wait(lambda seen: seen["active"] == 0)  # the calls were closed
    leaving.fake.behave(latency_ms=0)
    leaving.workers["w1"].start()
    assert tally.damage(short + others, 20) == NONE
    assert {leaving.job(job)["attempts"] for job in others} == {1}
