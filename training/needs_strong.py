"""Trains the `needs_strong` score and writes `broker/k9_broker/classify/strong.json`.

    python training/needs_strong.py [--data FOLDER] [--prompts FILE] [--without SUBJECT ...]
                                    [--out FILE | --evaluate]

Needs numpy, scipy and scikit-learn; the same seed and data give the same file. See NEEDS_STRONG.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.sparse import csr_matrix, hstack
from sklearn.linear_model import Ridge

from k9_broker.classify.strong import UNIT, read
from needs_strong_rows import CUES, Row, calibration, graded, lines, panel

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "../shared/data/needs-strong"
PROMPTS = ROOT / "../shared/data/task-types/train.jsonl"
SEED = 3

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Recipe:
    """How one linear model is fitted. Chosen by cross-validation on the calibration rows."""

    alpha: float
    """Strength of the ridge."""
    rare: float
    """Power of the inverse document frequency that scales a key."""
    least: int
    """Rows a key must occur in."""
    shape: float = 0.0
    """Scale of the shape beside the words: 0 leaves it out."""
    keep: int = 10_000
    """Keys kept: those that move scores most."""


CHOICE = Recipe(alpha=3.0, rare=2.0, least=2, keep=11_000)
PANEL = Recipe(alpha=3.0, rare=0.5, least=3, keep=12_000)
PANEL_SHARE = 0.2
OPEN = Recipe(alpha=1.5, rare=1.2, least=3, shape=0.3, keep=11_000)
PAIR_WEIGHT = 3.0
"""Weight of the pair's outcomes on word problems among the graded prompts."""


def cue_keys() -> tuple[frozenset[str], ...]:
    """The cue words as the reader sees them: a stem, or the pair when a cue has two tokens."""
    found = []
    for words in CUES:
        seen = [read(word, ()).keys for word in words]
        found.append(
            frozenset(max(keys, key=lambda key: (" " in key, key)) for keys in seen if len(keys) < 4)
        )
    return tuple(found)


class Corpus:
    """Rows to learn from, each read once: `words` (rows by keys, sparse), `shape`, `target`, `weight`."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = list(rows)
        self.cues = cue_keys()
        readings = [read(row.text, self.cues) for row in rows]
        self.keys = sorted(set().union(*(reading.keys for reading in readings)))
        place = {key: i for i, key in enumerate(self.keys)}
        columns = [sorted(place[key] for key in reading.keys) for reading in readings]
        starts = np.cumsum([0, *map(len, columns)])
        values = np.concatenate([np.full(len(c), 1 / np.sqrt(len(c) + 1)) for c in columns])
        self.words = csr_matrix((values, np.concatenate(columns), starts), (len(readings), len(place)))
        self.shape = np.array([reading.shape for reading in readings])
        self.choice = np.array([reading.choice for reading in readings])
        self.target = np.array([row.target for row in rows])
        self.weight = np.array([row.weight for row in rows])
        self.source = np.array([row.source for row in rows])


@dataclass(frozen=True)
class Linear:
    """A linear model over a corpus's keys and the shape, and the curve after it."""

    words: Floats
    shape: Floats
    bias: float
    slope: float = 1.0
    offset: float = 0.0

    def total(self, corpus: Corpus, rows: Rows) -> Floats:
        """The sum of each row, before the curve."""
        return np.asarray(corpus.words[rows] @ self.words + corpus.shape[rows] @ self.shape + self.bias)

    def score(self, corpus: Corpus, rows: Rows) -> Floats:
        """The score of each row."""
        return np.asarray(
            1 / (1 + np.exp(-np.clip(self.slope * self.total(corpus, rows) + self.offset, -30, 30)))
        )


def fit(corpus: Corpus, rows: Rows, recipe: Recipe) -> Linear:
    """Ridge regression of the target on words and shape."""
    words = corpus.words[rows]
    counts = np.asarray((words > 0).sum(axis=0)).ravel()
    known = np.flatnonzero(counts >= recipe.least)
    rarity = (np.log(len(rows) / counts[known]) + 1.0) ** recipe.rare
    rarity *= 1.6 / rarity.mean()
    inputs = words[:, known].multiply(rarity).tocsr()
    spread = recipe.shape / (corpus.shape[rows].std(axis=0) + 1e-9)
    if recipe.shape:
        inputs = hstack([inputs, csr_matrix(corpus.shape[rows] * spread)]).tocsr()
    ridge = Ridge(alpha=recipe.alpha, solver="sparse_cg", tol=1e-5, random_state=SEED)
    ridge.fit(inputs, corpus.target[rows], sample_weight=corpus.weight[rows])
    learned = ridge.coef_[: len(known)] * rarity
    force = np.abs(learned) * np.sqrt(counts[known])
    if len(force) > recipe.keep:
        learned[force < np.sort(force)[-recipe.keep]] = 0.0
    full = np.zeros(len(corpus.keys))
    full[known] = learned
    shape = ridge.coef_[len(known) :] * spread if recipe.shape else np.zeros(corpus.shape.shape[1])
    return Linear(full, shape, float(ridge.intercept_))


def blend(first: Linear, second: Linear, share: float) -> Linear:
    """The sum of two linear models, key by key."""
    return Linear(
        first.words + share * second.words,
        first.shape + share * second.shape,
        first.bias + share * second.bias,
    )


