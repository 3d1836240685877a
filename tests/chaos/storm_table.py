"""Every storm: what it does, for how long, and what it excuses."""

from __future__ import annotations

import os
import random
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count, cycle
from pathlib import Path

from chaos.storm_stack import APIS, MODEL, READ_TIMEOUT, WORKERS, Guise, Stormy
from k9_broker.adapters import keys
from stack import LEASE_SECONDS, ask
from stand import wait_until

_JOB_KEY = re.compile(re.escape(keys.job("").encode()) + rb"(job-[0-9a-z]{26})")
FROM = os.environ.get("K9_CHAOS_FROM", "")
"""A revision in git, whose workers and API stand beside today's in a storm of its own."""
AFTERMATH = LEASE_SECONDS + 3
"""Seconds between two restarts of Redis: for a lease after each, the reaper judges nobody."""
LOST_SPAN = 1.0
"""Seconds of writes that `appendfsync everysec` may lose."""


@dataclass(frozen=True)
class Weather:
    """What a disturber works with: `seconds` is how long it goes on, at least one round of it."""

    stack: Stormy
    seconds: float
    chance: random.Random

    def rounds(self, pause: float, *, least: int = 1) -> Iterator[int]:
        """The numbers of rounds until the time is over, with a pause after each: the storm's rhythm."""
        until = time.monotonic() + self.seconds
        for number in count():
            if number >= least and time.monotonic() >= until:
                return
            yield number
            time.sleep(pause if number + 1 < least else min(pause, max(0.0, until - time.monotonic())))

    def a_busy_worker(self) -> str:
        """One chosen by chance that has calls under way."""

        def found() -> str | None:
            busy = sorted({call.worker for call in self.stack.gates.calls if call.goes_on})
            return self.chance.choice(busy) if busy else None

        return str(wait_until(found, "a worker is busy", 30))


def workers_die(here: Weather) -> None:
    for _ in here.rounds(2.0, least=2):
        here.stack.kill(here.a_busy_worker())


def apis_die(here: Weather) -> None:
    for _, names in zip(here.rounds(2.0, least=2), cycle([APIS[:1], APIS, APIS[1:]]), strict=False):
        for name in names:
            here.stack.kill(name)


def workers_freeze(here: Weather) -> None:
    for _ in here.rounds(0.5):
        with here.stack.frozen(here.a_busy_worker()):
            time.sleep(LEASE_SECONDS + 1.5)


def connections_are_cut(here: Weather) -> None:
    """One connection at random, then all of a kind, then all."""
    redis = here.stack.redis.client
    for _, kind in zip(here.rounds(0.3), cycle(["one", "normal", "pubsub", "all"]), strict=False):
        if kind == "one":
            victim = here.chance.choice(redis.client_list())
            redis.execute_command("CLIENT", "KILL", "ID", victim["id"], "SKIPME", "yes")
            cut = 1
        elif kind == "all":
            cut = sum(
                int(redis.execute_command("CLIENT", "KILL", "TYPE", one, "SKIPME", "yes"))
                for one in ("normal", "pubsub")
            )
        else:
            cut = int(redis.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes"))
        here.stack.done["cuts"] += cut


def redis_restarts(here: Weather) -> None:
    for _ in here.rounds(AFTERMATH):
        here.stack.redis.stop()
        here.stack.redis.start()
        here.stack.done["restarts"] += 1


def redis_dies(here: Weather) -> None:
    """`appendfsync always`: what was answered was on the disk."""
    for _ in here.rounds(AFTERMATH):
        here.stack.redis.stop(kill=True)
        here.stack.redis.start()
        here.stack.done["kills"] += 1


def power_fails(here: Weather) -> None:
    """`appendfsync everysec`, and what was written in the last second is not on the disk.

    A killed process leaves its writes to the kernel; only a machine that dies takes them along. So the
    tail of the file is cut off, as far as `everysec` may be behind.
    """
    stack = here.stack
    stack.config(appendfsync="everysec")
    stack.redis.fsync = "everysec"
    try:
        for _ in here.rounds(AFTERMATH):
            _lose_the_last_second(stack)
    finally:
        stack.redis.fsync = "always"
        stack.config(appendfsync="always")


def _lose_the_last_second(stack: Stormy) -> None:
    stack.config(auto_aof_rewrite_percentage=0)  # one file from here to the cut
    wait_until(lambda: not stack.redis_says("persistence", "aof_rewrite_in_progress"), "one log is written")
    log = max((stack.redis.folder / "appendonlydir").glob("*.incr.aof"), key=lambda one: one.stat().st_mtime)
    size = log.stat().st_size
    time.sleep(LOST_SPAN)
    stack.power_cuts.append(time.monotonic())
    # A slow disk has Redis write down later what it has answered already; the tail is to tell of all of it.
    stack.redis.client.client_pause(20_000, all=False)
    wait_until(
        lambda: not stack.redis_says("persistence", "aof_buffer_length"), "what was answered is written"
    )
    stack.redis.stop(kill=True)
    kept, tail = log.read_bytes()[:size], log.read_bytes()[size:]
    log.write_bytes(kept)
    stack.redis.start()
    written = {job.decode() for job in _JOB_KEY.findall(tail)}
    stack.forgotten |= {job for job in written if not stack.redis.client.exists(keys.job(job))}
    # Redis forgot that these jobs had been begun, or had ended: K-9 does again what it cannot know.
    stack.excuse(None, stack.power_cuts[-1] - LOST_SPAN - 0.5)
    stack.done["power cuts"] += 1


def memory_runs_out(here: Weather) -> None:
    """For longer than a lease, so that nobody can renew one."""
    stack = here.stack
    for _ in here.rounds(2.0):
        used = stack.redis_says("memory", "used_memory")
        stack.config(maxmemory_policy="noeviction", maxmemory=used // 2)
        began = time.monotonic()
        try:
            wait_until(lambda: _refuses_cleanly(stack), "a submission is refused cleanly", 10)
            time.sleep(max(0.0, began + LEASE_SECONDS + 1 - time.monotonic()))
        finally:
            stack.config(maxmemory=0)
        stack.done["shortages"] += 1


def _refuses_cleanly(stack: Stormy) -> bool:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "is there memory?"}]}
    status, headers, said = ask(f"{stack.url}/v1/jobs", {"endpoint": "/v1/chat/completions", "body": body})
    if status == 202:
        return False
    assert (status, said["error"]["code"]) == (503, "ledger_unavailable"), said
    return 1 <= int({name.lower(): value for name, value in headers.items()}["retry-after"]) <= 60


