"""Prints what NEEDS_STRONG.md shows: APGR on rows held out, calibration, thresholds, latency, size.

    python training/evaluate_needs_strong.py [--data FOLDER] [--prompts FILE] [--repeats N]

About 2 minutes. Every score of a row comes from models that saw neither that row nor, in the variants that
say so, any row of its subject.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections import Counter
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

import numpy as np
from rich.console import Console

from apgr import Floats, apgr, bootstrap, interval
from k9_broker.classify import strong
from needs_strong import (
    CHOICE,
    DATA,
    OPEN,
    PANEL_SHARE,
    PROMPTS,
    SEED,
    Corpus,
    Rows,
    blend,
    corpus_of,
    expert,
    fit,
    graded_rows,
    outcome_rows,
    panel_model,
    parts,
    train,
)
from needs_strong_rows import GRADES

out = Console(width=120, highlight=False).print


def held_out(corpus: Corpus, pair: Rows, repeat: int) -> Floats:
    """One score for each outcome row, from models trained on the other nine tenths."""
    prior, ordinary = panel_model(corpus), graded_rows(corpus)
    scores = np.zeros(len(corpus.rows))
    for held in parts(corpus, pair, 10, SEED + repeat):
        scores[held] = train(corpus, np.setdiff1d(pair, held), ordinary, prior).score(corpus, held)
    return scores[pair]


def new_subject(corpus: Corpus, pair: Rows) -> Floats:
    """Sums from models that saw no row of the same subject; word problems: none of the pair's outcomes.

    Less the mean gain of the rows learned from, for the reason `parts` gives.
    """
    prior = panel_model(corpus)
    subject = np.array([corpus.rows[i].domain or "gsm8k" for i in pair])
    lettered = corpus.choice[pair]
    sums = np.zeros(len(pair))
    for name in sorted(set(subject)):
        held, inside = subject == name, pair[(subject != name) & lettered]
        if name == "gsm8k":
            sums[held] = fit(corpus, graded_rows(corpus), OPEN).total(corpus, pair[held])
        else:
            model = blend(fit(corpus, inside, CHOICE), prior, PANEL_SHARE)
            sums[held] = model.total(corpus, pair[held]) - corpus.target[inside].mean()
    return sums


def table(title: str, named: dict[str, list[Floats]], gain: Floats, draws: int = 1000) -> None:
    """APGR, its interval, and the paired difference to prompt length; means over the repeats."""
    flat = {f"{name}#{i}": each for name, many in named.items() for i, each in enumerate(many)}
    drawn = bootstrap(flat, gain, draws)
    means = {
        name: np.mean([drawn[f"{name}#{i}"] for i in range(len(many))], axis=0)
        for name, many in named.items()
    }
    out(f"\n{title}: {len(gain)} rows, mean gain {gain.mean():.3f}")
    out(f"{'router':34s} {'APGR':>6s} {'95 %':>15s} {'10 steps':>9s}   {'minus length':>12s} {'95 %':>16s}")
    base = np.mean([apgr(each, gain) for each in named["prompt length"]])
    for name, many in named.items():
        mean = np.mean([apgr(each, gain) for each in many])
        steps = np.mean([apgr(each, gain, 10) for each in many])
        low, high = interval(means[name])
        under, over = interval(means[name] - means["prompt length"])
        out(
            f"{name:34s} {mean:6.3f} [{low:6.3f}, {high:5.3f}] {steps:9.3f}   {mean - base:+12.3f} "
            f"[{under:+.3f}, {over:+.3f}]"
        )


def calibration(score: Floats, gain: Floats) -> None:
    """What share of rows needed the strong model, by tenths of the score."""
    out(f"\n{'score':>13s} {'rows':>5s} {'mean score':>10s} {'needs strong':>12s} {'mean gain':>10s}")
    edges = np.quantile(score, np.linspace(0, 1, 11))
    for low, high in pairwise(edges):
        inside = (score >= low) & ((score < high) | (high == edges[-1]))
        needed, mean = (gain[inside] > 0).mean(), gain[inside].mean()
        shown = f"{low:.3f}..{high:.3f} {inside.sum():6d} {score[inside].mean():10.3f}"
        out(f"{shown} {needed:12.3f} {mean:10.3f}")


def thresholds(corpus: Corpus, pair: Rows) -> None:
    """The score on prompts of real users that the model did not see, and who stands above a threshold."""
    ordinary = graded_rows(corpus)
    free = pair[~corpus.choice[pair]]
    goal = np.clip(corpus.target, 0.0, 1.0)
    scores = np.zeros(len(corpus.rows))
    for held in parts(corpus, ordinary, 5, SEED):
        inside = np.concatenate([free, np.setdiff1d(ordinary, held)])
        scores[held] = expert(corpus, inside, OPEN, None, goal, 4).score(corpus, held)
    graded = [(corpus.rows[i], scores[i]) for i in ordinary if corpus.rows[i].task]
    users = [(row, score) for row, score in graded if row.natural]
    values = np.array([score for _, score in users])
    out(f"\n{len(users)} prompts of real users, held out; quantiles of the score")
    for share in (10, 25, 50, 60, 75, 80, 90, 95):
        out(f"  {share:3d} % at or below {np.percentile(values, share):.3f}")
    cut = float(np.percentile(values, 75))
    out(f"above {cut:.3f}, by task type and grade (hand and rule):")
    kinds = Counter((row.task, row.grade) for row, _ in users)
    above = Counter((row.task, row.grade) for row, score in users if score > cut)
    for kind in sorted(kinds):
        out(f"  {kind[0]:26s} {kind[1]:7s} {above[kind]:4d} of {kinds[kind]:4d}")
    out("mean score of all graded prompts, held out: low, medium, high")
    for task in sorted({row.task for row, _ in graded}):
        means = [[s for row, s in graded if (row.task, row.grade) == (task, grade)] for grade in GRADES]
        out(f"  {task:26s} " + " ".join(f"{np.mean(each):6.3f}" if each else "     -" for each in means))


def cost() -> None:
    """Load time, size, and the time of one call: by the clock, and by the thread's processor time."""
    strong.weights.cache_clear()
    start = time.perf_counter()
    strong.weights()
    loaded = time.perf_counter() - start
    size = len(files("k9_broker.classify").joinpath("strong.json").read_bytes())
    out(f"\nload {loaded * 1e3:.0f} ms, weights {size / 1e6:.3f} MB")
    texts = {
        "short": "What is the capital of France?",
        "prose, 6,000 characters": (strong.__doc__ or "") * 8,
        "code, 6,000 characters": Path(strong.__file__).read_text("utf-8"),
        "Chinese, 6,000 characters": "请设计一个分布式系统并证明其正确性，然后分析复杂度。" * 240,
        "sums, 6,000 characters": "1 + 23 = 24; " * 461,
        "marks, 6,000 characters": "{}[]();:.,?!" * 500,
    }
    gc.disable()
    for name, text in texts.items():
        shown = []
        for clock in (time.perf_counter, time.thread_time):
            spent = []
            for _ in range(4000):
                start = clock()
                strong.score(text[:6000])
                spent.append((clock() - start) * 1e3)
            cuts = statistics.quantiles(spent, n=100)
            shown.append(f"p10 {cuts[9]:.3f} p50 {cuts[49]:.3f} p99 {cuts[98]:.3f} ms")
        out(f"  {name:26s} clock {shown[0]}   processor {shown[1]}")
    gc.enable()


