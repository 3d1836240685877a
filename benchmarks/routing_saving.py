"""What each strategy saves on a recorded trace: `python benchmarks/routing_saving.py [TRACE [CORPUS]]`.

TRACE is a CSV with `t_seconds,input_tokens,output_tokens,kind`, CORPUS a JSONL with `text` and
`task_type`. The engine decides every request; the machines and the cloud are a model (`traffic.py`),
so the money is what the trace's tokens cost at list prices, and no model is called.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from k9_broker.money import dollars
from k9_broker.policy import Policy
from tables import Table, percentile, weather
from traffic import STRATEGIES, Outcome, arrivals, fleet, replay

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
TRACE = DATA / "traces" / "azure2023_first40min.csv"
CORPUS = DATA / "task-types" / "train.jsonl"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("trace", nargs="?", type=Path, default=TRACE)
    parser.add_argument("corpus", nargs="?", type=Path, default=CORPUS)
    parser.add_argument("--first", type=int, help="only so many requests")
    parser.add_argument("--small-slots", type=int, default=24)
    parser.add_argument("--code-slots", type=int, default=12)
    parser.add_argument("--mark", type=int, default=24, help="jobs that may wait at each machine")
    parser.add_argument("--gpu-usd-per-hour", type=float, help="what an hour of each machine costs")
    parser.add_argument("--origin", help="only prompts of this origin, such as `natural`")
    parser.add_argument("--private", type=float, default=0.05, help="share of local-only requests")
    parser.add_argument("--strong-above", type=float, default=Policy().strong_above)
    parser.add_argument("--strategy", action="append", help="only this one; may be repeated")
    chosen = parser.parse_args()
    for path in (chosen.trace, chosen.corpus):
        if not path.is_file():
            parser.error(f"{path} is not there; name a trace and a corpus")
    traffic = arrivals(
        chosen.trace, chosen.corpus, most=chosen.first, private=chosen.private, origin=chosen.origin
    )
    here = fleet(
        small_slots=chosen.small_slots,
        code_slots=chosen.code_slots,
        mark=chosen.mark,
        gpu_usd_per_hour=chosen.gpu_usd_per_hour,
    )
    policy = Policy(strong_above=chosen.strong_above)
    before = weather()
    outcomes = [replay(name, here, traffic, policy) for name in chosen.strategy or STRATEGIES]
    span = traffic[-1].at - traffic[0].at
    print(
        f"{len(traffic)} requests in {span:.0f} s; llama3.1:8b with {chosen.small_slots} slots and "
        f"qwen2.5-coder:7b with {chosen.code_slots}, marks of {chosen.mark}; gpt-4o and gpt-4o-mini; "
        f"{chosen.private:.0%} are local-only\n"
    )
    print(where(outcomes), money(outcomes), decisions(outcomes), sep="\n\n")
    print(f"(before: {before}; after: {weather()})")
    return 0


def where(outcomes: Sequence[Outcome]) -> Table:
    names = ("local-small", "local-code", "cloud-large", "cloud-mini")
    rows = [
        [
            one.strategy,
            _share(one.local, one.requests),
            *(_share(one.places[name], one.requests) for name in names),
            _share(one.overflowed, one.requests),
            _share(one.refused, one.requests),
            f"{one.leaked} of {one.private}",
            _share(one.hard_strong, one.hard),
        ]
        for one in outcomes
    ]
    columns = (
        "strategy",
        "local",
        *names,
        "overflowed",
        "refused",
        "private at cloud",
        "hard at a strong model",
    )
    return Table("Where the requests went", columns, rows)


def money(outcomes: Sequence[Outcome]) -> Table:
    rows = [
        [
            one.strategy,
            _usd(one.cost),
            _usd(one.all_cloud),
            f"{one.saving:.1%}",
            _usd(one.all_large),
            f"{one.saving_on_large:.1%}",
        ]
        for one in outcomes
    ]
    columns = ("strategy", "cost", "all-cloud", "saving", "all gpt-4o", "saving on it")
    note = (
        "all-cloud: each request at the cloud model this strategy takes when there is nothing local.\n"
        "Refused requests (local-only, local queues full) cost nothing and are compared with nothing."
    )
    return Table("What it cost, US dollars", columns, rows, note)


def decisions(outcomes: Sequence[Outcome]) -> Table:
    rows = [
        [
            one.strategy,
            f"{1000 * percentile(one.seconds, 0.5):.3f}",
            f"{1000 * percentile(one.seconds, 0.99):.3f}",
        ]
        for one in outcomes
    ]
    note = "Over four backends: recognition, detection of sensitive content in the whole prompt, ranking."
    return Table("One decision, ms of CPU", ("strategy", "p50", "p99"), rows, note)


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "-"


def _usd(nanos: int) -> str:
    return f"{dollars(nanos):.2f}"


if __name__ == "__main__":
    sys.exit(main())
