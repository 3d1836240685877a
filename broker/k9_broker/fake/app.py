"""The fake as an ASGI application: the gate, the wire of each request, slots, loaded models."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from time import monotonic
from typing import Any

from pydantic_core import from_json

from k9_broker.fake.control import control
from k9_broker.fake.exchange import Exchange, Gone, Receive, Send
from k9_broker.fake.faults import Behaviour
from k9_broker.fake.gate import Closed, Gate
from k9_broker.fake.head import Head
from k9_broker.fake.play import play
from k9_broker.fake.script import Call, Refused, Reply, find
from k9_broker.fake.sightings import Sightings
from k9_broker.fake.slots import Slots
from k9_broker.fake.wire import Operation, State, Trouble, Wire
from k9_broker.fake.wires import wire_for

_GATED = frozenset(
    ("api_key", "loading", "health_status", "requests_per_minute", "tokens_per_minute", "rate_burst")
)
"""Setting any of them fills the buckets."""


class FakeBackend:
    """The application. One event loop owns it; its connections are in `scope["state"]["connection"]`."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.slots = Slots(0)
        self.seen = Sightings()
        self._loaded_at: dict[str, float] = {}
        self._remembered: set[bytes] = set()
        self.behave(behaviour, Behaviour.model_fields)

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        exchange = Exchange(scope, receive, send)
        head, behaviour = exchange.head, self.behaviour
        try:
            body = await exchange.body()
            if head.path.startswith("/fake/"):
                await exchange.reply(control(self, head, body))
                return
            exchange.connection.timeout_keep_alive = behaviour.keep_alive_seconds
            self.seen.arrived(head, body)
            reused = behaviour.close_reused and exchange.connection.requests > 1
            if reused and self.seen.closes_reused(behaviour):
                exchange.cut()
                return
            wire = wire_for(head, behaviour.flavour)
            operation, model = wire.locate(head)
            asks = head.method == "POST" and operation is not None
            if self._gate.stands and (refused := self._gate.refusal(head, wire, asks=asks)):
                self.seen.unauthorized += refused.status == 401
                await exchange.reply(refused)
            elif asks and operation is not None:
                await self._infer(exchange, wire, operation, model, body)
            else:
                await exchange.reply(self._look_up(head, wire, body))
        except Closed:
            exchange.reset()
        except Gone:
            self.seen.disconnects += 1

    def _look_up(self, head: Head, wire: Wire, body: bytes) -> Reply:
        """Lists, versions and descriptions: never slow, never faulty."""
        reply: Reply | None = None
        if head.method in ("GET", "HEAD"):
            if head.path == wire.health:
                return wire.healthy()
            active, waiting = self.slots.active, self.slots.waiting
            reply = wire.inventory(head, State(self.behaviour, self._loaded(), active, waiting, self.seen))
        elif head.method == "POST" and head.path in wire.descriptions:
            try:
                reply = wire.descriptions[head.path](self._read(head, wire, body, None))
            except Refused as refused:
                reply = wire.reworded(refused.reply)
        return reply or wire.no_route(head)

    async def _infer(
        self, exchange: Exchange, wire: Wire, operation: Operation, model: str | None, body: bytes
    ) -> None:
        behaviour, head, seen = self.behaviour, exchange.head, self.seen
        if seen.fails(behaviour):
            status, code, after = behaviour.error_status, behaviour.error_code, behaviour.retry_after
            await exchange.reply(wire.failure(Trouble(status, code, after, path=head.path, body=body)))
            return
        if wire.largest is not None and len(body) > wire.largest:
            seen.errors += 1
            await exchange.reply(wire.failure(Trouble(413, path=head.path)))
            return
        try:
            call = self._read(head, wire, body, model)
            script = operation(call)
        except Refused as refused:
            seen.errors += 1
            await exchange.reply(wire.reworded(refused.reply))
            return
        trouble = Trouble(429, path=head.path, body=body)
        if self.slots.full(behaviour.max_waiting):
            seen.rate_limited += 1
            await exchange.reply(wire.failure(trouble))
            return
        if self._gate.counts:
            admitted = self._gate.admit(wire, str(call.model), script, trouble)
            if isinstance(admitted, Reply):
                seen.rate_limited += 1
                await exchange.reply(admitted)
                return
            script = admitted
        if script.remembers:
            self._remembered.update(script.remembers)
        turn = self.slots.enter()
        try:
            if turn is not None:
                await exchange.until(turn)
            seen.max_active = max(seen.max_active, self.slots.active)
            seen.inputs += script.inputs
            seen.prompt_tokens += script.prompt
            seen.generated_tokens += script.generated
            load = self._load(str(call.model), behaviour, unload=script.unload)
            await play(exchange, script, behaviour, load=load, faulted=seen.faulted(behaviour))
        finally:
            self.slots.leave(turn)

    def _read(self, head: Head, wire: Wire, body: bytes, named: str | None) -> Call:
        """The request as all wires take it; `named` is the model if the path has it. Raises `Refused`."""
        version = wire.version(head)
        try:
            value = from_json(body)
        except ValueError as error:
            raise wire.unreadable(body, str(error)) from None
        if not isinstance(value, dict):
            raise wire.unreadable(body, "not an object")
        if named is not None:
            value["model"] = named
        model = find(self.behaviour.models, value.get("model"))
        cold = model is None or self._loaded_at.get(model, inf) > monotonic()
        return Call(value, self.behaviour, model, cold, version, self._remembered)

    # -- models in memory -------------------------------------------------------------------------

    def _loaded(self) -> set[str]:
        now = monotonic()
        return {name for name, at in self._loaded_at.items() if at <= now}

    def _load(self, model: str, behaviour: Behaviour, *, unload: bool) -> float:
        """Seconds until the model is in memory; none to put it out of memory."""
        if unload:
            self._loaded_at.pop(model, None)
            return 0.0
        now = monotonic()
        return max(0.0, self._loaded_at.setdefault(model, now + behaviour.cold_load_ms / 1000) - now)

    # -- control ----------------------------------------------------------------------------------

    def behave(self, behaviour: Behaviour, named: Iterable[str]) -> None:
        """Behave so from now on; `named` are the fields that were set."""
        named = set(named)
        self.behaviour = behaviour
        if named & _GATED:
            self._gate = Gate(behaviour)
        self.seen.expect(behaviour, named)
        self.slots.resize(behaviour.slots)
        if "cold_load_ms" in named:
            self._loaded_at.clear()

    def forget(self) -> None:
        """Forget what was seen and what the cache of prompts has."""
        self.seen.clear()
        self._remembered.clear()
