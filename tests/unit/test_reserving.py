"""The rule that keeps slots free for interactive jobs, and the order of queues that follows it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from celery.worker import state
from hypothesis import given
from hypothesis import strategies as st
from redis.exceptions import ConnectionError as RedisGone
from redis.exceptions import NoPermissionError

from k9_broker.backends import Backend
from k9_broker.serving import HALF_LIFE, HOLD, KeptSlots
from k9_workers.reserving import QueueOrder


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def kept(wanted: int | None = None, *, came: bool = True) -> tuple[KeptSlots, Clock]:
    clock = Clock()
    rule = KeptSlots(wanted, clock)
    if came:
        rule.interactive_came()
    return rule, clock


@pytest.mark.parametrize(
    ("wanted", "slots", "expected"),
    [
        (None, 1, 1), (None, 3, 3), (None, 4, 3), (None, 8, 7), (None, 19, 18), (None, 20, 18),
        (None, 256, 231), (0, 16, 16), (2, 16, 14), (3, 4, 1), (4, 4, 1), (99, 4, 1), (1, 1, 1), (1, 2, 1),
    ],
)  # fmt: skip
def test_how_many_slots_batch_jobs_may_have(wanted: int | None, slots: int, expected: int) -> None:
    rule, _ = kept(wanted)
    assert rule.most_batch(slots, 0) == expected


def test_slots_are_kept_for_a_while_after_each_interactive_job() -> None:
    rule, clock = kept(came=False)
    assert rule.most_batch(16, 0) == 16
    rule.interactive_came()
    assert rule.most_batch(16, 0) == 15
    clock.now += HOLD * 0.9
    rule.interactive_came()
    clock.now += HOLD * 0.9
    assert rule.most_batch(16, 0) == 15
    clock.now += HOLD * 0.2
    assert rule.most_batch(16, 0) == 16
    assert not rule.in_force


def test_the_slots_that_interactive_jobs_lately_had_are_theirs_for_a_moment_and_a_few_more() -> None:
    rule, clock = kept(1)
    assert rule.most_batch(16, 8) == 5
    assert rule.most_batch(16, 2) == 5
    clock.now += HALF_LIFE
    assert rule.most_batch(16, 2) == 10
    clock.now += HALF_LIFE
    assert rule.most_batch(16, 5) == 9
    assert rule.most_batch(16, 15) == 1
    clock.now += HOLD
    assert rule.most_batch(16, 0) == 16
    rule.interactive_came()
    assert rule.most_batch(16, 1) == 14


STEPS = ["batch", "interactive", "batch ends", "interactive ends", "moment", "pause"]


@given(
    wanted=st.none() | st.integers(0, 40),
    slots=st.integers(1, 32),
    steps=st.lists(st.sampled_from(STEPS), max_size=80),
)
def test_a_batch_alone_has_every_slot_and_beside_others_leaves_the_kept_ones(
    wanted: int | None, slots: int, steps: list[str]
) -> None:
    rule, clock = kept(wanted, came=False)
    batch = interactive = 0
    for step in steps:
        if step == "batch" and batch + interactive < slots and batch < rule.most_batch(slots, interactive):
            batch += 1
            assert batch == 1 or not rule.in_force or slots - batch - interactive >= rule.of(slots)
        elif step == "interactive" and batch + interactive < slots:
            rule.interactive_came()
            interactive += 1
        elif step == "batch ends":
            batch = max(0, batch - 1)
        elif step == "interactive ends":
            interactive = max(0, interactive - 1)
        elif step == "moment":
            clock.now += 0.3
        elif step == "pause":
            clock.now += HOLD
            assert rule.most_batch(slots, interactive) == slots
        assert 1 <= rule.most_batch(slots, interactive) <= slots


@dataclass(eq=False)
class Taken:
    """What Celery keeps of a message it took."""

    queue: str

    @property
    def delivery_info(self) -> dict[str, str]:
        return {"routing_key": self.queue}


@dataclass
class Wire:
    """A channel of kombu's, its connection and the one beside it."""

    answers: list[Any] = field(default_factory=lambda: [7])
    refuses: Exception | None = None
    sent: list[tuple[Any, ...]] = field(default_factory=list)
    unblocked: list[int] = field(default_factory=list)
    _sock: object = field(default_factory=object)
    _in_poll: object = None
    connection_errors = (RedisGone,)

    @property
    def client(self) -> Any:
        return SimpleNamespace(connection=self)

    def send_command(self, *words: Any) -> None:
        self.sent.append(words)

    def read_response(self) -> Any:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    @contextmanager
    def conn_or_acquire(self) -> Iterator[Wire]:
        yield self

    def client_unblock(self, client: int) -> None:
        if self.refuses:
            raise self.refuses
        self.unblocked.append(client)


