"""K-9 running for the hazards: one that is left as it was found, and one that is harmed and healed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from k9_broker.testing import FakeServer
from stack import Child, Stack
from stand import RedisProcess, free_port

LONG_LEASE = {"K9_JOBS__LEASE_SECONDS": "30"}
"""So long that nothing in a test is mended by a renewal or by the reaper."""
NARROW = "narrow"
"""A backend with few slots and low marks, and its one model."""
SLOTS = 8
"""Of each of the two workers of `pair`."""

WATCHED = """
import json, signal, threading, time
from collections import Counter
from kombu.transport.redis import Channel
from k9_workers.pool import TaskPool

seen = Counter()

def watched(name, inner):
    def outer(*args, **more):
        seen[f"{name} {threading.current_thread().name}"] += 1
        return inner(*args, **more)
    return outer

apply = TaskPool.on_apply

def on_apply(self, *args, callback, accept_callback, **more):
    back, accept = watched("callback", callback), watched("accept", accept_callback)
    return apply(self, *args, callback=back, accept_callback=accept, **more)

TaskPool.on_apply = on_apply
for name in ("_put", "_put_fanout"):
    setattr(Channel, name, watched(name, getattr(Channel, name)))

def tell(*_):
    with open("seen.json", "w") as file:
        json.dump(seen, file)

def block(*_):
    TaskPool.running.loop.call_soon_threadsafe(time.sleep, 2.5)

if __name__ == "__main__":
    signal.signal(signal.SIGUSR2, block)
    signal.signal(signal.SIGWINCH, tell)
    from k9_workers.__main__ import main
    raise SystemExit(main())
"""
"""A worker that counts on which thread Celery's callbacks run, and blocks its loop when told to."""


def start_as(stack: Stack, module: str, source: str, **changes: object) -> Child:
    """The worker `w1`, started by a module of the test's own."""
    (stack.folder / f"{module}.py").write_text(source)
    env = {**stack.env(), "K9_BACKEND": stack.backend(**changes).model_dump_json()}
    stack.workers["w1"] = Child("w1", [module, "--node", "k9-w1@test"], env, stack.folder).start()
    return stack.workers["w1"]


@pytest.fixture(scope="session")
def steady_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    redis = RedisProcess(tmp_path_factory.mktemp("steady"), free_port()).start()
    fake = FakeServer(models=("fake-chat", NARROW))
    stack = Stack(redis.folder, redis, fake, slots=8, extra=LONG_LEASE)
    start_as(stack, "watched", WATCHED, models=("fake-chat",))
    stack.start_worker("w2", name=NARROW, models=(NARROW,), slots=2, max_waiting=6, max_waiting_batch=9)
    stack.start_api()
    try:
        yield stack.wait_ready()
    finally:
        stack.stop()


@pytest.fixture
def steady(steady_stack: Stack) -> Iterator[Stack]:
    """A backend with eight slots, and a narrow one with two; the fake as at the start before and after."""
    steady_stack.fake.reset()
    yield steady_stack
    steady_stack.fake.reset()


@pytest.fixture(scope="session")
def pair_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    redis = RedisProcess(tmp_path_factory.mktemp("pair"), free_port()).start()
    stack = Stack(redis.folder, redis, FakeServer(), slots=SLOTS)
    stack.start_worker("w1")
    stack.start_worker("w2")
    stack.start_api()
    try:
        yield stack.wait_ready(2)
    finally:
        stack.stop()


@pytest.fixture
def pair(pair_stack: Stack) -> Stack:
    """Two workers of one backend, to be harmed."""
    pair_stack.fake.reset()
    for child in pair_stack.workers.values():
        if not child.alive:
            child.start()
    return pair_stack.wait_ready(2)
