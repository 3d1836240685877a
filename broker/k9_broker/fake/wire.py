"""What every wire has: where it answers, and in which words it refuses."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from k9_broker.fake.allowance import Breach, Levels
from k9_broker.fake.faults import Behaviour
from k9_broker.fake.head import Head
from k9_broker.fake.script import Call, Headers, Refused, Reply, Script
from k9_broker.fake.sightings import Sightings

Operation = Callable[[Call], Script]
"""Raises `Refused`."""


@dataclass(frozen=True, slots=True)
class State:
    """What lists, health routes and metrics tell of the server."""

    behaviour: Behaviour
    loaded: Collection[str]
    active: int
    waiting: int
    seen: Sightings


@dataclass(frozen=True, slots=True)
class Trouble:
    """An error that is answered for no fault of the request. `body` is what was asked, if it was read."""

    status: int
    code: str | None = None
    retry_after: float | None = None
    message: str | None = None
    path: str = ""
    body: bytes = field(default=b"", repr=False)


class Wire:
    """One server's wire format. A subclass says what is special about it."""

    operations: Mapping[str, Operation] = {}
    """What takes time and may fail, by path."""
    descriptions: Mapping[str, Callable[[Call], Reply]] = {}
    """What is asked with a body and answered at once, by path."""
    keys: tuple[bytes, ...] = (b"authorization",)
    """The headers in which the wire takes a key."""
    open_paths: frozenset[str] = frozenset()
    """Where it wants none."""
    health: str | None = None
    """The path that tells nothing but whether the server is well."""
    late: bool = False
    """It does not listen while it loads."""
    largest: int | None = None
    """Bytes of a body; more is 413."""

    def locate(self, head: Head) -> tuple[Operation | None, str | None]:
        """The operation at a path, and the model if the path names it."""
        return self.operations.get(head.path), None

    def inventory(self, head: Head, state: State) -> Reply | None:
        """What `GET` finds; `None` if there is nothing."""
        return None

    def failure(self, trouble: Trouble) -> Reply:
        """An error in the wire's words."""
        raise NotImplementedError

    def unreadable(self, body: bytes, why: str) -> Refused:
        """The body is absent, not JSON, or not an object."""
        raise NotImplementedError

    def no_route(self, head: Head) -> Reply:
        raise NotImplementedError

    def reworded(self, reply: Reply) -> Reply:
        """A refusal as this wire has it, if it was written for another one."""
        return reply

    def version(self, head: Head) -> str | None:
        """Of the API, for the one who reads the request. Raises `Refused` if it must be named and is not."""
        return None

    def unauthorized(self) -> Reply:
        return self.failure(Trouble(401))

    def healthy(self) -> Reply:
        """What `health` says when all is well: nothing, with status 200."""
        return Reply(b"", content_type="")

    def ailing(self, status: int) -> Reply:
        """What `health` says when not."""
        return self.failure(Trouble(status))

    def limited(self, breach: Breach, model: str, trouble: Trouble) -> Reply:
        """The refusal of a request too many; `trouble` says what was asked."""
        return self.failure(trouble)

    def limit_headers(self, levels: Levels) -> Headers:
        """What every answer tells of what is left; most servers do not."""
        return ()