def report(corpus: Corpus, repeats: int = 3) -> None:
    """Everything, in the order of NEEDS_STRONG.md."""
    pair = outcome_rows(corpus)
    gain, source = corpus.target[pair], corpus.source[pair]
    length = np.array([float(len(corpus.rows[i].text)) for i in pair])
    rng = np.random.default_rng(SEED)
    scores = [held_out(corpus, pair, repeat) for repeat in range(repeats)]
    named = {
        "needs_strong": scores,
        "needs_strong, subject unseen": [new_subject(corpus, pair)],
        "prompt length": [length],
        "prompt length reversed": [-length],
        "random": [rng.random(len(pair)) for _ in range(20)],
        "perfect": [gain],
    }
    for name in ("mmlu", "gsm8k"):
        kept = source == name
        table(name, {router: [s[kept] for s in many] for router, many in named.items()}, gain[kept])
    pooled = {router: many for router, many in named.items() if "unseen" not in router}
    table("pooled", pooled, gain)
    odd = np.array([corpus.rows[i].domain == "high_school_mathematics" for i in pair])
    kept = (source == "mmlu") & ~odd
    rest = {router: [s[kept] for s in many] for router, many in named.items()}
    table("mmlu without high_school_mathematics", rest, gain[kept])
    calibration(scores[0], gain)
    thresholds(corpus, pair)
    cost()


def main() -> None:
    """The command line."""
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--data", type=Path, default=DATA)
    ask.add_argument("--prompts", type=Path, default=PROMPTS)
    ask.add_argument("--repeats", type=int, default=3)
    given = ask.parse_args()
    report(corpus_of(given.data, given.prompts), given.repeats)


if __name__ == "__main__":
    main()
