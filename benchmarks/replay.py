"""A recorded trace through the whole of K-9, and three other ways to serve it: `python benchmarks/replay.py`.

Ten minutes of what Azure's inference services were asked in 2023 (conversation, and code in bursts), a third
of it, go five times as fast through real processes: Redis, API, workers, fake backends of realistic speed.
Each way gets the same requests, one after the other:

all local         everything waits for the two local servers
all cloud         nothing is local
fallback on 429   without K-9: the local servers in turn, which refuse when their own short queue is full,
                  then the cloud
K-9               local first; overflow to the cloud by estimated wait

Where the trace is not beside the checkout, a drawn one with the same statistics takes its place.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import uvloop

from k9_broker.errors import ConfigurationError
from k9_broker.simulation.traces import Arrival, read_trace, stretch, synthetic
from replay_figures import Outcome, Slo, notes, outcome, table
from replay_ground import Ground, Scale, Terms, standing
from replay_plot import draw
from replay_ways import Ask, Client, clients, fallback, replay, through_k9
from tables import weather

ROOT = Path(__file__).resolve().parents[1]
TRACE = ROOT.parent / "shared" / "data" / "traces" / "azure2023_first40min.csv"
SEED = 7
DIRECT = "fallback on 429"

WAYS: dict[str, Callable[[Client, Ground], Ask]] = {
    "all local": lambda client, ground: through_k9(client, ground, "local"),
    "all cloud": lambda client, ground: through_k9(client, ground, "cloud"),
    DIRECT: fallback,
    "K-9": through_k9,
}


def compare(
    arrivals: Sequence[Arrival],
    seconds: float,
    terms: Terms,
    slo: Slo,
    *,
    ways: Sequence[str] = tuple(WAYS),
    told: Callable[[str], None] = lambda line: None,
) -> list[Outcome]:
    """Replay the arrivals of so many seconds in each way, and tell of each when it is over."""

    async def serve(way: str, ground: Ground) -> Outcome:
        ground.queue_of_their_own(terms.own_queue if way == DIRECT else None)
        before, booked, began = ground.cpu(), ground.booked(), time.monotonic()
        async with clients(terms.scale) as client:
            served = await replay(arrivals, WAYS[way](client, ground), terms.scale.speed)
        took = time.monotonic() - began
        cores = {name: (used - before[name]) / took for name, used in ground.cpu().items()}
        books = None if way == DIRECT else ground.booked() - booked
        return outcome(way, served, seconds=seconds, slo=slo, terms=terms, cores=cores, booked=books)

    outcomes = []
    most = max(one.output_tokens for one in arrivals)
    loop = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    with standing(terms, most) as ground, loop as runner:
        for way in ways:
            outcomes.append(runner.run(serve(way, ground)))
            told(f"{way}: {outcomes[-1].slo:.1%} served well, {outcomes[-1].usd:.2f} USD")
    return outcomes


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trace", type=Path, help="CSV: t_seconds,input_tokens,output_tokens,kind")
    parser.add_argument("--start", type=float, default=240, help="seconds of the trace to pass over; 240")
    parser.add_argument("--seconds", type=float, default=600, help="how much of the trace; 600")
    parser.add_argument("--every", type=int, default=3, help="take each nth request; 3")
    parser.add_argument(
        "--speed", type=float, default=Scale().speed, help="seconds of the trace in a real one; 5"
    )
    parser.add_argument(
        "--overflow-wait", type=float, default=Terms().overflow_wait, help="K-9's mark, seconds; 3"
    )
    parser.add_argument(
        "--own-queue",
        type=int,
        default=Terms().own_queue,
        help="requests that wait at a local server without K-9; 8",
    )
    parser.add_argument("--ttft", type=float, default=Slo().ttft, help="the SLO's, seconds")
    parser.add_argument("--tpot", type=float, default=Slo().tpot, help="the SLO's, seconds")
    parser.add_argument("--way", action="append", choices=list(WAYS), help="only this one")
    parser.add_argument("--out", type=Path, help="folder for replay.json and replay.svg")
    chosen = parser.parse_args()

    path = chosen.trace or (TRACE if TRACE.is_file() else None)
    try:
        whole = read_trace(path) if path else synthetic(SEED, chosen.start + chosen.seconds)
    except ConfigurationError as error:
        parser.error(error.message)
    arrivals = stretch(whole, chosen.start, chosen.seconds, every=chosen.every)
    if not arrivals:
        parser.error("the trace has no requests in that stretch")
    source = path.stem if path else f"a drawn trace (the recorded one is not here; seed {SEED})"
    slo = Slo(chosen.ttft, chosen.tpot)
    scale = Scale(speed=chosen.speed)
    terms = Terms(scale, overflow_wait=chosen.overflow_wait, own_queue=chosen.own_queue)
    rate = len(arrivals) / chosen.seconds
    title = (
        f"{len(arrivals)} requests in {chosen.seconds / 60:g} minutes of {source} ({rate:.1f}/s), "
        f"{chosen.speed:g} times as fast"
    )
    print(title, weather(), sep="\n", end="\n\n", flush=True)
    outcomes = compare(
        arrivals, chosen.seconds, terms, slo, ways=chosen.way or tuple(WAYS),
        told=lambda line: print(line, flush=True),
    )  # fmt: skip
    print(f"\n{table(outcomes, title, slo)}\n\n{notes(outcomes, slo)}\n\n{weather()}")
    if chosen.out:
        write(chosen.out, outcomes, slo, title)
    return 0


def write(folder: Path, outcomes: Sequence[Outcome], slo: Slo, title: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    said: dict[str, Any] = {"what": title, "machine": weather(), "slo": {"ttft": slo.ttft, "tpot": slo.tpot}}
    said |= {"ways": [one.told() for one in outcomes]}
    (folder / "replay.json").write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
    try:
        draw(outcomes, slo, folder / "replay.svg")
    except ImportError:
        print("No picture: matplotlib is not installed (pip install --group bench).")


if __name__ == "__main__":
    raise SystemExit(main())
