"""Prints what the shipped recogniser and its training are worth.

    python training/evaluate.py task-types [--corpus FILE] [--quick] [--shipped]
    python training/evaluate.py natural-dev [--corpus FILE] [--weights FILE] [--misjudged]

`--quick` leaves out several small sources at a time: 17 trainings of each model instead of 40. `--shipped`
leaves out the models that are there for comparison. `natural-dev` asks finished weights about the prompts of
`natural_dev.jsonl`, which no training reads: a part that was looked at while prompts for training were
written (`development`) and one written afterwards (`check`). See README.md.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import quantiles

import numpy as np
from numpy.typing import NDArray

import task_types_prompts as own
from k9_broker.classify import text, weights
from k9_broker.requests import TaskType
from task_types import CORPUS, LABELS, OUT, Row, corpus, label_numbers, readings_of, train
from task_types_network import Floats, Settings

NATURAL_DEV = Path(__file__).parent / "natural_dev.jsonl"
FOLDS = 5
SMALL = 1500
PARTS = 3
"""`--quick`: sources with fewer rows are left out in so many parts."""

Numbers = NDArray[np.int64]
Predict = Callable[[list[int], list[int]], Floats]


def f1(wanted: Numbers, found: Numbers) -> dict[str, float]:
    """F1 of every label that occurs in `wanted`."""
    scores = {}
    for number, label in enumerate(LABELS):
        here = wanted == number
        if here.any():
            hits = np.sum(here & (found == number))
            scores[label] = float(2 * hits / (here.sum() + np.sum(found == number)))
    return scores


def macro(scores: dict[str, float]) -> float:
    return sum(scores.values()) / len(scores)


def left_out(rows: Sequence[Row], quick: bool) -> Iterator[list[int]]:
    """Row numbers of each source in turn."""
    groups: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        groups.setdefault(row["group"], []).append(number)
    small: list[list[int]] = [[] for _ in range(PARTS)]
    for numbers in groups.values():
        if quick and len(numbers) < SMALL:
            min(small, key=len).extend(numbers)
        else:
            yield numbers
    yield from filter(None, small)


def natural_folds(rows: Sequence[Row]) -> Iterator[list[int]]:
    """The natural rows in five parts."""
    natural = np.array([number for number, row in enumerate(rows) if row["origin"] == "natural"])
    part_of = np.random.default_rng(0).integers(0, FOLDS, len(natural))
    for part in range(FOLDS):
        yield natural[part_of == part].tolist()


def out_of_fold(rows: Sequence[Row], folds: Iterator[list[int]], predict: Predict) -> tuple[Numbers, Floats]:
    """The rows that were held out once, and what models that had not seen them say of them."""
    held, sums = [], []
    for fold in folds:
        out = set(fold)
        sums.append(predict([number for number in range(len(rows)) if number not in out], fold))
        held += fold
    return np.array(held), np.concatenate(sums)


def network(rows: Sequence[Row], with_own: bool, settings: Settings) -> Predict:
    readings = readings_of(rows)

    def predict(seen: list[int], unseen: list[int]) -> Floats:
        trained = train([rows[n] for n in seen], [readings[n] for n in seen], settings, with_own)
        return trained.sums([readings[n] for n in unseen])

    return predict


def word_counts(rows: Sequence[Row]) -> Predict:
    """A plain linear model over TF-IDF of words and pairs of words: the baseline."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import SGDClassifier
    from sklearn.pipeline import make_pipeline

    texts, labels = [row["text"][:2000] for row in rows], label_numbers(rows)

    def predict(seen: list[int], unseen: list[int]) -> Floats:
        model = make_pipeline(
            TfidfVectorizer(ngram_range=(1, 2), min_df=3, sublinear_tf=True),
            SGDClassifier(loss="log_loss", alpha=3e-6, class_weight="balanced", random_state=0, max_iter=20),
        )
        counts = [Settings().natural if rows[n]["origin"] == "natural" else 1.0 for n in seen]
        model.fit([texts[n] for n in seen], labels[seen], sgdclassifier__sample_weight=counts)
        sums = np.full((len(unseen), len(LABELS)), -99.0, dtype=np.float32)
        sums[:, model.classes_] = model.decision_function([texts[n] for n in unseen])
        return sums

    return predict


def show(name: str, wanted: Numbers, sums: Floats) -> None:
    found = sums.argmax(1)
    scores = f1(wanted, found)
    worst = min(scores, key=scores.__getitem__)
    print(
        f"\n{name}: {len(wanted):,} texts, macro-F1 {macro(scores):.3f}, accuracy "
        f"{np.mean(wanted == found):.3f}, worst {worst} {scores[worst]:.3f}"
    )
    for label, score in scores.items():
        print(f"  {label:28s}{score:6.3f}  ({int(np.sum(wanted == LABELS.index(label))):,})")


def best_temperature(wanted: Numbers, sums: Floats) -> float:
    """The temperature under which the right labels are most likely."""

    def surprise(temperature: float) -> float:
        powers = sums / temperature
        powers = powers - powers.max(1, keepdims=True)
        return float(np.mean(np.log(np.exp(powers).sum(1)) - powers[np.arange(len(wanted)), wanted]))

    return min((step / 20 for step in range(8, 80)), key=surprise)


