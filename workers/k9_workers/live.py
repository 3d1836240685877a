"""One instance as this worker knows it now: its circuit, its calls under way, its load, its pace."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field

from k9_broker.backends import Backend, Instance
from k9_broker.balance import InstanceView, Pace
from k9_broker.breaker import Breaker, Sign, sign_of
from k9_broker.errors import K9Error
from k9_broker.health import CircuitState, InstanceHealth, Load
from k9_broker.requests import InferenceRequest, Kind, Operation
from k9_workers.transport import HttpCaller

logger = logging.getLogger(__name__)

PICKS_REMEMBERED = 64.0
"""Choices after which all counts are halved: only those of lately matter."""
FIRST_AS_TOKENS = 10
"""What the first token of a text counts in its units of work."""


@dataclass(slots=True, eq=False)
class LiveCall:
    """A call under way: when it began, in which epoch of the circuit."""

    model: str
    operation: Operation
    began: float
    epoch: int
    model_epoch: int
    """The same of its model's circuit."""
    trial: bool
    """A half-open circuit let it through."""
    told: bool = False
    """The circuit has heard of its success."""


@dataclass(slots=True, eq=False)
class LiveInstance:
    """The one place that is written to. Everything runs in the worker's event loop."""

    backend: Backend
    instance: Instance
    caller: HttpCaller
    limits_matter: bool = True
    """Nobody else waits when a rate limit is reached."""
    breaker: Breaker = field(default_factory=Breaker)
    models: dict[str, Breaker] = field(default_factory=dict)
    """Circuits of models that failed, where models are loaded on demand: what one cannot do, for want of
    memory or with a damaged file, says nothing of the others."""
    in_flight: int = 0
    picks: float = 0.0
    paces: dict[str, Pace] = field(default_factory=dict)
    """By model."""
    listed: frozenset[str] | None = None
    """The models it has; `None`: it has not said yet."""
    load: Load | None = None
    foreign: int = 0
    heard_at: float = 0.0
    """When a call ended last, or the load was read."""
    failed_as: tuple[Operation, str] | None = None
    """The inference that failed last, if a smaller one like it would tell whether it is well again."""
    name: str = field(init=False)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Its circuit has changed."""

    def __post_init__(self) -> None:
        self.name = self.instance.name

    def view(self, now: float, model: str, pace: float) -> InstanceView:
        breaker, instance = self.breaker, self.instance
        return InstanceView(
            name=self.name,
            slots=instance.slots,
            weight=instance.weight,
            fit=self.fit(model, now),
            shaken=breaker.shaken(now) or self.left_to_probes,
            in_flight=self.in_flight,
            foreign=self.foreign,
            pace=pace,
            loaded=self.has_loaded(model),
            picks=self.picks,
        )

    def fit(self, model: str, now: float) -> bool:
        """Whether it may be called now with this model."""
        own = self.models.get(model)
        return self.breaker.fit(now) and (own is None or own.fit(now))

    def spare(self, model: str, now: float) -> bool:
        """Whether it is a better choice than one that has just failed."""
        return self.fit(model, now) and not self.breaker.shaken(now) and not self.left_to_probes

    def refuses(self, model: str, now: float) -> tuple[str, float | None]:
        """Why it may not be called with this model, and for how many seconds; `None`: until a reset."""
        own = self.models.get(model, self.breaker)
        breaker = self.breaker if not self.breaker.fit(now) else own
        return breaker.reason, breaker.retry_seconds(now)

    @property
    def _loads_on_demand(self) -> bool:
        return self.load is not None and self.load.loaded is not None

    @property
    def probe_shows(self) -> bool:
        """Whether a probe can show that it is well. A cloud is tried by jobs: inferences cost there. And a
        model that would have to be loaded first is not loaded for a probe."""
        if not self.breaker.needs_inference:
            return True
        failed = self.failed_as
        return (
            self.backend.kind is Kind.LOCAL and failed is not None and self.has_loaded(failed[1]) is not False
        )

    @property
    def left_to_probes(self) -> bool:
        """Whether its circuit is open and a probe will close it: jobs go elsewhere while they can."""
        if self.breaker.state is CircuitState.CLOSED:
            return False
        return self.backend.probe_seconds > 0 and self.probe_shows

    def has_loaded(self, model: str) -> bool | None:
        """Whether the model is in its memory; `None` when it does not say, or nothing is loaded on demand."""
        loaded = self.load.loaded if self.load else None
        if loaded is None:
            return None
        return any(model.removesuffix(":latest") == one.removesuffix(":latest") for one in loaded)

    def begin(self, request: InferenceRequest) -> LiveCall:
        now = time.monotonic()
        trial = self.breaker.state is not CircuitState.CLOSED
        if trial:
            self._set(self.breaker.begun(now))
        model_epoch = 0
        if own := self.models.get(request.model):
            own = self.models[request.model] = own.begun(now)
            model_epoch = own.epoch
        self.in_flight += 1
        self.picks += 1.0
        return LiveCall(request.model, request.operation, now, self.breaker.epoch, model_epoch, trial)

    def answering(self, call: LiveCall) -> None:
        """The first part of a call's answer has come: a trial need not wait for the last."""
        if not call.told and (call.trial or call.model in self.models):
            call.told = True
            self._hear(call, Sign.FINE)

    def ended(self, call: LiveCall, units: int) -> None:
        """A call has its answer, of so many units of work."""
        self.in_flight -= 1
        now = self.heard_at = time.monotonic()
        seconds = (now - call.began) / max(1, units)
        known = self.paces.get(call.model)
        self.paces[call.model] = known.observed(seconds, now) if known else Pace(seconds, now)
        if not call.told:
            self._hear(call, Sign.FINE)

    def failed(self, call: LiveCall, error: K9Error) -> None:
        """A call has failed, before or after the first part of its answer."""
        self.in_flight -= 1
        self.heard_at = time.monotonic()
        sign = sign_of(error)
        if sign is Sign.LIMITED and self.limits_matter and error.retry_after is not None:
            sign = Sign.BUSY
        if sign is Sign.BROKEN and self._loads_on_demand:
            self._broke(call, error)
            sign = Sign.ANSWERS
        elif sign in (Sign.BROKEN, Sign.BUSY):
            self.failed_as = (call.operation, call.model)
        self._hear(call, sign, error)

    def left(self, call: LiveCall) -> None:
        """The call was ended by its caller."""
        self.in_flight -= 1
        if call.told:  # it is no longer the trial; another may be
            return
        self._set(self.breaker.left(call.epoch))
        if own := self.models.get(call.model):
            self.models[call.model] = own.left(call.model_epoch)

    def begin_look(self) -> int:
        """A look begins that takes the one call a half-open circuit allows. Gives the epoch."""
        self._set(self.breaker.begun(time.monotonic()))
        return self.breaker.epoch

    def leave_look(self, epoch: int) -> None:
        """The look was broken off."""
        self._set(self.breaker.left(epoch))

    def looked(self, epoch: int, error: K9Error | None) -> None:
        """A look at the server, begun in `epoch`, which needs no inference."""
        sign = Sign.ANSWERS if error is None else sign_of(error)
        if sign in (Sign.REFUSED, Sign.OUT, Sign.LIMITED):  # it answers; what calls may do is another matter
            sign = Sign.ANSWERS
        self._heard(sign, error, epoch, inference=False)

    def says(self, load: Load | None) -> None:
        """The server's load, as just read: what it has beyond this worker's own calls is others'."""
        self.load = load
        self.foreign = 0
        if load is not None and (load.running is not None or load.waiting is not None):
            self.foreign = max(0, (load.running or 0) + (load.waiting or 0) - self.in_flight)

    def reset(self) -> None:
        self.models.clear()
        self._set(self.breaker.reset())

    def health(self, now: float) -> InstanceHealth:
        state = self.breaker.state_at(now)
        return InstanceHealth(
            name=self.name,
            state=state,
            reason=self.breaker.reason,
            retry_seconds=self.breaker.retry_seconds(now) if state is CircuitState.OPEN else None,
            in_flight=self.in_flight,
            load=self.load,
        )

    def _broke(self, call: LiveCall, error: K9Error) -> None:
        """The model failed, at a server that may be well."""
        before = self.models.get(call.model, Breaker())
        own = self.models[call.model] = before.heard(
            Sign.BROKEN, time.monotonic(), epoch=call.model_epoch, reason=error.code
        )
        if own.state is CircuitState.OPEN and own.epoch != before.epoch:
            where = f"{call.model} of {self.backend.name} at {self.name}"
            logger.warning("%s is left alone for %.1f s: %s", where, own.open_seconds, own.reason)

    def _hear(self, call: LiveCall, sign: Sign, error: K9Error | None = None) -> None:
        if own := self.models.get(call.model):
            if sign is Sign.FINE:
                own = own.heard(sign, time.monotonic(), epoch=call.model_epoch)
            self.models[call.model] = own.left(call.model_epoch)
        self._heard(sign, error, call.epoch, inference=True)

    def _heard(self, sign: Sign, error: K9Error | None, epoch: int, *, inference: bool) -> None:
        self._set(
            self.breaker.heard(
                sign,
                time.monotonic(),
                epoch=epoch,
                reason=error.code if error else "",
                retry_after=error.retry_after if error else None,
                inference=inference,
            )
        )

    def _set(self, breaker: Breaker) -> None:
        before, self.breaker = self.breaker, breaker
        moved = (before.state, before.epoch) != (breaker.state, breaker.epoch)
        if moved or before.trying is not breaker.trying:
            self.changed.set()
        if moved:
            self._tell(breaker)

    def _tell(self, breaker: Breaker) -> None:
        where = f"{self.backend.name} at {self.name}"
        if breaker.state is CircuitState.OPEN:
            wait = breaker.retry_seconds(time.monotonic()) or 0.0
            logger.warning("%s is left alone for %.1f s: %s", where, wait, breaker.reason)
        elif breaker.state is CircuitState.OUT:
            logger.error("%s is out until it is reset: %s", where, breaker.reason)
        elif breaker.state is CircuitState.CLOSED:
            logger.info("%s is called again", where)
