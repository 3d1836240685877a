"""What a request meets before anything is made of it: a server that is not up, a key, a limit of rate."""

from __future__ import annotations

import hmac
from dataclasses import replace

from k9_broker.fake.allowance import Allowance, Breach
from k9_broker.fake.faults import Behaviour
from k9_broker.fake.head import Head
from k9_broker.fake.script import Reply, Script
from k9_broker.fake.wire import Trouble, Wire

LOADING = Trouble(503)


class Closed(Exception):
    """The server does not listen; the connection has to break."""


class Gate:
    """Bound to one behaviour; a new one starts with full buckets."""

    def __init__(self, behaviour: Behaviour) -> None:
        self._key = behaviour.api_key.get_secret_value() if behaviour.api_key else None
        self._loading = behaviour.loading
        self._health = behaviour.health_status
        self._allowance = Allowance(
            behaviour.requests_per_minute, behaviour.tokens_per_minute, behaviour.rate_burst
        )
        self.stands = self._key is not None or self._loading or self._health is not None
        """Whether `refusal` may find anything."""
        self.counts = self._allowance.limited
        """Whether `admit` may."""

    def refusal(self, head: Head, wire: Wire, *, asks: bool) -> Reply | None:
        """The answer instead of any other. `asks` if the request is for work. Raises `Closed`."""
        at_health = head.path == wire.health
        if at_health and self._health is not None:
            return wire.healthy() if self._health == 200 else wire.ailing(self._health)
        if self._loading:
            if wire.late:
                raise Closed
            return wire.failure(LOADING)
        if self._key is not None and head.path not in wire.open_paths and not self._has_key(head, wire):
            return wire.unauthorized()
        ill = self._health is not None and self._health >= 400
        if ill and not asks and wire.health is None:
            return wire.ailing(self._health or 503)
        return None

    def admit(self, wire: Wire, model: str, script: Script, trouble: Trouble) -> Script | Reply:
        """The script with what it tells of the limits, or the refusal of one too many."""
        taken = self._allowance.take(script.charge or script.prompt + script.generated)
        if isinstance(taken, Breach):
            trouble = replace(trouble, status=429, retry_after=taken.seconds)
            reply = wire.limited(taken, model, trouble)
            return replace(reply, headers=(*reply.headers, *wire.limit_headers(taken.levels)))
        return replace(script, headers=(*script.headers, *wire.limit_headers(taken)))

    def _has_key(self, head: Head, wire: Wire) -> bool:
        assert self._key is not None
        for name in wire.keys:
            value = head.header(name)
            if value is None:
                continue
            scheme, _, rest = value.partition(" ")
            given = rest if name == b"authorization" and scheme.lower() == "bearer" else value
            if hmac.compare_digest(given.encode(errors="replace"), self._key.encode()):
                return True
        return False
