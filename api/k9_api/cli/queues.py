"""`k9 queues`: what waits where."""

from __future__ import annotations

from typing import Any

from k9_api.cli.fleetview import state_of
from k9_api.cli.where import Url, http_get

COLUMNS = ("backend", "kind", "models", "workers", "in flight", "waiting", "batch", "wait", "oldest", "state")


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
    table = Table(box=None, header_style="bold", padding=(0, 1, 0, 0))
    for name in COLUMNS:
        words = name in ("backend", "kind", "models", "state")
        # Where the terminal is narrow, only the models' names are cut.
        fixed = name != "models"
        table.add_column(
            name, no_wrap=fixed, overflow="ellipsis", justify="left" if words else "right", min_width=4
        )
    for backend in backends:
        table.add_row(*_row(backend))
    Console().print(table)


def _row(backend: dict[str, Any]) -> list[str]:
    models = backend["models"]
    more = f"(+{len(models) - 1})" if len(models) > 1 else ""
    waiting, wait = backend["waiting"], backend["estimated_wait_seconds"]
    return [
        backend["backend"],
        backend["kind"],
        f"{models[0]}{more}" if models else "",
        str(backend["workers"]),
        f"{backend['in_flight']} of {backend['slots']}",
        str(waiting["interactive"]),
        str(waiting["batch"]),
        f"{wait['interactive']:.1f} s",
        f"{backend['oldest_age_seconds']:.1f} s",
        state_of(backend),
    ]
