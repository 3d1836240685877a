"""Makes the weights of task recognition from the task-type corpus and our own prompts.

    python training/task_types.py [CORPUS] [--out FILE]

About two minutes on one core. The same corpus, seed and library versions give the same file.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import task_types_prompts as own
from k9_broker.classify import text, weights
from k9_broker.classify.reading import Reading, Vocabulary, read, unspaced
from k9_broker.requests import TaskType
from task_types_network import (
    Floats,
    Layers,
    Settings,
    fit,
    frequent_pairs,
    matrix,
    row_weights,
    to_bytes,
    vocabulary,
)

ROOT = Path(__file__).parents[1]
CORPUS = ROOT.parent / "shared/data/task-types/train.jsonl"
OUT = ROOT / "broker/k9_broker/classify" / text.FILE
LABELS = tuple(kind.value for kind in TaskType if kind is not TaskType.EMBEDDINGS)
TEMPERATURE = 0.7
"""Fitted by `evaluate.py task-types` on sources the network had not seen."""

Row = dict[str, Any]


def corpus(path: Path) -> list[Row]:
    with path.open() as lines:
        return [json.loads(line) for line in lines]


def readings_of(rows: Sequence[Row]) -> list[Reading]:
    phrases = frozenset(filter(unspaced, own.lexicon()))
    return [read(row["text"], phrases) for row in rows]


def label_numbers(rows: Sequence[Row]) -> NDArray[np.int64]:
    return np.array([LABELS.index(row["task_type"]) for row in rows], dtype=np.int64)


class Trained(NamedTuple):
    layers: Layers
    words: Vocabulary
    pairs: dict[int, int]
    width: int

    def sums(self, readings: Sequence[Reading]) -> Floats:
        return self.layers.sums(matrix(readings, self.words, self.pairs, self.width))


def train(
    rows: Sequence[Row], readings: Sequence[Reading], settings: Settings, with_own: bool = True
) -> Trained:
    """Train on `rows` (already read) and, unless told otherwise, on our own prompts made from them."""
    shared = own.lexicon()
    made: list[Row] = list(own.prompts(rows, settings.seed)) if with_own else []
    rows, readings = [*rows, *made], [*readings, *readings_of(made)]
    groups = [row["group"] for row in rows]
    words, width = vocabulary(readings, groups, shared, settings.words)
    pairs = frequent_pairs(readings, groups, words, width, settings.pairs)
    lines = matrix(readings, words, pairs, width)
    layers = fit(lines, label_numbers(rows), row_weights(rows, settings), len(LABELS), settings)
    return Trained(layers, words, pairs, width)


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("corpus", type=Path, nargs="?", default=CORPUS)
    options.add_argument("--out", type=Path, default=OUT)
    given = options.parse_args()
    rows = corpus(given.corpus)
    trained = train(rows, readings_of(rows), Settings())
    made = to_bytes(trained.layers, LABELS, trained.words, trained.pairs, trained.width, TEMPERATURE)
    raw = weights.dump(made)
    given.out.write_bytes(raw)
    print(f"{given.out}: {len(raw):,} bytes, {trained.width:,} words, {len(trained.pairs):,} pairs")


if __name__ == "__main__":
    main()
