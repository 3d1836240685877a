"""How many requests a second the simulator simulates: `python benchmarks/simulated.py`.

The built-in scenario of `k9 simulate` with as many requests as asked for, under each policy, on one core. CPU
time, so that what else the machine does hardly shows.
"""

from __future__ import annotations

import argparse
import resource
from time import process_time

from k9_broker.simulation.policies import PolicyName
from k9_broker.simulation.run import simulate
from k9_broker.simulation.scenario import load
from tables import Aim, Table, aims_table, weather

WANTED = 20_000
"""Requests a second under K-9's own rules."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--policy", action="append", choices=[str(one) for one in PolicyName])
    chosen = parser.parse_args()
    before = weather()
    rows, rates = [], {}
    for policy in chosen.policy or ["k9"]:
        scenario = load(None, (), policy=policy, requests=chosen.requests).endless()
        began = process_time()
        report = simulate(scenario)
        took = process_time() - began
        rates[policy] = report.total.requests / took
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        rows.append([
            policy, f"{report.total.requests:,}", f"{report.seconds / 3600:.1f}", f"{took:.1f}",
            f"{rates[policy]:,.0f}", f"{memory:.0f}",
        ])  # fmt: skip
    names = ("policy", "requests", "hours simulated", "s of CPU", "requests/s", "MiB")
    print(Table("Simulated requests", names, rows), end="\n\n")
    if "k9" in rates:
        print(aims_table([Aim("simulated, K-9's rules", rates["k9"], WANTED, "/s")]))
    print(f"(before: {before}; after: {weather()})")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
