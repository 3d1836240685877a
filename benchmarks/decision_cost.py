"""What one decision costs, by its parts and by the size of the fleet: `python benchmarks/decision_cost.py`.

Every prompt is decided for each fleet in turn, round after round, and of each part the least CPU time of all
rounds is kept, so that what else the machine does hardly shows. The percentiles are over the prompts.
"""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from time import thread_time
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from fleets import CODE, LARGE, MINI, SMALL, view
from k9_api.demo.prompts import PROMPTS
from k9_broker import tokens
from k9_broker.policy import Policy
from k9_broker.recognise import recognise
from k9_broker.requests import InferenceRequest, Kind, Operation
from k9_broker.sensitive import Detector
from k9_broker.snapshot import Snapshot
from k9_broker.strategy.engine import Router
from k9_broker.strategy.needs import needs_of
from tables import Aim, Table, aims_table, percentile, weather

FLEETS = (1, 5, 20)
STRATEGIES = ("task", "cost", "quality", "latency")
LONG = 16_000
"""Characters: about 4,000 tokens, the longest prompts here."""
WANTED_MS = 0.5


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    chosen = parser.parse_args()
    before = weather()
    policy = Policy()
    router, detector = Router(policy), Detector()
    requests = _requests()
    parts: dict[str, Callable[[Any], object]] = {
        "classify": recognise,
        "detect": lambda asked: detector.find(tokens.strings(asked.body)),
        "all of a request's needs": lambda asked: needs_of(asked, policy, detector),
    }
    known = {id(asked): needs_of(asked, policy, detector) for asked in requests}
    for size in FLEETS:
        fleet = _fleet(size)
        parts[f"rank, {size} backends"] = lambda asked, fleet=fleet: router.weigh(known[id(asked)], fleet)
        parts[f"whole, {size} backends"] = lambda asked, fleet=fleet: router.decide(asked, fleet)
    best = {name: [float("inf")] * len(requests) for name in parts}
    for asked in requests:  # what is loaded or cached the first time
        router.decide(asked, _fleet(1))
    gc.collect()
    gc.freeze()
    for _ in range(chosen.rounds):
        for at, asked in enumerate(requests):
            for name, part in parts.items():
                began = thread_time()
                part(asked)
                best[name][at] = min(best[name][at], thread_time() - began)
    print(_table("All prompts", best, range(len(requests))), end="\n\n")
    short = [at for at, asked in enumerate(requests) if tokens.prompt_tokens(asked).likely < 1000]
    print(_table("Prompts under 1,000 tokens", best, short), end="\n\n")
    last = FLEETS[-1]
    both = [best["classify"][at] + best[f"rank, {last} backends"][at] for at in range(len(requests))]
    whole = best[f"whole, {last} backends"]
    aims = [
        Aim(
            f"{name} over {last} backends, p99",
            1000 * percentile(values, 0.99),
            WANTED_MS,
            "ms",
            at_most=True,
        )
        for name, values in (("classify and rank", both), ("whole decision", whole))
    ]
    print(aims_table(aims))
    print(f"({len(requests)} requests, {chosen.rounds} rounds; before: {before}; after: {weather()})")
    return 0


def _requests() -> list[InferenceRequest]:
    """The routing demo's prompts under each strategy, as they are and after notes of up to `LONG` letters."""
    notes = " ".join(prompt.text for prompt in PROMPTS if len(prompt.text) < 400 and "@" not in prompt.text)
    notes = (notes + "\n") * (LONG // len(notes) + 1)
    asked = []
    for strategy in STRATEGIES:
        model = f"auto:{strategy}"
        for at, prompt in enumerate(PROMPTS):
            body = prompt.body(model)
            asked.append(InferenceRequest(prompt.operation, model, body))
            if prompt.operation is Operation.CHAT:
                before = {"role": "system", "content": notes[: LONG * at // len(PROMPTS)]}
                body = {**body, "messages": [before, *body["messages"]]}
                asked.append(InferenceRequest(prompt.operation, model, body))
    return asked


def _fleet(size: int) -> Snapshot:
    """Backends in turn of four kinds, each with one model."""
    kinds = ((Kind.LOCAL, SMALL), (Kind.CLOUD, LARGE), (Kind.LOCAL, CODE), (Kind.CLOUD, MINI))
    return Snapshot(tuple(view(f"backend-{at}", *kinds[at % len(kinds)], order=at) for at in range(size)))


def _table(title: str, best: dict[str, list[float]], at: Sequence[int]) -> Table:
    rows = []
    for name in sorted(best, key=_order):
        values = [best[name][one] for one in at]
        rows.append([name, *(f"{1000 * percentile(values, part):.3f}" for part in (0.5, 0.99))])
    return Table(f"{title}: ms of CPU for one decision", ("part", "p50", "p99"), rows)


def _order(name: str) -> tuple[int, int]:
    first = ("classify", "detect", "all", "rank", "whole").index(name.split()[0].rstrip(","))
    return first, int(name.split()[1]) if first > 2 else 0


if __name__ == "__main__":
    sys.exit(main())