QUEUES = ["k9.local.one.interactive", "k9.local.one.batch"]
INTERACTIVE, BATCH = QUEUES


@dataclass
class Worker:
    """An order of queues that attends a channel with four slots, one of them kept."""

    wire: Wire
    clock: Clock = field(default_factory=Clock)
    holds: list[Taken] = field(default_factory=list)
    order: QueueOrder = field(init=False)

    def __post_init__(self) -> None:
        self.order = QueueOrder()
        self.order.update(list(QUEUES))
        self.order.attend(self.wire, SimpleNamespace(num_processes=4))

    def take(self, queue: str) -> Taken:
        self.order.rotate(queue)
        self.holds.append(Taken(queue))
        state.reserved_requests.add(self.holds[-1])
        return self.holds[-1]

    def end(self, one: Taken) -> None:
        self.holds.remove(one)
        state.reserved_requests.discard(one)

    def asks(self) -> list[str]:
        self.wire._in_poll = object()
        return self.order.consume(2)


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    monkeypatch.setattr(QueueOrder, "kept", KeptSlots(0, time.monotonic))
    monkeypatch.setattr(QueueOrder, "interactive", "")
    monkeypatch.setattr(QueueOrder, "batch", "")
    QueueOrder.serve(Backend(name="one", dialect="fake", url="http://127.0.0.1:1", slots=4))
    worker = Worker(Wire())
    monkeypatch.setattr(QueueOrder, "kept", KeptSlots(None, worker.clock))
    yield worker
    for one in list(worker.holds):
        worker.end(one)


def test_an_order_that_attends_no_channel_leaves_nothing_out(worker: Worker) -> None:
    order = QueueOrder()
    order.update(list(QUEUES))
    for queue in (INTERACTIVE, BATCH, BATCH, BATCH):
        worker.take(queue)
    assert order.consume(2) == QUEUES
    order.look_again()


def test_batch_is_left_out_of_the_last_slot_until_one_ends(worker: Worker) -> None:
    for _ in range(3):
        assert worker.asks() == QUEUES
        batch = worker.take(BATCH)
    assert worker.asks() == QUEUES
    worker.end(worker.take(INTERACTIVE))
    assert worker.asks() == [INTERACTIVE]
    worker.order.look_again()
    assert worker.wire.unblocked == []
    worker.end(batch)
    worker.order.look_again()
    worker.order.look_again()
    assert worker.wire.unblocked == [7]
    assert worker.asks() == QUEUES


def test_the_wait_ends_too_when_slots_are_kept_no_longer(worker: Worker) -> None:
    for queue in (BATCH, BATCH, INTERACTIVE):
        worker.take(queue)
    assert worker.asks() == [INTERACTIVE]
    worker.clock.now += HOLD
    worker.order.look_again()
    assert worker.wire.unblocked == [7]


def test_only_a_wait_that_goes_on_is_ended(worker: Worker) -> None:
    batch = worker.take(BATCH)
    for queue in (BATCH, INTERACTIVE):
        worker.take(queue)
    worker.asks()
    worker.wire._in_poll = None
    worker.end(batch)
    worker.order.look_again()
    assert worker.wire.unblocked == []


def test_each_connection_is_asked_its_id_once(worker: Worker) -> None:
    for queue in (BATCH, BATCH, INTERACTIVE):
        worker.take(queue)
    worker.asks()
    worker.asks()
    assert worker.wire.sent == [("CLIENT", "ID")]
    worker.wire._sock = object()
    worker.wire.answers = [8]
    worker.asks()
    assert len(worker.wire.sent) == 2
    worker.clock.now += HOLD
    worker.order.look_again()
    assert worker.wire.unblocked == [8]


@pytest.mark.parametrize("refuses", ["id", "unblock", "gone"])
def test_without_the_right_to_end_it_the_wait_ends_by_itself(worker: Worker, refuses: str) -> None:
    worker.wire.answers = [NoPermissionError("no permission")] if refuses == "id" else [7]
    worker.wire.refuses = {"unblock": NoPermissionError("no"), "gone": RedisGone("gone")}.get(refuses)
    for queue in (BATCH, BATCH, INTERACTIVE):
        worker.take(queue)
    assert worker.asks() == [INTERACTIVE]
    worker.clock.now += HOLD
    worker.order.look_again()
    assert worker.wire.unblocked == []
    assert worker.asks() == QUEUES
