"""The fake as an ASGI application: routes to the two wires, slots, loaded models, control."""

from __future__ import annotations

from collections.abc import Iterable
from time import monotonic
from types import ModuleType
from typing import Any

from pydantic_core import from_json, to_json

from k9_broker.errors import BadRequest
from k9_broker.fake import ollama_wire, openai_wire
from k9_broker.fake.exchange import Exchange, Gone, Receive, Send
from k9_broker.fake.faults import Behaviour, Sightings, changed
from k9_broker.fake.play import play
from k9_broker.fake.script import Call, Refused, Reply, Script, find
from k9_broker.fake.slots import Slots


class FakeBackend:
    """The application. One event loop owns it; its connections are in `scope["state"]["transport"]`."""

    def __init__(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour
        self._slots = Slots(0)
        self._seen = Sightings()
        self._loaded_at: dict[str, float] = {}
        self._behave(behaviour, Behaviour.model_fields)

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        exchange = Exchange(scope, receive, send)
        try:
            body = await exchange.body()
            if exchange.path.startswith("/fake/"):
                await exchange.reply(self._control(exchange.method, exchange.path, body))
                return
            self._seen.arrived(exchange.method, exchange.path, exchange.headers, body)
            native = exchange.path == "/" or exchange.path.startswith("/api/")
            wire: ModuleType = ollama_wire if native else openai_wire
            if exchange.method == "POST" and exchange.path in wire.OPERATIONS:
                await self._infer(exchange, wire, body)
            else:
                await exchange.reply(self._look_up(exchange, wire, body))
        except Gone:
            self._seen.disconnects += 1

    def _look_up(self, exchange: Exchange, wire: ModuleType, body: bytes) -> Reply:
        """Lists, versions and descriptions: never slow, never faulty."""
        reply: Reply | None = None
        if exchange.method in ("GET", "HEAD"):
            reply = wire.inventory(exchange.path, self._behaviour, self._loaded())
        elif exchange.method == "POST" and exchange.path in wire.DESCRIPTIONS:
            try:
                reply = wire.DESCRIPTIONS[exchange.path](self._read(wire, body))
            except Refused as refused:
                reply = refused.reply
        return reply or wire.no_route(exchange.method, exchange.path)

    async def _infer(self, exchange: Exchange, wire: ModuleType, body: bytes) -> None:
        behaviour = self._behaviour
        if self._seen.fails(behaviour):
            await exchange.reply(wire.failure(behaviour))
            return
        try:
            call = self._read(wire, body)
            script: Script = wire.OPERATIONS[exchange.path](call)
        except Refused as refused:
            self._seen.errors += 1
            await exchange.reply(refused.reply)
            return
        turn = self._slots.enter()
        try:
            if turn is not None:
                await exchange.until(turn)
            self._seen.max_active = max(self._seen.max_active, self._slots.active)
            self._seen.inputs += script.inputs
            load = self._load(str(call.model), behaviour, unload=script.unload)
            await play(exchange, script, behaviour, load=load, faulted=self._seen.faulted(behaviour))
        finally:
            self._slots.leave(turn)

    def _read(self, wire: ModuleType, body: bytes) -> Call:
        """The request as both wires take it. Raises `Refused`."""
        try:
            value = from_json(body)
        except ValueError as error:
            raise wire.unreadable(body, str(error)) from None
        if not isinstance(value, dict):
            raise wire.unreadable(body, "not an object")
        model = find(self._behaviour.models, value.get("model"))
        return Call(value, self._behaviour, model, cold=model not in self._loaded())

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

    def _control(self, method: str, path: str, body: bytes) -> Reply:
        match method, path:
            case "GET", "/fake/behaviour":
                return self._shown()
            case "PUT" | "PATCH", "/fake/behaviour":
                try:
                    self._change(body, whole=method == "PUT")
                except BadRequest as error:
                    return Reply(to_json({"error": error.message}), 400)
                return self._shown()
            case "GET", "/fake/stats":
                return Reply(to_json(self._seen.stats(self._slots.active, self._slots.waiting)))
            case "DELETE", "/fake/stats":
                self._seen.clear()
                return Reply(b"{}")
            case "GET", "/fake/requests":
                return Reply(to_json(self._seen.requests()))
        known = "behaviour (GET, PUT, PATCH), stats (GET, DELETE) and requests (GET)"
        return Reply(to_json({"error": f"Under /fake/ there are {known}."}), 404)

    def _shown(self) -> Reply:
        return Reply(self._behaviour.model_dump_json().encode())

    def _change(self, body: bytes, *, whole: bool) -> None:
        try:
            changes = from_json(body)
        except ValueError:
            raise BadRequest("Send a JSON object of behaviour fields.") from None
        behaviour = changed(Behaviour() if whole else self._behaviour, changes)
        self._behave(behaviour, Behaviour.model_fields if whole else changes)

    def _behave(self, behaviour: Behaviour, named: Iterable[str]) -> None:
        named = set(named)
        self._behaviour = behaviour
        self._seen.expect(behaviour, named)
        self._slots.resize(behaviour.slots)
        if "cold_load_ms" in named:
            self._loaded_at.clear()
