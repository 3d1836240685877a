"""A simulated backend with its worker: two queues, slots, the speed of its machines, its announcements."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from k9_broker.latency import LatencyEstimate, Running, moved
from k9_broker.models import Latency, ModelCard
from k9_broker.naming import queue_name
from k9_broker.requests import Operation, Priority
from k9_broker.saturation import Gauge, past, wait_behind
from k9_broker.serving import KeptSlots, ServiceTimes
from k9_broker.simulation.calls import Call
from k9_broker.simulation.queues import TurnQueue
from k9_broker.simulation.scenario import Machine
from k9_broker.snapshot import BackendView

MODEL = "simulated"
"""What every backend serves and every request names."""
MOVED = 1.5
"""The factor by which an estimate must differ from the one announced to be announced at once."""
USUAL_PROMPT = 1000
"""Tokens of the prompt whose first token a backend is expected to be as fast as, where nobody measures."""
_OPERATIONS = frozenset({Operation.CHAT})


class Server:
    """`measured`: it announces its speed as a worker measures it; else it is known from the scenario."""

    def __init__(
        self, name: str, machine: Machine, order: int, clock: Callable[[], float], *, measured: bool
    ) -> None:
        self.name = name
        self.machine = machine
        self.kind = machine.kind
        self.slots = machine.capacity
        self.queues = {one: TurnQueue() for one in Priority}
        self.names = {one: queue_name(machine.kind, name, one) for one in Priority}
        self.running: dict[Call, None] = {}
        self.batch_running = 0
        self.saturated = False
        self.served = 0
        self.changes = 0
        """How often what it announces has changed."""
        self._order = order
        self._clock = clock
        self._kept = KeptSlots(machine.reserved_slots, clock)
        self._times = ServiceTimes()
        self._began_sum = 0.0
        self._told = (1.0, 0.0)
        self._estimate = LatencyEstimate() if measured else None
        first = machine.first + machine.per_prompt_token * USUAL_PROMPT
        usual = Latency(ttft=first, tpot=machine.per_token)
        self._latency: Latency | None = None if measured else usual
        self._card = ModelCard(
            quality=machine.quality,
            context_window=machine.context_window,
            input_usd=machine.input_usd,
            output_usd=machine.output_usd,
        )
        self._most = {
            Priority.INTERACTIVE: machine.max_waiting,
            Priority.BATCH: machine.max_waiting_batch,
        }

    @property
    def service_seconds(self) -> float:
        """As announced."""
        return self._told[0]

    def gauge(self, priority: Priority, tenant: str) -> Gauge:
        """Its queue as the tenant's next job would find it."""
        queue = self.queues[priority]
        ahead = queue.ahead(tenant)
        if priority is Priority.BATCH:
            ahead += len(self.queues[Priority.INTERACTIVE])
        own = queue.own(tenant)
        saturated = self.saturated and priority is Priority.INTERACTIVE
        return Gauge(len(queue), ahead, own, len(self.running), saturated)

    def look_at_marks(self, found: Gauge) -> None:
        """Remember whether a mark is passed, as admission does for each interactive candidate's queue."""
        if not (found.waiting or found.saturated or found.in_flight >= self.slots):
            return
        machine = self.machine
        wait = wait_behind(found.waiting, found.in_flight, self.slots, self._told[0]).p50
        self.saturated = past(machine.overflow_at, found.waiting, before=found.saturated) or past(
            machine.overflow_wait, wait, before=found.saturated
        )

    def view(self) -> BackendView:
        """What a snapshot taken now has of it."""
        seconds, spread = self._told
        return BackendView(
            name=self.name,
            kind=self.kind,
            dialect="simulated",
            models=frozenset({MODEL}),
            operations=_OPERATIONS,
            order=self._order,
            slots=self.slots,
            max_waiting=self._most,
            workers=1,
            waiting={one: len(queue) for one, queue in self.queues.items()},
            in_flight=len(self.running),
            service_seconds=seconds,
            service_spread=spread,
            overflow_at=self.machine.overflow_at,
            overflow_wait=self.machine.overflow_wait,
            saturated=self.saturated,
            cards={MODEL: self._card},
            latencies={MODEL: self._latency} if self._latency else {},
            slot_usd_per_hour=(self.machine.gpu_usd_per_hour or 0.0) / self.machine.slots,
        )

    def take(self, may_run: Callable[[Call], bool] | None) -> Call | None:
        """The next job that begins, if a slot is free for one: interactive before batch."""
        if len(self.running) >= self.slots:
            return None
        call = self.queues[Priority.INTERACTIVE].take(may_run)
        if call is not None:
            self._kept.interactive_came()
        elif self.queues[Priority.BATCH] and self._lets_batch_in():
            call = self.queues[Priority.BATCH].take(may_run)
        return call

    def _lets_batch_in(self) -> bool:
        if not self._kept.in_force:
            return True
        interactive = len(self.running) - self.batch_running
        return self.batch_running < self._kept.most_batch(self.slots, interactive)

    @property
    def keeps_batch_out(self) -> bool:
        """A batch job waits beside a free slot."""
        return len(self.queues[Priority.BATCH]) > 0 and len(self.running) < self.slots

    def begin(self, call: Call, now: float, draw: Random, way: float) -> None:
        """A job takes a slot; sets how long it will take."""
        self.running[call] = None
        self._began_sum += now
        self.batch_running += call.request.priority is Priority.BATCH
        machine = self.machine
        factor = 1.0
        if machine.batching and self.slots > 1:
            factor += machine.batching * (len(self.running) - 1) / (self.slots - 1)
        if machine.jitter:
            factor *= draw.uniform(1 - machine.jitter, 1 + machine.jitter)
        call.began = now
        call.first = factor * (machine.first + machine.per_prompt_token * call.prompt)
        call.free_at = now + way + call.first + factor * machine.per_token * (call.output - 1)

    def ended(self, call: Call, now: float, *, answered: bool) -> None:
        """A job leaves its slot."""
        assert call.began is not None
        took = now - call.began
        del self.running[call]
        self._began_sum -= call.began
        self.batch_running -= call.request.priority is Priority.BATCH
        self.queues[call.request.priority].settle(call, took)
        self._times.took(took)
        self.served += 1
        if self._estimate is None:
            return
        if answered:
            self._estimate.observe(now, ttft=call.first, seconds=took, completion_tokens=call.output)
        else:
            self._estimate.observe_unfinished(now, self._so_far(call, now))

    def announce(self) -> None:
        """Tell the fleet what a worker would."""
        told = self._service(), self._times.spread
        latency = self._measured()
        if (told, latency) != (self._told, self._latency):
            self._told, self._latency = told, latency
            self.changes += 1

    def has_news(self) -> bool:
        """Whether a measured estimate has moved so far that it is announced before its time."""
        found = None if self._estimate is None else self._measured()
        return found is not None and moved(self._latency, found, MOVED)

    def _service(self) -> float:
        """Decaying mean of how long a job takes; while jobs run that have lasted longer on average, that."""
        if not self.running:
            return self._times.mean
        return max(self._times.mean, self._clock() - self._began_sum / len(self.running))

    def _measured(self) -> Latency | None:
        if self._estimate is None:
            return self._latency
        now = self._clock()
        return self._estimate.at(now, [self._so_far(one, now) for one in self.running])

    def _so_far(self, call: Call, now: float) -> Running:
        assert call.began is not None
        elapsed = now - call.began
        if elapsed < call.first:
            return Running(elapsed, streamed=True)
        gap = self.machine.per_token
        tokens = 1 + (elapsed - call.first) / gap if gap else float(call.output)
        return Running(elapsed, streamed=True, ttft=call.first, tokens=min(tokens, call.output))
