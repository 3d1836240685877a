"""`python -m k9_workers --backend NAME`: one worker process for one backend."""

from __future__ import annotations

import argparse
import logging
import os
import socket
import sys

from k9_broker.errors import ConfigurationError
from k9_broker.minilm import BLAS_ENVIRONMENT
from k9_broker.naming import node_name
from k9_broker.settings import load_settings
from k9_workers.callers import check
from k9_workers.environment import backend_from_environment


def main() -> int:
    parser = argparse.ArgumentParser(prog="k9 worker", description=__doc__)
    parser.add_argument("--backend", help="a backend of k9.toml; default: K9_BACKEND")
    parser.add_argument("--node", help="Celery node name; default: k9-BACKEND@HOST")
    chosen = parser.parse_args()
    try:
        settings = load_settings()
        if settings.redis_url is None:
            raise ConfigurationError("A worker needs Redis: set K9_REDIS_URL, or redis_url in k9.toml.")
        if chosen.backend and not os.environ.get("K9_BACKEND", "").startswith("{"):
            os.environ["K9_BACKEND"] = chosen.backend
        try:
            backend, _ = backend_from_environment(settings)
        except KeyError as missing:
            known = ", ".join(backend.name for backend in settings.backends) or "none"
            raise ConfigurationError(
                f"There is no backend {missing} in the configuration (known: {known}). "
                "Add a [[backends]] table to k9.toml, or use `k9 up` to discover."
            ) from None
        check(backend)
    except ConfigurationError as error:
        sys.stderr.write(f"k9 worker: {error}\n")
        return 2
    node = chosen.node or node_name(backend.name, socket.gethostname())
    os.environ["K9_NODE"] = node
    if backend.dialect == "embedded":
        for name, value in BLAS_ENVIRONMENT.items():  # read when NumPy is imported, which is later
            os.environ.setdefault(name, value)
    logging.basicConfig(
        level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s", force=True
    )
    for chatty in ("celery.worker.strategy", "celery.app.trace", "httpx"):  # two lines a job; Flower has them
        logging.getLogger(chatty).setLevel(max(logging.WARNING, logging.getLogger().level))
    from k9_workers.app import app  # after the environment: importing it makes this process the worker

    app.worker_main(
        [
            *("worker", "--concurrency", str(backend.capacity), "--hostname", node),
            *("--loglevel", settings.log_level, "--without-gossip", "--without-mingle", "--task-events"),
        ]
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
