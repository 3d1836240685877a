"""Runs the fake on a port until it is told to stop.

A bare ASGI application under uvicorn (httptools, uvloop) was the fastest of what the
dependencies offer, ahead of aiohttp's low-level server, and it is what the API runs on anyway.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from k9_broker.errors import ConfigurationError
from k9_broker.fake.app import FakeBackend
from k9_broker.fake.faults import Behaviour


def serve(
    host: str = "127.0.0.1",
    port: int = 8799,
    behaviour: Behaviour | None = None,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM; open requests are dropped then.

    `ready` is given the base URL once connections are accepted; port 0 takes any free port.
    Raises `ConfigurationError` when the address cannot be had.
    """
    link = _listen(host, port)
    url = f"http://{f'[{host}]' if ':' in host else host}:{link.getsockname()[1]}"
    config = uvicorn.Config(
        FakeBackend(behaviour or Behaviour()),
        http=_Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=0,
        backlog=2048,
    )
    _Server(config, lambda: ready(url) if ready else None).run(sockets=[link])


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    link = socket.socket(family, socket.SOCK_STREAM)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        link.bind((host, port))
    except OSError as error:
        link.close()
        raise ConfigurationError(
            f"The fake cannot listen on {host}:{port} ({error.strerror}). Choose another port; 0 is any."
        ) from None
    return link


class _Protocol(HttpToolsProtocol):
    """Hands itself, the connection, to the application, which cuts and resets it when told to."""

    requests = 0

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.requests += 1
        self.scope["state"]["connection"] = self


class _Server(uvicorn.Server):
    """Says when it is ready, and ends quietly on a signal instead of raising it again."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        if threading.current_thread() is threading.main_thread():
            loop = asyncio.get_running_loop()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, setattr, self, "should_exit", True)
        yield
