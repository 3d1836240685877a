"""A million lines through `k9 embed`: who grows with them, and who does not."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import psutil

from embed_batch import CLI, write_lines
from ground import Options, Stack, running
from tables import Aim, Figure, Table

SLOTS = 8
EVERY = 0.5
"""Seconds between looks at the processes."""
WARM = 0.2
"""The share of the run after which a process should have all the memory it needs."""
MB = 2**20


@dataclass
class Watch:
    """Memory of each process while a command runs, in bytes."""

    stack: Stack
    seen: dict[str, list[int]] = field(default_factory=dict)
    _over: threading.Event = field(default_factory=threading.Event)

    def of(self, command: psutil.Process) -> None:
        """Look until `stop`."""
        children = {"API": self.stack.api, "worker": self.stack.workers["w1"]}
        watched = {
            name: psutil.Process(one.process.pid) for name, one in children.items() if one and one.process
        }
        client = self.stack.redis.client
        while not self._over.wait(EVERY):
            try:
                now = {"k9 embed": command.memory_info().rss}
            except psutil.NoSuchProcess:
                return
            now |= {name: process.memory_info().rss for name, process in watched.items()}
            now["Redis, its data"] = int(client.info("memory")["used_memory"])
            for name, size in now.items():
                self.seen.setdefault(name, []).append(size)

    def stop(self) -> None:
        self._over.set()


def measure(lines: int, dimensions: int) -> Figure:
    behaviour: dict[str, Any] = {"latency_ms": 1, "per_input_ms": 0, "dimensions": dimensions}
    with (
        running(Options(), slots=SLOTS, **behaviour) as stack,
        TemporaryDirectory(prefix="k9-bench-") as name,
    ):
        folder = Path(name)
        source = write_lines(folder / "lines.jsonl", lines)
        watch, seconds = embed(stack, source, folder / "out.npy", lines)
    kept = watch.seen["Redis, its data"]
    note = (
        f"{len(kept)} looks; warm is after the first fifth. What Redis keeps are the answers, until"
        f"\n`jobs.retention_seconds` is over: {(kept[-1] - kept[0]) / lines:,.0f} bytes for each line here."
    )
    columns = ("MB", "at first", "warm, least", "warm, most", "at the end", "most / least")
    rows = [_row(name, sizes) for name, sizes in watch.seen.items()]
    rate = f"{lines / seconds:,.0f} lines a second"
    table = Table(
        f"{lines:,} lines of {dimensions} dimensions through `k9 embed`, {rate}", columns, rows, note
    )
    aims = [
        Aim("memory of the API in a long batch, most / least", ratio(watch.seen["API"]), 1.15, "x", True),
        Aim("memory of `k9 embed`, most", max(watch.seen["k9 embed"]) / MB, 140, "MB", True),
    ]
    return Figure([table], aims)


def embed(stack: Stack, source: Path, out: Path, lines: int) -> tuple[Watch, float]:
    """One run of the command, watched. Raises `RuntimeError` unless every line came back."""
    words = ["embed", "--url", stack.url, "--model", stack.embed_model, "--window", str(2 * SLOTS), "-q"]
    began = perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", CLI, *words, str(source), "-o", str(out)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    watch = Watch(stack)
    looking = threading.Thread(target=watch.of, args=(psutil.Process(process.pid),))
    looking.start()
    try:
        said, _ = process.communicate()
    finally:
        watch.stop()
        looking.join()
    if f"{lines:,} items, 0 errors" not in said:
        raise RuntimeError(said[-2000:])
    return watch, perf_counter() - began


def warm(sizes: Sequence[int]) -> Sequence[int]:
    return sizes[int(WARM * len(sizes)) :] or sizes


def ratio(sizes: Sequence[int]) -> float:
    return max(warm(sizes)) / min(warm(sizes))


def _row(name: str, sizes: Sequence[int]) -> list[str]:
    shown = (sizes[0], min(warm(sizes)), max(warm(sizes)), sizes[-1])
    return [name, *(f"{size / MB:.1f}" for size in shown), f"{ratio(sizes):.2f}"]
