"""P9: every key has a bounded time to live, or stands in the list of permanent ones and shrinks again."""

from __future__ import annotations

from k9_broker.adapters import keys, reaper
from k9_broker.failover import RETURNED
from k9_broker.jobs import JobState
from k9_broker.lateness import LATE
from k9_broker.requests import DEADLINES, Priority
from k9_broker.strategy.filters import OPEN
from promises.mechanisms import Switch, lua
from promises.p9_busy import a_busy_day, everything_ends, what_happened
from promises.stage import JOBS, Mechanism, Promise, Stage

BUSY = {*JobState} | {LATE, RETURNED, f"failover:{OPEN}"}
"""What must have happened."""
DAY = 24 * 3600
KEPT = JOBS.retention_seconds
LIVES = {
    keys.job(""): DEADLINES[Priority.BATCH] + KEPT + 1,
    keys.relay(""): DEADLINES[Priority.BATCH] + KEPT + 1,
    keys.turns(""): 2 * DAY,
    keys.running(""): 2 * DAY,
    keys.parked(""): 2 * DAY,
    keys.moved(""): DAY,
    keys.worker(""): 600,
    keys.pace(""): 3600,
    "k9:spent:": 40 * DAY,
    "k9:usage:": 400 * DAY,
    keys.DEAD: KEPT,
    reaper.LEASE: 3,
}
"""Seconds each key, or each key that begins so, may have left at most."""
EMPTY = {keys.waiting(""), "k9:queued:", keys.leases(""), keys.running(""), keys.parked("")}
EMPTY |= {keys.DEADLINES, keys.SATURATED, keys.WORKERS}
"""What is gone when no job is open and no worker is there."""
CELERYS = ("k9.local.", "k9.cloud.")
"""The queues themselves: lists of messages, which go when they are empty."""


async def keys_are_tidy(stage: Stage) -> None:
    await a_busy_day(stage)
    happened = what_happened(stage)
    during = look(stage, LIVES)
    await everything_ends(stage)
    found = look(stage, {**LIVES, keys.job(""): KEPT, keys.relay(""): KEPT})
    left = sorted(found & EMPTY)
    assert not left, f"{left} are not empty, and every job has ended"
    assert not list(stage.client.scan_iter("k9.*")), "messages are left"
    assert not BUSY - happened, f"the day was not busy: {BUSY - happened}"
    missing = {*LIVES, *keys.PERMANENT} - during
    assert not missing, f"the day was not busy: {missing}"


def look(stage: Stage, lives: dict[str, float]) -> set[str]:
    """The entries of the two lists that there are keys of. Complains of each key that is not as they say."""
    found = set()
    for raw in stage.client.scan_iter(count=1000):
        key, left = raw.decode(), stage.client.ttl(raw)
        if key.startswith(CELERYS) or left == -2:
            continue
        kind = _entry(key, [*lives, *keys.PERMANENT])
        assert kind, f"{key} stands in no list"
        found.add(kind)
        if kind in keys.PERMANENT:
            assert left == -1, f"{kind} is not permanent"
            assert keys.PERMANENT[kind]
            continue
        assert left != -1, f"{kind} lives for ever"
        assert left <= lives[kind], f"{kind} lives too long"
        if kind == keys.job("") and stage.client.hget(raw, "state") in (b"queued", b"running"):
            due = float(stage.client.hget(raw, "deadline_at") or 0)
            assert stage.now + left + 1 >= due, "a job is forgotten before its deadline"
    return found


def _entry(key: str, entries: list[str]) -> str:
    """An entry is a whole key, or how keys begin if a colon ends it."""
    return next((one for one in entries if key == one or (one[-1] == ":" and key.startswith(one))), "")


def tidy(off: Switch, complaint: str) -> Mechanism:
    return Mechanism(keys_are_tidy, off, complaint)


_JOB_LIVES = "redis.call('EXPIRE', job, math.ceil(tonumber(ARGV[3]) + tonumber(ARGV[4])))"

