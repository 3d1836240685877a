"""Running the API in this process."""

from __future__ import annotations

import gc
import logging

import uvicorn

from k9_api.app import create_app
from k9_api.rereading import Reread
from k9_broker.settings import Settings

KEEP_CONNECTIONS = 75
"""Seconds an idle connection stays open: longer than clients keep theirs, so that they close first."""

SHUTDOWN = 20
"""Seconds that running answers are given at shutdown."""


def server(settings: Settings, redis_url: str, reread: Reread | None = None) -> uvicorn.Server:
    """A uvicorn server, not yet started. It logs no requests: a path or a header may hold a secret."""
    return uvicorn.Server(
        uvicorn.Config(
            create_app(settings, redis_url, reread=reread),
            host=settings.api.host,
            port=settings.api.port,
            loop="auto",  # uvloop and httptools where they are installed
            http="auto",
            ws="none",
            access_log=False,
            server_header=False,
            log_config=None,
            backlog=2048,
            timeout_keep_alive=KEEP_CONNECTIONS,
            timeout_graceful_shutdown=SHUTDOWN,
        )
    )


def serve(settings: Settings, redis_url: str, reread: Reread) -> None:
    """Serve until interrupted; SIGHUP has the configuration read again."""
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    running = server(settings, redis_url, reread)
    # What is loaded by now stays: collections need not look at it again and again.
    gc.collect()
    gc.freeze()
    running.run()
