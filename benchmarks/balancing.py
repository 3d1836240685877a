"""How calls are shared between instances: `python benchmarks/balancing.py [TRACE]`.

The worker's own rule (`k9_broker.balance`) against round robin and random, on a model of six servers
(`instances_model.py`): four alike, one three times as slow, one at which others hold up to six of eight
slots. TRACE is a CSV with `t_seconds,input_tokens,output_tokens,kind`; without it the recorded one beside
the checkout is used if it is there, and a bursty one of our own always. Nothing is called, no clock is
read, so a run gives the same figures everywhere; ratios are to the rule's own figure.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from instances_model import (
    Call,
    Outcome,
    Rule,
    Server,
    at_random,
    balanced,
    bursts,
    recorded,
    replay,
    round_robin,
    stretched,
    work,
)
from tables import Table, percentile

TRACE = Path(__file__).resolve().parents[2] / "shared" / "data" / "traces" / "azure2023_first40min.csv"
RULES: dict[str, Callable[[], Rule]] = {
    "k9": balanced,
    "round robin": round_robin,
    "random": at_random,
}


def servers(seconds: float, *, remembers: int = 0, alike: bool = False) -> list[Server]:
    """Six servers of eight slots; others come and go at the last one four times in `seconds`."""
    others = [(seconds * part / 8, 6 if part % 2 else 2) for part in range(8)]
    plain = [Server(f"server-{number}", remembers=remembers) for number in range(1, 7)]
    if not alike:
        plain[4].slowness = 3.0
        plain[5].foreign = others
    return plain


def seconds_for(calls: Sequence[Call], load: float) -> float:
    """How long the trace must last for the six servers, of which the slow one counts a third and the
    shared one half, to be taken to the share `load` on average."""
    return work(calls) / (load * 8 * (4 + 1 / 3 + 1 / 2))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("trace", nargs="?", type=Path)
    parser.add_argument("--calls", type=int, default=6000)
    parser.add_argument("--load", type=float, action="append", help="of what the servers can do; 0.4 and 0.7")
    chosen = parser.parse_args()
    trace = chosen.trace or (TRACE if TRACE.is_file() else None)

    traces = {"own bursts": bursts(chosen.calls)}
    if trace is not None:
        traces[trace.stem] = recorded(trace, chosen.calls)
    for name, calls in traces.items():
        for load in chosen.load or (0.4, 0.7):
            title = f"{len(calls)} calls, {name}, load {load:g}"
            print(against(title, stretched(calls, seconds_for(calls, load))), end="\n\n")
    own = traces["own bursts"]
    print(against("2000 calls at once", [replace(call, at=0.0) for call in own[:2000]]), end="\n\n")
    print(cached(stretched(own, seconds_for(own, 0.7))))
    return 0


def against(title: str, calls: Sequence[Call]) -> Table:
    span = max(60.0, calls[-1].at)
    found = {name: replay(servers(span), calls, rule()) for name, rule in RULES.items()}
    base = found["k9"]

    def row(name: str, one: Outcome) -> list[str]:
        return [
            name,
            f"{one.skew:.2f}",
            *(both(percentile(one.waits, part), percentile(base.waits, part)) for part in (0.5, 0.95)),
            *(both(percentile(one.times, part), percentile(base.times, part)) for part in (0.5, 0.95)),
            both(one.makespan, base.makespan),
        ]

    columns = ("rule", "max/mean busy", "wait p50", "wait p95", "time p50", "time p95", "makespan")
    return Table(title, columns, [row(name, one) for name, one in found.items()])


def both(value: float, base: float) -> str:
    """Seconds, and how many times the rule's own."""
    return f"{value:.2f} s ({value / base:.2f}x)" if base > 0.005 else f"{value:.2f} s"


def cached(calls: Sequence[Call]) -> Table:
    """Six servers alike, each of which remembers the prompts of twelve sessions."""
    rules: dict[str, Rule] = {
        "affinity": balanced(affinity=True),
        "none": balanced(),
        "round robin": round_robin(),
    }
    rows = []
    for name, rule in rules.items():
        one = replay(servers(calls[-1].at, remembers=12, alike=True), calls, rule)
        times = [f"{percentile(one.times, part):.2f} s" for part in (0.5, 0.95)]
        rows.append([name, f"{one.hits:.1%}", f"{one.skew:.2f}", *times])
    columns = ("keeps together", "prompts in the cache", "max/mean busy", "time p50", "time p95")
    return Table("150 sessions, six servers alike that remember twelve each", columns, rows)


if __name__ == "__main__":
    raise SystemExit(main())
