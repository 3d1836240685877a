"""Flower's settings, read by Flower itself (`--conf`). The password comes by `FLOWER_BASIC_AUTH`."""

from __future__ import annotations

from typing import Any

tasks_columns = "name,state,args,kwargs,routing_key,received,runtime,worker,uuid"
max_tasks = 20_000  # about 4 kB each in Flower's memory
max_workers = 500
purge_offline_workers = 600  # seconds
task_runtime_metric_buckets = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0]

_LONGEST = {"args": 120, "kwargs": 160, "result": 120}
_SIGNS_OF_TEXT = ("messages", "'content'", '"content"', "prompt")


def format_task(task: Any) -> Any:
    """The last guard of the pages: whatever a producer forgot, no prompt or answer is shown."""
    for name, longest in _LONGEST.items():
        shown = str(getattr(task, name, None) or "")
        if any(sign in shown for sign in _SIGNS_OF_TEXT):
            setattr(task, name, "(hidden)")
        elif len(shown) > longest:
            setattr(task, name, shown[: longest - 1] + "…")
    return task
