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
    table = Table(box=None, header_style="bold")
    table.add_column("backend")
    table.add_column("kind")
    table.add_column("models", overflow="fold")
    for name in ("workers", "slots", "in flight", "waiting", "batch waiting", "wait", "oldest"):
        table.add_column(name, justify="right")
    for backend in backends:
        table.add_row(*_row(backend))
    Console().print(table)


def _row(backend: dict[str, Any]) -> list[str]:
    models = backend["models"]
    shown = ", ".join(models[:3]) + (f" and {len(models) - 3} more" if len(models) > 3 else "")
    return [
        backend["backend"],
        backend["kind"],
        shown,
        str(backend["workers"]),
        str(backend["slots"]),
        str(backend["in_flight"]),
        str(backend["waiting"]["interactive"]),
        str(backend["waiting"]["batch"]),
        f"{backend['estimated_wait_seconds']['interactive']:.1f} s",
        f"{backend['oldest_age_seconds']:.1f} s",
    ]
