"""What a batch takes from interactive callers, they from it, and one tenant from another.

`python benchmarks/fairness.py [--quick] [--chunk LINES]` takes eight minutes. One worker of 16 slots calls a
fake of realistic speed. Chats come in bursts with gaps between: alone, then beside a batch of embeddings,
with slots kept for them and without; their arrivals are the same each time. The batch's speed is measured
alone, in the gaps and in the bursts. Then one tenant asks for one answer at a time, alone and beside another
who has hundreds of jobs waiting.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import fairness_traffic as traffic
from client import run
from embed_batch import write_lines
from fairness_traffic import BURST, GAP, HEAVY, PER_LINE, RATE, SLOTS, SPEED, Seen, Span
from ground import Options
from tables import Aim, Figure, Table, aims_table, ms, percentile, weather

CHUNK = 32
"""Lines of a batch job; at 27 ms a line it holds its slot for 0.85 s."""


def measure(options: Options, chunk: int = CHUNK) -> Figure:
    beside, beside_aims = _beside_a_batch(options, chunk)
    tenants, tenant_aims = _two_tenants(options)
    return Figure([beside, tenants], [*beside_aims, *tenant_aims])


def _beside_a_batch(options: Options, chunk: int) -> tuple[Table, list[Aim]]:
    lines, bursts = options.of(50_000, 25_000), options.of(3, 1)
    with TemporaryDirectory(prefix="k9-bench-") as name:
        source = write_lines(Path(name) / "lines.jsonl", lines)
        with traffic.running(options) as stack:
            quiet = run(traffic.chats(stack, bursts, chunk))
            with traffic.batch(stack, source, chunk):
                alone = run(traffic.speed(stack, chunk, lines))
            with traffic.batch(stack, source, chunk):
                kept = run(traffic.chats(stack, bursts, chunk))
        with traffic.running(options, kept=0) as stack, traffic.batch(stack, source, chunk):
            without = run(traffic.chats(stack, bursts, chunk))
    whole = _rate(alone.gaps)
    runs = {"chats alone": quiet, "batch alone": alone, "both": kept, "both, no slots kept": without}
    table = Table(
        "First token of chats (ms), and lines a second of the batch",
        ("", "chats", "p50", "p95", "p99", "p95 / alone", "in gaps", "/ alone", "in bursts", "/ alone"),
        [_row(title, seen, quiet, whole) for title, seen in runs.items()],
        f"{SLOTS} slots; {RATE:g} chats a second in bursts of {BURST:g} s, of {SPEED['answer_tokens']}"
        f" tokens, and gaps of {GAP:g} s;\n{lines:,} lines in jobs of {chunk}, which take"
        f" {chunk * PER_LINE / 1000:.2g} s, give or take half."
        " A gap begins when the last chat of its burst ended.",
    )
    slower = percentile(kept.first, 0.95) / percentile(quiet.first, 0.95)
    return table, [
        Aim("first token p95, beside a batch / alone", slower, 1.3, "x", at_most=True),
        Aim("batch in the gaps / alone", 100 * _rate(kept.gaps) / whole, 90, "%"),
    ]


def _row(title: str, seen: Seen, quiet: Seen, whole: float) -> list[str]:
    cells = [""] * 5
    if seen.first:
        shown = [ms(percentile(seen.first, part)) for part in (0.5, 0.95, 0.99)]
        ratio = percentile(seen.first, 0.95) / percentile(quiet.first, 0.95)
        cells = [str(len(seen.first)), *shown, f"{ratio:.2f}"]
    for spans in (seen.gaps, seen.bursts):
        rate = _rate(spans)
        cells += [f"{rate:,.0f}", f"{rate / whole:.0%}"] if rate else ["", ""]
    return [title, *cells]


def _rate(spans: list[Span]) -> float:
    return sum(lines for lines, _ in spans) / sum(seconds for _, seconds in spans) if spans else 0.0


def _two_tenants(options: Options) -> tuple[Table, list[Aim]]:
    with traffic.running(options, tenants=True) as stack:
        alone, beside, done = run(traffic.light_and_heavy(stack, options.of(20, 8)))
    ratio = percentile(beside, 0.95) / percentile(alone, 0.95)
    rows = [
        [title, str(len(seen)), *(ms(percentile(seen, part)) for part in (0.5, 0.95)), shown]
        for title, seen, shown in (
            ("alone", alone, "1.00"),
            (f"beside {HEAVY} jobs of another's", beside, f"{ratio:.2f}"),
        )
    ]
    table = Table(
        "First token for a tenant who asks for one answer at a time (ms)",
        ("", "chats", "p50", "p95", "p95 / alone"),
        rows,
        f"The other's jobs are as long; {done:.1f} of them ended a second.",
    )
    return table, [Aim("first token p95, beside a heavy tenant / alone", ratio, 2, "x", at_most=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one burst: a look, nothing to quote")
    parser.add_argument("--chunk", type=int, default=CHUNK, help=f"lines of a batch job; default {CHUNK}")
    chosen = parser.parse_args()
    before = weather()
    figure = measure(Options(quick=chosen.quick), chosen.chunk)
    for table in figure.tables:
        print(f"\n{table}")
    print(f"(before: {before}; after: {weather()})\n\n{aims_table(figure.aims)}")


if __name__ == "__main__":
    main()
