"""Measures K-9 on this machine: `python benchmarks/run.py [--quick] [NAME ...]`, or `make bench`.

Every comparison is made in one run, against one fake backend, with the sides taking turns, so that
whatever else the machine does hits both: read the ratios. docs/benchmarks.md says what they mean.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

from ground import Options
from tables import Aim, Figure, aims_table, weather

FIGURES = ("chat_latency", "throughput", "enqueue_cost", "streams", "embed_batch")
RUNNERS = "embedding_runners"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join((*FIGURES, RUNNERS))}")
    parser.add_argument("--quick", action="store_true", help="fewer rounds: a look, nothing to quote")
    parser.add_argument("--fsync", choices=("everysec", "always"), default="everysec", help="Redis' own")
    chosen = parser.parse_args()
    if unknown := set(chosen.names) - {*FIGURES, RUNNERS}:
        parser.error(f"no such figure: {', '.join(sorted(unknown))}")
    options = Options(quick=chosen.quick, fsync=chosen.fsync)
    print(_machine(options))
    aims: list[Aim] = []
    for name in chosen.names or FIGURES:
        before = weather()
        if name == RUNNERS:
            subprocess.run([sys.executable, str(Path(__file__).with_name(f"{RUNNERS}.py"))], check=True)
            continue
        measure: Callable[[Options], Figure] = import_module(name).measure
        figure = measure(options)
        for table in figure.tables:
            print(f"\n{table}")
        print(f"(before: {before}; after: {weather()})", flush=True)
        aims += figure.aims
    if aims:
        print(f"\n{aims_table(aims)}")
    return 0


def _machine(options: Options) -> str:
    packages = ", ".join(f"{name} {version(name)}" for name in ("k9-broker", "celery", "redis", "uvicorn"))
    return (
        f"{os.cpu_count()} cores, Python {platform.python_version()}, {packages}\n"
        f"Redis appendfsync {options.fsync}, {'quick, ' if options.quick else ''}{weather()}"
    )


if __name__ == "__main__":
    sys.exit(main())
