"""kombu's Redis transport, able to outlive a Redis restart.

When Redis goes away while messages are unacknowledged, kombu 5.7 closes the channel twice; the
second time it rebuilds its pool from a connection it has let go of and raises `AttributeError`, which
Celery takes for unrecoverable: the worker exits. Remembering the connection's parameters is enough:
the attempt then fails like any lost connection does, and the worker reconnects.
Remove this when a chaos test without it no longer loses a worker.
"""

from __future__ import annotations

from typing import Any

from kombu.transport import TRANSPORT_ALIASES, redis


class Channel(redis.Channel):
    """A channel that can rebuild its connection parameters after its connection is gone."""

    _known: dict[bool, dict[str, Any]] | None = None

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        known = self._known = self._known or {}
        if self.connection is not None and self.connection.client is not None:
            known[asynchronous] = super()._connparams(asynchronous)  # type: ignore[no-untyped-call]
        elif asynchronous not in known:
            raise ConnectionError("the connection was closed before it was used")
        return dict(known[asynchronous])


class Transport(redis.Transport):
    Channel = Channel


def celery_url(url: str) -> str:
    """The URL for Celery: of a bare `rediss://` kombu would accept any certificate."""
    if url.startswith("rediss://") and "ssl_" not in url:
        return url + ("&" if "?" in url else "?") + "ssl_cert_reqs=required"
    return url


def install() -> None:
    """Have every `redis://` and `rediss://` URL of this process use this transport."""
    here = f"{__name__}:Transport"
    TRANSPORT_ALIASES.update({"redis": here, "rediss": here})