def platt(sums: Floats, targets: Floats, weights: Floats) -> tuple[float, float]:
    """Slope and offset of the logistic curve through soft targets: least cross entropy (Platt 1999)."""

    def loss(pair: Floats) -> float:
        z = pair[0] * sums + pair[1]
        return float((weights * (np.logaddexp(0.0, z) - targets * z)).sum() / weights.sum())

    slope, offset = minimize(loss, np.array([4.0, -2.0]), method="Nelder-Mead", options={"maxiter": 4000}).x
    return float(max(slope, 0.05)), float(offset)


def parts(corpus: Corpus, rows: Rows, pieces: int, seed: int) -> list[Rows]:
    """A random split of `rows` into `pieces` with the same share of each source and target.

    Without equal shares a part rich in gains leaves a poor rest to learn from, so its rows get lower scores
    than those of other parts: held-out scores would then look worse than they are.
    """
    shuffled = np.random.default_rng(seed).permutation(rows)
    order = np.lexsort((corpus.target[shuffled], corpus.source[shuffled]))
    return [shuffled[order[piece::pieces]] for piece in range(pieces)]


def expert(
    corpus: Corpus, rows: Rows, recipe: Recipe, prior: Linear | None, goal: Floats, folds: int
) -> Linear:
    """The fitted model plus a share of `prior`, with the curve that fits its sums on rows it had not seen."""

    def made(inside: Rows) -> Linear:
        model = fit(corpus, inside, recipe)
        return blend(model, prior, PANEL_SHARE) if prior else model

    held = parts(corpus, rows, folds, SEED)
    sums = np.concatenate([made(np.setdiff1d(rows, part)).total(corpus, part) for part in held])
    order = np.concatenate(held)
    slope, offset = platt(sums, goal[order], corpus.weight[order])
    return replace(made(rows), slope=slope, offset=offset)


@dataclass(frozen=True)
class Router:
    """Both models; each prompt goes to the one made for its kind."""

    choice: Linear
    open: Linear

    def score(self, corpus: Corpus, rows: Rows) -> Floats:
        """The score of each row."""
        lettered, free = self.choice.score(corpus, rows), self.open.score(corpus, rows)
        return np.where(corpus.choice[rows], lettered, free)


def corpus_of(data: Path, prompts: Path, without: Sequence[str] = ()) -> Corpus:
    """All rows: the pair's outcomes (sources `mmlu`, `gsm8k`), the panel's questions, the graded prompts.

    Outcomes of the subjects named in `without` are left out.
    """
    pair = []
    for row in calibration(data):
        if row["domain"] in without:
            continue
        gain = float(row["strong_score"] - row["weak_score"])
        weight = 1.0 if row["benchmark"] == "mmlu" else PAIR_WEIGHT
        pair.append(Row(row["text"], gain, weight, row["benchmark"], row["domain"] or ""))
    return Corpus([*pair, *panel(data), *graded(lines(prompts), SEED)])


def panel_model(corpus: Corpus) -> Linear:
    """What makes small models fail at lettered questions; from no question of the calibration rows."""
    return fit(corpus, np.flatnonzero(corpus.source == "panel"), PANEL)


def train(corpus: Corpus, pair: Rows, ordinary: Rows, prior: Linear) -> Router:
    """Both models: `pair` are outcome rows, `ordinary` the graded prompts."""
    lettered, free = pair[corpus.choice[pair]], pair[~corpus.choice[pair]]
    needs = (corpus.target > 0).astype(float)
    goal = np.clip(corpus.target, 0.0, 1.0)
    return Router(
        expert(corpus, lettered, CHOICE, prior, needs, 10),
        expert(corpus, np.concatenate([free, ordinary]), OPEN, None, goal, 4),
    )


def outcome_rows(corpus: Corpus) -> Rows:
    """The calibration rows of the pair."""
    return np.flatnonzero(np.isin(corpus.source, ("mmlu", "gsm8k")))


def graded_rows(corpus: Corpus) -> Rows:
    """The graded prompts."""
    return np.flatnonzero(~np.isin(corpus.source, ("mmlu", "gsm8k", "panel")))


def save(router: Router, corpus: Corpus, path: Path) -> None:
    """The weights as JSON, keys sorted so that the same training gives the same file."""
    experts = {}
    for name, model in (("choice", router.choice), ("open", router.open)):
        whole = np.rint(model.words * UNIT).astype(int)
        experts[name] = {
            "words": {corpus.keys[i]: int(whole[i]) for i in np.flatnonzero(whole)},
            "shape": [int(weight) for weight in np.rint(model.shape * UNIT)],
            "bias": round(model.bias, 6),
            "slope": round(model.slope, 6),
            "offset": round(model.offset, 6),
        }
    table = {"cues": [sorted(cue) for cue in corpus.cues], "experts": experts}
    text = json.dumps(table, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    path.write_text(text + "\n", encoding="utf-8")


def main() -> None:
    """The command line."""
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--data", type=Path, default=DATA, help="folder of the outcome rows")
    ask.add_argument("--prompts", type=Path, default=PROMPTS, help="the graded prompts, JSON lines")
    ask.add_argument("--out", type=Path, default=ROOT / "broker/k9_broker/classify/strong.json")
    ask.add_argument("--evaluate", action="store_true", help="print the tables and write nothing")
    ask.add_argument("--without", nargs="*", default=[], metavar="SUBJECT", help="outcomes to leave out")
    given = ask.parse_args()
    corpus = corpus_of(given.data, given.prompts, given.without)
    if given.evaluate:
        from evaluate_needs_strong import report

        report(corpus)
        return
    router = train(corpus, outcome_rows(corpus), graded_rows(corpus), panel_model(corpus))
    save(router, corpus, given.out)


if __name__ == "__main__":
    main()
