"""An ASGI application on a real socket, in a thread of the test's own process."""

from __future__ import annotations

import socket
import threading
from types import TracebackType
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from stand import wait_until


class Served:
    """The application, listening while entered."""

    def __init__(self, app: ASGIApp, **config: Any) -> None:
        """`config` are fields of `uvicorn.Config`, such as `http`."""
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._server = uvicorn.Server(
            uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=2, **config)
        )
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), daemon=True)

    @property
    def url(self) -> str:
        host, port = self._socket.getsockname()
        return f"http://{host}:{port}"

    def __enter__(self) -> Served:
        self._thread.start()
        wait_until(lambda: self._server.started, "the application is served")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        self._thread.join(10)
        self._socket.close()