def network_is_cut(here: Weather) -> None:
    """Between each worker and its backend: one is answered with silence, for longer than it has patience,
    one is refused meanwhile, one loses its connections."""
    nodes = list(WORKERS)
    for number in here.rounds(1.0):
        silent, refused, dropped = nodes[number % 3 :] + nodes[: number % 3]
        with here.stack.cut(silent, "hold"):
            with here.stack.cut(refused, "refuse"):
                time.sleep(1.5)
            with here.stack.cut(dropped, "drop"):
                time.sleep(READ_TIMEOUT + 0.5 - 1.5)


def clocks_differ(here: Weather) -> None:
    """Workers and an API process whose clocks are a day ahead or behind: deadlines are by Redis' clock."""
    ahead, behind = Guise(("storm_skew", "86400")), Guise(("storm_skew", "-86400"))
    here.stack.disguise({"east1": ahead, "west1": behind, "two": behind})
    time.sleep(here.seconds)


def versions_differ(here: Weather) -> None:
    """Workers and an API process of another version take the place of today's, under load."""
    here.stack.disguise(dict.fromkeys(("east1", "west1", "two"), Guise(("storm_version",))))
    time.sleep(here.seconds)


def versions_follow(here: Weather) -> None:
    """The same with an earlier version as it was: `K9_CHAOS_FROM` is a revision in git."""
    tree = here.stack.folder / "earlier"
    tree.mkdir(exist_ok=True)
    words = ["git", "archive", "--format=tar", FROM, "broker", "workers", "api"]
    tar = subprocess.run(words, cwd=Path(__file__).parents[2], check=True, capture_output=True).stdout
    subprocess.run(["tar", "x"], cwd=tree, input=tar, check=True)
    earlier = Guise(path=tuple(str(tree / part) for part in ("broker", "workers", "api")))
    here.stack.disguise(dict.fromkeys(("east1", "west1", "two"), earlier))
    time.sleep(here.seconds)


AT_THE_DOOR = ("ConnectError",)
"""Of an API process that leaves as it should, callers hear at most that it takes no more."""
ANYHOW = (*AT_THE_DOOR, "ReadError", "RemoteProtocolError", "WriteError", "ConnectTimeout")


@dataclass(frozen=True)
class Storm:
    name: str
    disturb: Callable[[Weather], None]
    breaks: tuple[str, ...] = ()
    """How connections of clients may break: not at all, while they are made, or at any time."""
    repeats: bool = False
    """Jobs under way may be called once more."""
    forgets: bool = False
    """Redis itself may lose jobs it was given in the last second."""
    leaves: tuple[str, ...] = ()
    """Keys without a time to live that an earlier version leaves behind."""
    disguises: bool = False
    """It begins where the one before left some in disguise."""
    tells: bool = False
    """Callers who wait at their connection may get an error instead of an answer."""


STORMS = (
    Storm("workers are killed", workers_die, repeats=True, tells=True),
    Storm("APIs are killed", apis_die, breaks=ANYHOW),
    Storm("workers freeze past their lease", workers_freeze, repeats=True, tells=True),
    Storm("connections to Redis are cut", connections_are_cut, tells=True),
    Storm("Redis restarts", redis_restarts, tells=True),
    Storm("Redis is killed, AOF always", redis_dies, tells=True),
    Storm("power fails, AOF everysec", power_fails, repeats=True, forgets=True, tells=True),
    Storm("Redis is out of memory", memory_runs_out, tells=True),
    Storm("workers are cut off from backends", network_is_cut, repeats=True, tells=True),
    Storm("clocks differ by a day", clocks_differ, breaks=AT_THE_DOOR, disguises=True),
    Storm("versions differ", versions_differ, breaks=AT_THE_DOOR, disguises=True),
    *(
        [
            Storm(
                f"upgrade from {FROM}",
                versions_follow,
                breaks=AT_THE_DOOR,
                disguises=True,
                leaves=("k9:seq",),
            )
        ]
        if FROM
        else []
    ),
)
