"""`k9 embed` beside a hand-tuned direct client, and beside one Celery task per line.

All three ask the same fake backend for the vectors of the same lines. `k9 embed` and the direct
client are processes of their own that write the same `.npy`; the arrays must be equal.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np

from ground import Meter, Options, Stack, running
from tables import Aim, Figure, Table

HERE = Path(__file__).parent
SLOTS = 8
"""Calls at once: the worker's slots, the direct client's connections, the tasks' threads."""
CASES = (
    ("8 calls at once, 0.2 ms a line", 0, 0.2, 4),
    ("1 call at a time, 0.2 ms a line", 1, 0.2, 4),
    ("8 calls at once, 4 ms a line", 0, 4.0, 2),
)
"""Title, slots of the backend (0: as many as asked for), milliseconds a line, rounds. The first is bound by
the cores that all share, the others by the backend, as where it has a machine of its own."""
BACKEND: dict[str, Any] = {"latency_ms": 10, "per_input_ms": 0.2, "dimensions": 384}
CLI = "from k9_api.cli.main import app; app()"


class _Meter(Meter):
    """The client is whatever process has ended meanwhile."""

    def _now(self) -> dict[str, float]:
        times = os.times()
        return {**super()._now(), "client": times.children_user + times.children_system}


def measure(options: Options) -> Figure:
    lines = options.of(20_000, 4_000)
    rows: list[list[str]] = []
    aims: list[Aim] = []
    with running(options, slots=SLOTS, **BACKEND) as stack, TemporaryDirectory(prefix="k9-bench-") as name:
        folder = Path(name)
        source = write_lines(folder / "lines.jsonl", lines)
        meter, cpu = _Meter(stack), {"k9 embed": Counter[str](), "direct client": Counter[str]()}
        for title, slots, per_line, rounds in CASES:
            stack.fake.behave(slots=slots, per_input_ms=per_line)
            through, direct = [], []
            for _ in range(options.of(rounds, 1)):
                meter.lap()
                through.append(with_k9(stack, source, folder / "k9.npy", lines))
                cpu["k9 embed"].update(meter.lap())
                direct.append(with_direct(stack, source, folder / "direct.npy", lines))
                cpu["direct client"].update(meter.lap())
                if not np.array_equal(np.load(folder / "k9.npy"), np.load(folder / "direct.npy")):
                    raise RuntimeError("the two outputs differ")
            ours, theirs = (np.mean(side, axis=0) for side in (through, direct))
            rows.append(_row(f"k9 embed, {title}", *ours, theirs[0]))
            rows.append(_row(f"direct client, {title}", *theirs, theirs[0]))
            if not aims:
                tasks = mean(with_tasks(stack, options.of(2_000, 500)) for _ in range(options.of(2, 1)))
                rows.append(_row(f"a task per line, {title}", tasks, 0.0, theirs[0]))
                aims.append(Aim("k9 embed / one task per line", ours[0] / tasks, 20, "x"))
            aims.append(Aim(f"k9 embed / direct client, {title}", 100 * ours[0] / theirs[0], 95, "%"))
    note = (
        f"{lines:,} short lines, 384 dimensions, 256 lines a call, each 10 ms and the lines' time."
        "\nThe first column counts from the first call to the last line written, the second the whole"
        "\nprocess, with the start of Python."
    )
    columns = ("lines per second", "running", "whole process", "running / direct")
    parts = ("client", "API", "worker", "Redis", "fake")
    runs = sum(options.of(rounds, 1) for *_, rounds in CASES)
    costs = [
        [name, *(f"{1e6 * spent[part] / (runs * lines):.0f}" for part in parts)]
        for name, spent in cpu.items()
    ]
    cost = Table("CPU of a line, microseconds; the client's with the start of Python", ("", *parts), costs)
    return Figure([Table("Embedding a file", columns, rows, note), cost], aims)


def _row(name: str, running_rate: float, whole: float, direct: float) -> list[str]:
    return [name, f"{running_rate:,.0f}", f"{whole:,.0f}" if whole else "", f"{running_rate / direct:.2f}"]


def write_lines(path: Path, count: int) -> Path:
    """A JSONL file of short lines, all different."""
    with path.open("w") as file:
        for number in range(count):
            file.write(json.dumps({"text": f"Ticket {number}: the queue was full, please try again."}) + "\n")
    return path


def with_k9(stack: Stack, source: Path, out: Path, lines: int) -> tuple[float, float]:
    """Lines per second while it runs, and of the whole process."""
    words = ["-c", CLI, "embed", "--url", stack.url, "--model", stack.embed_model, "--window", str(2 * SLOTS)]
    said, whole = _process([*words, "--overwrite", "-q", str(source), "-o", str(out)])
    found = re.search(r"([\d,]+) items/s", said)
    if found is None or f"{lines:,} items, 0 errors" not in said:
        raise RuntimeError(said)
    return float(found[1].replace(",", "")), lines / whole


def with_direct(stack: Stack, source: Path, out: Path, lines: int) -> tuple[float, float]:
    words = [str(HERE / "direct_embed.py"), stack.fake.url, stack.embed_model, str(SLOTS)]
    said, whole = _process([*words, str(source), str(out)])
    return float(said.split()[-1]), lines / whole


def with_tasks(stack: Stack, lines: int) -> float:
    """Lines per second of a stock Celery worker with one task per line and results in Redis."""
    environment = {
        **os.environ, "BENCH_REDIS": stack.redis.url.replace("/0", "/1"), "BENCH_URL": stack.fake.url,
        "BENCH_MODEL": stack.embed_model, "PYTHONPATH": str(HERE),
    }  # fmt: skip
    worker = [sys.executable, "-m", "celery", "-A", "item_tasks", "worker", "--pool", "threads"]
    worker += ["--concurrency", str(SLOTS), "--loglevel", "ERROR", "--without-gossip", "--without-mingle"]
    process = subprocess.Popen(
        worker, cwd=HERE, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        said, _ = _process([str(HERE / "item_tasks.py"), str(lines)], environment)
        return float(said.split()[-1])
    finally:
        process.terminate()
        process.wait(30)


def _process(words: list[str], environment: dict[str, str] | None = None) -> tuple[str, float]:
    """What a Python process said, and the seconds it took."""
    began = perf_counter()
    done = subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return done.stdout + done.stderr, perf_counter() - began