P9 = Promise(
    "p9_tidy",
    {
        "a record lives": tidy(lua("admit", _JOB_LIVES), "k9:job: lives for ever"),
        "a record lives its retention after the end": tidy(
            lua("parts/ends", "redis.call('EXPIRE', job, keep)"), "k9:job: lives too long"
        ),
        "a replayed record lives as long as it may run": tidy(
            lua("replay", _JOB_LIVES), "a job is forgotten before its deadline"
        ),
        "a relay lives": tidy(
            lua("parts/prelude", "redis.call('EXPIRE', relay, math.max(1, redis.call('TTL', job)))"),
            "k9:relay: lives for ever",
        ),
        "a relay lives its retention after the end": tidy(
            lua("parts/ends", "redis.call('EXPIRE', 'k9:relay:' .. id, keep)"), "k9:relay: lives too long"
        ),
        "turns live": tidy(
            lua(
                "parts/queues", "tenant) + by))\n  redis.call('EXPIRE', turns, TURNS_KEPT)", "tenant) + by))"
            ),
            "k9:turns: lives for ever",
        ),
        "who runs is forgotten": tidy(
            lua("claim", "redis.call('EXPIRE', running, TURNS_KEPT)"), "k9:running: lives for ever"
        ),
        "who is parked is forgotten": tidy(
            lua("claim", "redis.call('EXPIRE', parked, TURNS_KEPT)"), "k9:parked: lives for ever"
        ),
        "who moved is forgotten": tidy(
            lua("reroute", "redis.call('EXPIRE', 'k9:moved:' .. ARGV[7], MOVED_KEPT)"),
            "k9:moved: lives for ever",
        ),
        "accounts live": tidy(
            lua("parts/money", "redis.call('EXPIRE', account, SPENT_KEPT)"), "k9:spent: lives for ever"
        ),
        "usage lives": tidy(
            lua("parts/money", "redis.call('EXPIRE', usage, USAGE_KEPT)"), "k9:usage: lives for ever"
        ),
        "dead letters live": tidy(
            lua("parts/ends", "redis.call('EXPIRE', 'k9:dead', keep)"), "k9:dead lives for ever"
        ),
        "announcements live": tidy(lua("announce", ", 'EX', ARGV[4]"), "k9:worker: lives for ever"),
        "the pace lives": tidy(
            lua("pace", "redis.call('EXPIRE', key, math.max(kept, redis.call('TTL', key)))"),
            "k9:pace: lives for ever",
        ),
        "who waits no more leaves the index": tidy(
            lua("parts/queues", "redis.call('ZREM', index, id)"), "'k9:waiting:'"
        ),
        "who waits no more leaves its tenant's set": tidy(
            lua("parts/queues", "redis.call('SREM', queued_of(queue, tenant), id)"), "'k9:queued:'"
        ),
        "who is parked no more leaves the list": tidy(
            lua("parts/queues", "redis.call('ZREM', 'k9:parked:' .. tenant, id)"), "'k9:parked:'"
        ),
        "who runs no more leaves the leases": tidy(
            lua("parts/ends", "redis.call('ZREM', 'k9:leases:' .. backend, id)"), "'k9:leases:'"
        ),
        "who runs no more leaves its tenant's list": tidy(
            lua("parts/ends", "redis.call('ZREM', 'k9:running:' .. tenant, id)"), "'k9:running:'"
        ),
        "who has ended has no deadline": tidy(
            lua("parts/ends", "redis.call('ZREM', 'k9:deadlines', id)"), "'k9:deadlines'"
        ),
        "a queue that is well again is not saturated": tidy(
            lua("parts/places", "redis.call('HDEL', 'k9:saturated', place.queue)", "local _ = 0"),
            "'k9:saturated'",
        ),
        "who went away leaves the fleet": tidy(
            lua("fleet", "redis.call('ZREM', KEYS[1], nodes[i])"), "'k9:workers'"
        ),
    },
)
