"""Names that leave the process: queues, tasks, nodes. Everything else derives them from here."""

from __future__ import annotations

from k9_broker.requests import Kind, Operation, Priority


def queue_name(kind: Kind, backend: str, priority: Priority) -> str:
    """The Celery queue, which is also its routing key: `k9.local.ollama.interactive`."""
    return f"k9.{kind}.{backend}.{priority}"


def task_name(operation: Operation) -> str:
    """The Celery task as Flower shows it: `k9.chat`, `k9.completions`, `k9.embeddings`."""
    return f"k9.{operation}"


def node_name(backend: str, host: str) -> str:
    """The Celery node of the worker that serves `backend` on `host`."""
    return f"k9-{backend}@{host}"
