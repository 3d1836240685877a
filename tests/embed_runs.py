"""Runs of `k9 embed` against the stand-in, and what is expected of them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from jobs_stand_in import StandIn, vector
from k9_api.batch.checkpoint import Outputs
from k9_api.batch.run import Plan

PROGRAM = "from k9_api.cli.main import app; app()"


def lines(folder: Path, count: int, name: str = "in.txt") -> Path:
    path = folder / name
    path.write_text("".join(f"line number {number}\n" for number in range(count)))
    return path


def plan(server: StandIn, file: Path, out: Path, **options: object) -> Plan:
    outputs = Outputs(out=out, errors=out.with_name(out.name + ".errors.jsonl"))
    return Plan(file=str(file), outputs=outputs, url=server.url, **{"chunk": 10, **options})  # type: ignore[arg-type]


def read_jsonl(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def embedded(out: Path) -> dict[str, list[float]]:
    return {str(line["id"]): line["embedding"] for line in read_jsonl(out)}  # type: ignore[misc]


def expected(texts: dict[str, str]) -> dict[str, list[float]]:
    return {name: [float(str(value)) for value in vector(text)] for name, text in texts.items()}


def command(server: StandIn, *arguments: str | Path) -> list[str]:
    return [sys.executable, "-c", PROGRAM, "embed", "--url", server.url, *map(str, arguments)]


def run(server: StandIn, *arguments: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        command(server, *arguments), capture_output=True, text=True, timeout=60, **options
    )


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition never came true"
        time.sleep(0.005)
