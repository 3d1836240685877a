"""SIGHUP at a worker: it reads its configuration again, leaves as it always does, and begins anew.

A configuration that is not valid changes nothing. Celery has such a restart of its own, which would begin
with the old backend and wait for running jobs without end; this one takes its place.
"""

from __future__ import annotations

import atexit
import logging
import os
import signal
import sys
from collections.abc import Mapping

from k9_broker.adapters.terminal import Terminal
from k9_broker.backends import Backend
from k9_broker.errors import ConfigurationError
from k9_broker.settings import load_settings
from k9_workers.callers import check
from k9_workers.environment import backend_named

logger = logging.getLogger(__name__)


class Restart:
    """Listens for SIGHUP from when it is made, in the main thread."""

    def __init__(self, backend: Backend, node: str) -> None:
        self._backend = backend
        self._node = node
        self._terminal = Terminal()
        self._environment: Mapping[str, str] | None = None
        self._asked = 0
        atexit.register(self._begin_anew)

    def listen(self) -> None:
        """Take the place of whoever has SIGHUP."""
        signal.signal(signal.SIGHUP, lambda *_: self._hung_up())

    @property
    def is_due(self) -> bool:
        """Whether this process leaves only to come back."""
        return self._environment is not None

    def leaving(self) -> None:
        """The worker was told to leave: by `_hung_up`, or by somebody who means it."""
        if self._asked:
            self._asked -= 1
        else:
            self._environment = None

    def _hung_up(self) -> None:
        if self._terminal.is_gone:
            os.kill(os.getpid(), signal.SIGTERM)
            return
        if self.is_due:
            return
        try:
            self._environment = _reread(self._backend)
        except ConfigurationError as error:
            logger.error(
                "the configuration was not read again; the old one stays in force. %s", error.message
            )
            return
        logger.info("the configuration was read again; %s restarts", self._node)
        self._asked += 1
        os.kill(os.getpid(), signal.SIGTERM)

    def _begin_anew(self) -> None:
        if self._environment is None:
            return
        argv = [sys.executable, "-m", "k9_workers", "--backend", self._backend.name, "--node", self._node]
        logging.shutdown()
        os.execve(argv[0], argv, dict(self._environment))  # noqa: S606 - our own interpreter


def _reread(backend: Backend) -> dict[str, str]:
    """The environment to begin anew with. Raises `ConfigurationError`.

    Where the configuration names no backends, this one was discovered, and stays what it is.
    """
    settings = load_settings()
    environment = dict(os.environ)
    if not settings.backends:
        return environment
    try:
        again, order = backend_named(backend.name, settings)
    except KeyError:
        raise ConfigurationError(
            f"It has no backend {backend.name!r} any more. Stop this worker, or add it again."
        ) from None
    if again.kind is not backend.kind:
        raise ConfigurationError(
            f"The backend {backend.name!r} cannot become {again.kind} while it runs: give it another name, or"
            " stop its workers and start them again."
        )
    check(again)
    return {**environment, "K9_BACKEND": again.model_dump_json(), "K9_BACKEND_ORDER": str(order)}
