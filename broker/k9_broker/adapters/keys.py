"""Every Redis key K-9 writes, in one place, each with its life time.

Celery's own keys (the queue lists, `unacked*`, `_kombu.*`, `*.pidbox`) stand beside them without a
prefix, so K-9 wants a Redis database of its own.
"""

from __future__ import annotations

DEADLINES = "k9:deadlines"
"""Sorted set: every job that has not ended, by the instant it must have."""
WORKERS = "k9:workers"
"""Sorted set: node names by the instant their last announcement expires."""
ENDED = "k9:ended"
"""Hash: how many jobs have ended, by `backend operation state`."""
REROUTED = "k9:rerouted"
"""Hash: how many jobs have changed their backend, by `from to reason`."""
DEAD = "k9:dead"
"""Sorted set: dead letters, by the instant they ended. Lives as long as the records of ended jobs."""
SATURATED = "k9:saturated"
"""Hash: interactive queues that passed one of their marks and are not well below it again."""
EMBEDDING_MODEL = "k9:embedding-model"
"""String: what `auto` embeds with."""
CANCELS = "k9:cancel"
"""Channel: ids of running jobs that were taken from their worker."""


def job(job_id: str) -> str:
    """Hash: the job's record. Lives until its retention after the end."""
    return f"k9:job:{job_id}"


def relay(job_id: str) -> str:
    """Stream: the job's events. Lives as long as the record."""
    return f"k9:relay:{job_id}"


def waiting(queue: str) -> str:
    """Sorted set: jobs queued in `queue`, by their turn; without those that are parked."""
    return f"k9:waiting:{queue}"


def parked_in(queue: str) -> str:
    """Sorted set: jobs queued in `queue` that are parked, by their turn. Lives two days after a sweep."""
    return f"k9:parked::{queue}"


def queued(queue: str, tenant: str) -> str:
    """Set: the jobs of `tenant` queued in `queue`, parked or not."""
    return f"k9:queued:{queue}:{tenant}"


def turns(queue: str) -> str:
    """Hash: how far the turns of `queue` have come, and when each tenant's next one is. Lives two days."""
    return f"k9:turns:{queue}"


def running(tenant: str) -> str:
    """Sorted set: the jobs in flight of a tenant who may have only so many, by deadline. Lives two days."""
    return f"k9:running:{tenant}"


def parked(tenant: str) -> str:
    """Sorted set: its jobs that wait until it has fewer in flight, in the order they go. Lives two days."""
    return f"k9:parked:{tenant}"


def leases(backend: str) -> str:
    """Sorted set: jobs running at `backend`, by the instant their lease ends."""
    return f"k9:leases:{backend}"


def moved(backend: str) -> str:
    """Sorted set: jobs moved away from `backend` because it was down, by when. Lives a day."""
    return f"k9:moved:{backend}"


def control(backend: str) -> str:
    """Channel: what operators tell the workers of `backend`."""
    return f"k9:control:{backend}"


def worker(node: str) -> str:
    """String: the worker's last announcement. Lives ten minutes, so that an absent backend is remembered."""
    return f"k9:worker:{node}"


def pace(backend: str) -> str:
    """Hash: the turns of calls to a backend with rate limits. Lives ten minutes longer than their waits."""
    return f"k9:pace:{backend}"


def spent(tenant: str, day: int) -> str:
    """Counter: nano-dollars a tenant spent and reserved on a day (since 1970, UTC). Lives 40 days."""
    return f"k9:spent:{tenant}:{day}"


def usage(tenant: str, day: int) -> str:
    """Hash: jobs, tokens and nano-dollars of a tenant's day by kind and model. Lives 400 days."""
    return f"k9:usage:{day}:{tenant}"


def wake(waiter: str) -> str:
    """Channel: what happened to the jobs an API process waits for."""
    return f"k9:wake:{waiter}"


PERMANENT = {
    DEADLINES: "holds open jobs only; each member leaves when its job ends, and the sorted set with the last",
    WORKERS: "one member per node; whoever looks at the fleet removes those no longer remembered",
    ENDED: "counters, as many as there are backends times operations times states",
    REROUTED: "counters, as many as there are pairs of backends times reasons",
    EMBEDDING_MODEL: "one name; if it were forgotten, `auto` might mix the vectors of two models",
    SATURATED: "one field for each queue that is past a mark",
    "k9:waiting:": "holds queued jobs only, bounded by the backend's mark",
    "k9:queued:": "holds queued jobs only, as its queue's index does",
    "k9:leases:": "holds running jobs only, bounded by the backend's slots",
}
"""Keys, or prefixes of keys, without a time to live, and why."""
