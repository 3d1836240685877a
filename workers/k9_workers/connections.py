"""Connections to one instance: sends a request, gives the response's head, says what a failure means.

Nothing is retried, with one exception: a server may close an idle connection just as a request is
put on it, which is nobody's failure, so a request whose reused connection died before any byte of
an answer is sent once more on a fresh one.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

from k9_broker.backends import Backend, Instance
from k9_broker.dialects.base import WireRequest
from k9_broker.errors import BackendError, BackendTimeout, BackendUnreachable, StreamTruncated

KEEP_ALIVE_SECONDS = 4.0
"""Idle connections are closed sooner than vLLM closes them (5 s)."""

SPARE_CONNECTIONS = 4
"""Beyond the slots, so that asking for the models never waits behind answers."""

LOST = (httpx.HTTPError, httpx.InvalidURL, aiohttp.ClientError, OSError)
"""What a failing connection raises; `httpx-aiohttp` lets some of aiohttp's own errors through."""


@dataclass(slots=True)
class _Attempt:
    reused: bool = False
    """Its connection had carried another request before."""


_attempt: ContextVar[_Attempt | None] = ContextVar("k9_connection_attempt", default=None)


class Connections:
    """httpx's client over aiohttp's connection pool, which costs a twentieth of httpx's own when busy."""

    def __init__(self, backend: Backend, instance: Instance, headers: Mapping[str, str]) -> None:
        """`backend` tells the timeouts, `instance` where it is and how much it takes at once."""
        self._backend = backend
        self._url = instance.url.rstrip("/")
        self._most = instance.slots + SPARE_CONNECTIONS
        self._headers = {"accept-encoding": "identity", **headers}
        self._ssl = _tls()
        self._client = self._new_client(reuse=True)
        self._fresh: httpx.AsyncClient | None = None

    async def send(self, wire: WireRequest) -> httpx.Response:
        """The response's head; the caller reads the body and closes it, which frees the connection.

        Raises `BackendUnreachable` or `BackendTimeout`.
        """
        attempt = _Attempt()
        _attempt.set(attempt)
        try:
            return await self._send(self._client, wire)
        except LOST as error:
            if not (attempt.reused and _died_unanswered(error)):
                raise self.lost(error, begun=False) from error
        self._fresh = self._fresh or self._new_client(reuse=False)
        try:
            return await self._send(self._fresh, wire)
        except LOST as error:
            raise self.lost(error, begun=False) from error

    async def read(self, response: httpx.Response) -> bytes:
        """The whole body. Raises `StreamTruncated` or `BackendTimeout`."""
        try:
            return await response.aread()
        except LOST as error:
            raise self.lost(error, begun=True) from error

    def lost(self, error: Exception, *, begun: bool) -> BackendError:
        """What a failed connection means; `begun`: the response's head had come."""
        name, root = self._backend.name, error.__cause__ or error
        if isinstance(error, httpx.ReadTimeout) or isinstance(root, aiohttp.SocketTimeoutError):
            return BackendTimeout(
                f"The backend {name!r} sent nothing for {self._backend.read_timeout:g} seconds."
                " Raise its read_timeout if it may be silent for longer."
            )
        if begun:
            return StreamTruncated()
        if isinstance(root, aiohttp.ServerDisconnectedError | ConnectionError):
            return BackendUnreachable(
                f"The backend {name!r} closed the connection without an answer. See its server's log."
            )
        reason = "no connection in time" if isinstance(root, TimeoutError) else type(root).__name__
        return BackendUnreachable(
            f"The backend {name!r} could not be reached ({reason})."
            " Check that its server runs and its URL is right."
        )

    async def close(self) -> None:
        await self._client.aclose()
        if self._fresh:
            await self._fresh.aclose()

    async def _send(self, client: httpx.AsyncClient, wire: WireRequest) -> httpx.Response:
        url = self._url + wire.path
        headers = {**self._headers, **wire.headers}
        request = client.build_request(wire.method, url, content=wire.body or None, headers=headers)
        return await client.send(request, stream=True)

    def _new_client(self, *, reuse: bool) -> httpx.AsyncClient:
        most = self._most

        def session() -> aiohttp.ClientSession:
            connector = (
                aiohttp.TCPConnector(limit=most, ssl=self._ssl, keepalive_timeout=KEEP_ALIVE_SECONDS)
                if reuse
                else aiohttp.TCPConnector(limit=most, ssl=self._ssl, force_close=True)
            )
            return aiohttp.ClientSession(
                connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trace_configs=[_reuse_trace()]
            )

        return httpx.AsyncClient(
            transport=AiohttpTransport(verify=self._ssl, trust_env=False, client=session),
            timeout=httpx.Timeout(
                connect=self._backend.connect_timeout,
                read=self._backend.read_timeout,
                write=self._backend.read_timeout,
                pool=None,  # the parts of embedding calls wait here for their turn
            ),
            trust_env=False,
            follow_redirects=False,
        )


@cache
def _tls() -> ssl.SSLContext:
    """One for all instances: to read the certificates takes some 20 ms."""
    return httpx.create_ssl_context(trust_env=False)


def _died_unanswered(error: Exception) -> bool:
    """Whether a connection died before any byte of an answer.

    `httpx-aiohttp` raises `httpx.ConnectTimeout` for it, so aiohttp's own error is asked. aiohttp puts
    what it had read of a response's head into `ServerDisconnectedError.message`.
    """
    root = error.__cause__ or error
    if isinstance(root, aiohttp.ServerDisconnectedError):
        return isinstance(root.message, str)
    return isinstance(root, aiohttp.ClientOSError) and not isinstance(root, aiohttp.ClientConnectorError)


def _reuse_trace() -> aiohttp.TraceConfig:
    """Notes on the attempt under way in this task that its connection is a reused one."""

    async def note(*_: object) -> None:
        if attempt := _attempt.get():
            attempt.reused = True

    trace = aiohttp.TraceConfig()
    trace.on_connection_reuseconn.append(note)
    return trace
