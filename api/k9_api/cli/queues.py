"""`k9 queues`: what waits where."""

from __future__ import annotations

from typing import Any

from k9_api.cli.where import Url, http_get


def queues(url: Url = None) -> None:
    """Show every backend with its queue, its jobs in flight and the wait to expect."""
    from rich.console import Console
    from rich.table import Table

    backends = http_get(url, "/v1/queues")["data"]
    if not backends:
        Console().print(
            "No backend has joined yet. Start a worker: `k9 worker --backend NAME`.", markup=False
        )
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("backend", "kind"):
        table.add_column(name, no_wrap=True)
    table.add_column("models", no_wrap=True, overflow="ellipsis")
    for name in ("workers", "in flight", "waiting", "batch", "wait", "oldest"):
        table.add_column(name, justify="right", no_wrap=True)
    for backend in backends:
        table.add_row(*_row(backend))
    Console().print(table)


def _row(backend: dict[str, Any]) -> list[str]:
    waiting, wait = backend["waiting"], backend["estimated_wait_seconds"]
    return [
        backend["backend"],
        backend["kind"],
        ", ".join(backend["models"]),
        str(backend["workers"]),
        f"{backend['in_flight']} of {backend['slots']}",
        str(waiting["interactive"]),
        str(waiting["batch"]),
        f"{wait['interactive']:.1f} s",
        f"{backend['oldest_age_seconds']:.1f} s",
    ]
