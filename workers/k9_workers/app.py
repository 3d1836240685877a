"""The Celery application: its settings, its queues, its tasks.

Workers, Flower and any stock Celery tool load it as `k9_workers.app`. With `K9_BACKEND` set, the
process is that backend's worker; without, it only knows the settings.
"""

from __future__ import annotations

import os
import socket
from typing import Any

from celery import Celery
from kombu.entity import Exchange, Queue

from k9_broker.backends import Backend
from k9_broker.naming import node_name, queue_name, task_name
from k9_broker.requests import Operation, Priority
from k9_broker.settings import load_settings
from k9_workers.environment import backend_from_environment
from k9_workers.execute import execute
from k9_workers.lifecycle import Lifecycle
from k9_workers.pool import AsyncTask
from k9_workers.reserving import QueueOrder


def celery_url(url: str) -> str:
    """The Redis URL for Celery: of a bare `rediss://` kombu would accept any certificate."""
    if url.startswith("rediss://") and "ssl_" not in url:
        return url + ("&" if "?" in url else "?") + "ssl_cert_reqs=required"
    return url


settings = load_settings()

app = Celery("k9", broker=celery_url(settings.redis_url or "redis://127.0.0.1:6379/0"))
app.conf.update(
    task_serializer="json",
    accept_content=["json"],
    # The ledger is the truth, a message only a wake-up: acknowledged when taken, no results kept.
    task_acks_late=False,
    task_ignore_result=True,
    result_backend=None,
    worker_pool="k9_workers.pool:TaskPool",
    worker_consumer="k9_workers.consumer:Consumer",
    # A message acknowledged when taken no longer counts in the prefetch window: only this setting
    # keeps a worker from taking more than its slots.
    worker_disable_prefetch=True,
    worker_prefetch_multiplier=1,
    worker_send_task_events=True,
    task_send_sent_event=False,
    task_track_started=True,
    worker_hijack_root_logger=False,
    worker_log_color=False,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_transport_options={
        # kombu's own record of messages taken costs two round trips a job; the reaper finds those that
        # died with their worker, and sooner.
        "ack_emulation": False,
        "max_connections": 64,
        "socket_connect_timeout": 2,
        "socket_timeout": 10,  # longer than the second kombu's BRPOP waits
        "socket_keepalive": True,
        "health_check_interval": 10,
        "queue_order_strategy": "k9_workers.reserving:QueueOrder",
    },
)


def queues(backend: Backend) -> list[Queue]:
    """The backend's two queues, interactive first; each with an exchange of its own, because queues
    without one all share the default exchange and key."""
    names = [queue_name(backend.kind, backend.name, priority) for priority in Priority]
    return [Queue(name, Exchange(name, type="direct"), routing_key=name) for name in names]


def serve(backend: Backend, order: int, node: str) -> None:
    """Make this process the worker of `backend`: consume its queues, run its jobs."""
    app.conf.task_queues = queues(backend)
    QueueOrder.serve(backend)
    lifecycle = Lifecycle(backend, order, node, settings)
    lifecycle.connect()

    async def run(job_id: str, generation: int) -> dict[str, Any]:
        return await execute(lifecycle.runtime, job_id, generation)

    for operation in Operation:
        app.task(run, name=task_name(operation), base=AsyncTask)


if "K9_BACKEND" in os.environ:
    _backend, _order = backend_from_environment(settings)
    _node = os.environ.get("K9_NODE") or node_name(_backend.name, socket.gethostname())
    serve(_backend, _order, _node)
