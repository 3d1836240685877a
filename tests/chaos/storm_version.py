"""`python -m storm_version MODULE …`: run a module of K-9's as a version that says more, and less.

More: fields nobody here knows, in what it announces and in the records it writes. Less: what this version
says beyond what everyone must. Both happen while a cluster is changed from one release to the next.
"""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Callable
from typing import Any

from k9_broker.adapters import redis_ledger
from k9_broker.backends import Announcement

OPTIONAL = {"task_type", "strategy", "cloud_prices", "tokens_estimate"}
"""Fields of a record that older versions did not write."""


def strange(write: Callable[..., str]) -> Callable[..., str]:
    def written(self: Announcement, **how: Any) -> str:
        said = json.loads(write(self, **how))
        for name in [name for name, one in Announcement.model_fields.items() if not one.is_required()]:
            if name not in ("cards", "instances", "latencies"):
                said.pop(name, None)
        parts = [said, *said.get("instances", []), *said.get("latencies", {}).values()]
        parts += said.get("cards", {}).values()
        for part in parts:
            part["of_tomorrow"] = {"a": [1]}
        return json.dumps(said)

    return written


def stranger(write: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
    def written(*args: Any) -> list[Any]:
        flat = write(*args)
        kept = [pair for pair in zip(flat[::2], flat[1::2], strict=True) if pair[0] not in OPTIONAL]
        return [word for pair in [*kept, ("of_tomorrow", "1")] for word in pair]

    return written


if __name__ == "__main__":
    Announcement.model_dump_json = strange(Announcement.model_dump_json)  # type: ignore[method-assign]
    redis_ledger.new_record = stranger(redis_ledger.new_record)
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