def show_calibration(wanted: Numbers, sums: Floats, temperature: float) -> None:
    powers = np.exp((sums - sums.max(1, keepdims=True)) / temperature)
    chances = powers / powers.sum(1, keepdims=True)
    best, right = chances.max(1), chances.argmax(1) == wanted
    print(f"\nconfidence at temperature {temperature} (all sources left out in turn)\n  said   right   texts")
    edges = (0, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.97, 1.01)
    for low, high in pairwise(edges):
        inside = (best >= low) & (best < high)
        if inside.any():
            print(f"  {best[inside].mean():.2f}   {right[inside].mean():.2f}   {inside.sum():,}")


def show_speed(rows: Sequence[Row]) -> None:
    """One call over real rows: the fastest of several for each text, so that other load counts less."""
    texts = [row["text"] for row in rows if row["origin"] == "natural"]
    texts += [row["text"] for row in rows[:: max(len(rows) // 2000, 1)]]
    text.shipped()
    fastest = [1.0] * len(texts)
    for _ in range(15):
        for number, prompt in enumerate(texts):
            began = time.perf_counter()
            text.recognise_text(prompt)
            fastest[number] = min(fastest[number], time.perf_counter() - began)
    cuts = quantiles(fastest, n=100)
    print(
        f"\none call, {len(texts):,} texts, fastest of 15: p50 {cuts[49] * 1e3:.3f} ms, "
        f"p99 {cuts[98] * 1e3:.3f} ms, most {max(fastest) * 1e3:.3f} ms"
    )
    script = (
        "import time; a = time.perf_counter(); from k9_broker import classify; classify.task_type('x'); "
        "print(time.perf_counter() - a)"
    )
    times = [
        float(subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout)
        for _ in range(5)
    ]
    print(f"import, load and first call in a fresh process, fastest of 5: {min(times):.3f} s")


def task_types(path: Path, quick: bool, shipped: bool) -> None:
    rows = corpus(path)
    wanted, settings = label_numbers(rows), Settings()
    models = {"network (shipped)": network(rows, True, settings)}
    if not shipped:
        guess = np.zeros((len(rows), len(LABELS)), dtype=np.float32)
        guess[:, np.bincount(wanted).argmax()] = 1
        show("always the commonest label", wanted, guess)
        models = {
            "words and pairs, TF-IDF, linear": word_counts(rows),
            "network without our own prompts": network(rows, False, settings),
            **models,
        }
    for name, predict in models.items():
        held, sums = out_of_fold(rows, left_out(rows, quick), predict)
        show(f"{name}, every source left out in turn", wanted[held], sums)
        fold_held, fold_sums = out_of_fold(rows, natural_folds(rows), predict)
        show(f"{name}, natural rows in five folds", wanted[fold_held], fold_sums)
    show_calibration(wanted[held], sums, best_temperature(wanted[held], sums))
    show_speed(rows)
    size = (Path(text.__file__).parent / text.FILE).stat().st_size
    print(f"weights: {size:,} bytes")


def plain_words(prompt: str) -> str:
    return " ".join(re.findall(r"\w+", prompt.lower()))


def natural_dev(path: Path, given: Path, misjudged: bool) -> None:
    rows, seen = corpus(NATURAL_DEV), corpus(path)
    seen += own.prompts(seen, Settings().seed)
    known = {plain_words(row["text"]) for row in seen}
    if copied := [row["text"] for row in rows if plain_words(row["text"]) in known]:
        sys.exit(f"Training has read some of {NATURAL_DEV.name}: change them there. {copied}")
    recogniser = text.network(weights.load(given.read_bytes()))
    chances = [recogniser.probabilities(row["text"]) for row in rows]
    sums = np.array([[chance[TaskType(label)] for label in LABELS] for chance in chances], dtype=np.float32)
    wanted = label_numbers(rows)
    for part in ("development", "check"):
        here = np.array([row["part"] == part for row in rows])
        show(f"natural prompts, {part}", wanted[here], sums[here])
    found = [LABELS[number] for number in sums.argmax(1)]
    mistakes = Counter(
        (row["task_type"], label) for row, label in zip(rows, found, strict=True) if row["task_type"] != label
    )
    print("\nmistaken, both parts")
    for (right, label), count in mistakes.most_common():
        print(f"  {count}  {right} for {label}")
    for row, label in zip(rows, found, strict=True):
        if misjudged and row["part"] == "development" and row["task_type"] != label:
            print(f"\n{row['task_type']} for {label}: {row['text'][:300]}")


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = options.add_subparsers(required=True)
    kind = kinds.add_parser("task-types")
    kind.add_argument("--corpus", type=Path, default=CORPUS)
    kind.add_argument("--quick", action="store_true")
    kind.add_argument("--shipped", action="store_true")
    kind.set_defaults(run=lambda given: task_types(given.corpus, given.quick, given.shipped))
    kind = kinds.add_parser("natural-dev")
    kind.add_argument("--corpus", type=Path, default=CORPUS)
    kind.add_argument("--weights", type=Path, default=OUT)
    kind.add_argument("--misjudged", action="store_true")
    kind.set_defaults(run=lambda given: natural_dev(given.corpus, given.weights, given.misjudged))
    given = options.parse_args()
    given.run(given)


if __name__ == "__main__":
    main()
