"""How K-9 grows: deep queues, a million lines, a hundred backends: `python benchmarks/scale.py [NAME ...]`.

NAME is one of depth, batch, fleet; without one, all. docs/benchmarks.md says what the figures mean.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping

import scale_batch
import scale_depth
import scale_fleet
from client import run
from tables import Aim, Figure, aims_table, weather

DEPTHS = (1_000, 10_000, 100_000, 1_000_000)
LINES = 1_000_000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="of depth, batch, fleet")
    parser.add_argument("--deepest", type=int, default=DEPTHS[-1], help="jobs in the deepest queue")
    parser.add_argument("--lines", type=int, default=LINES, help="lines of the batch")
    parser.add_argument("--dimensions", type=int, default=16, help="of the vectors of the batch")
    parser.add_argument("--rounds", type=int, default=40, help="of each measurement")
    chosen = parser.parse_args()
    parts: Mapping[str, Callable[[], Figure]] = {
        "depth": lambda: run(
            scale_depth.measure([one for one in DEPTHS if one <= chosen.deepest], chosen.rounds)
        ),
        "batch": lambda: scale_batch.measure(chosen.lines, chosen.dimensions),
        "fleet": lambda: scale_fleet.measure(chosen.rounds),
    }
    if unknown := set(chosen.names) - set(parts):
        parser.error(f"no such figure: {', '.join(sorted(unknown))}")
    aims: list[Aim] = []
    for name in chosen.names or parts:
        before = weather()
        figure = parts[name]()
        for table in figure.tables:
            print(f"\n{table}")
        print(f"(before: {before}; after: {weather()})", flush=True)
        aims += figure.aims
    print(f"\n{aims_table(aims)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
