"""The routes under `/fake/`: behaviour, counters and the last requests."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from pydantic_core import from_json, to_json

from k9_broker.errors import BadRequest
from k9_broker.fake.faults import Behaviour, changed
from k9_broker.fake.head import Head
from k9_broker.fake.script import Reply
from k9_broker.fake.sightings import Sightings
from k9_broker.fake.slots import Slots


class Controlled(Protocol):
    """What is controlled: the application."""

    behaviour: Behaviour
    seen: Sightings
    slots: Slots

    def behave(self, behaviour: Behaviour, named: Iterable[str]) -> None: ...
    def forget(self) -> None: ...


def control(fake: Controlled, head: Head, body: bytes) -> Reply:
    """The answer to a request under `/fake/`."""
    match head.method, head.path:
        case "GET", "/fake/behaviour":
            return _shown(fake)
        case "PUT" | "PATCH", "/fake/behaviour":
            try:
                _change(fake, body, whole=head.method == "PUT")
            except BadRequest as error:
                return Reply(to_json({"error": error.message}), 400)
            return _shown(fake)
        case "GET", "/fake/stats":
            return Reply(to_json(fake.seen.stats(fake.slots.active, fake.slots.waiting)))
        case "DELETE", "/fake/stats":
            fake.forget()
            return Reply(b"{}")
        case "GET", "/fake/requests":
            return Reply(to_json(fake.seen.requests()))
    known = "behaviour (GET, PUT, PATCH), stats (GET, DELETE) and requests (GET)"
    return Reply(to_json({"error": f"Under /fake/ there are {known}."}), 404)


def _shown(fake: Controlled) -> Reply:
    return Reply(fake.behaviour.model_dump_json().encode())


def _change(fake: Controlled, body: bytes, *, whole: bool) -> None:
    try:
        changes = from_json(body)
    except ValueError:
        raise BadRequest("Send a JSON object of behaviour fields.") from None
    behaviour = changed(Behaviour() if whole else fake.behaviour, changes)
    fake.behave(behaviour, Behaviour.model_fields if whole else changes)
