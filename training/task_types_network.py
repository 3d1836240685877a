"""The small network behind task recognition: how it is fitted and made into bytes. NumPy and SciPy."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import scipy.sparse as sparse
from numpy.typing import NDArray

from k9_broker.classify.reading import (
    LEVELS,
    PLACE_BUCKETS,
    QUESTIONS,
    UNKNOWN,
    Reading,
    Vocabulary,
    factors,
    place,
)
from k9_broker.classify.weights import ZERO, Weights

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Settings:
    """Chosen by leave-one-source-out and the five folds over natural rows (`evaluate.py`)."""

    words: int = 6500
    pairs: int = 14000
    hidden: int = 32
    epochs: int = 4
    rate: float = 0.004
    row_dropout: float = 0.3
    hidden_dropout: float = 0.3
    smoothing: float = 0.05
    decay: float = 1e-5
    natural: float = 4.0
    """Weight of a natural row beside another of its group."""
    own: float = 4.0
    """Weight of one of our own prompts beside the mean row of the corpus."""
    group_power: float = 0.5
    """The weight of a group's rows of one label grows with this power of their number."""
    least_rows: int = 3
    """A table row that fewer texts use stays zero."""
    seed: int = 0


def vocabulary(
    readings: Sequence[Reading], groups: Sequence[str], shared: Mapping[str, str], most: int
) -> tuple[Vocabulary, int]:
    """Words that several sources use, and how many numbers they have. `shared` words take another's."""
    sources, count = defaultdict(set), Counter[str]()
    for reading, group in zip(readings, groups, strict=True):
        for token in set(reading.tokens):
            if token not in shared:
                sources[token].add(group)
                count[token] += 1
    kept = [
        token
        for token in count
        if len(sources[token]) > 1 and count[token] > 3 and not (token.isdigit() and len(token) > 1)
    ]
    kept.sort(key=lambda token: (-min(len(sources[token]), 12) * np.log1p(count[token]), token))
    targets = sorted(set(shared.values()))
    numbers = dict.fromkeys([*UNKNOWN, *targets, *kept[: most - len(UNKNOWN) - len(targets)]])
    words = Vocabulary((token, number) for number, token in enumerate(numbers))
    width = len(words)
    for token, target in shared.items():
        words[token] = words[target]
    return words, width


def frequent_pairs(
    readings: Sequence[Reading], groups: Sequence[str], words: Vocabulary, width: int, most: int
) -> dict[int, int]:
    """Keys of the pairs of neighbours that several sources use, to their row numbers from 1."""
    sources, count = defaultdict(set), Counter[int]()
    for reading, group in zip(readings, groups, strict=True):
        numbers = [words[token] for token in reading.tokens]
        for key in {a * width + b for a, b in pairwise(numbers)}:
            count[key] += 1
            if len(sources[key]) < 8:
                sources[key].add(group)
    kept = [key for key in count if count[key] > 3 and len(sources[key]) > 1]
    kept.sort(key=lambda key: (-len(sources[key]) * np.log1p(count[key]), key))
    return {key: row for row, key in enumerate(kept[:most], 1)}


def matrix(
    readings: Sequence[Reading], words: Vocabulary, pairs: dict[int, int], width: int
) -> sparse.csr_matrix:
    """One line for each text: the factors at its row numbers in the whole table."""
    sizes = (*((width, len(pairs) + 1) * 3), QUESTIONS * LEVELS + PLACE_BUCKETS)
    starts = np.cumsum([0, *sizes])
    columns, values, ends = [], [], [0]
    for reading in readings:
        parts = place(reading, words, pairs, width)
        every, edge, fixed = factors(parts)
        for part, start, factor in zip(
            parts, starts, (every, every, edge, edge, edge, edge, fixed), strict=False
        ):
            columns.append(np.array(part, dtype=np.int32) + np.int32(start))
            values.append(np.full(len(part), factor, dtype=np.float32))
        ends.append(ends[-1] + sum(map(len, parts)))
    lines = sparse.csr_matrix(
        (np.concatenate(values), np.concatenate(columns), ends), shape=(len(readings), starts[-1])
    )
    # Row 0 of every pairs part stands for unknown pairs and stays zero.
    zero = np.ones(starts[-1], dtype=np.float32)
    zero[starts[[1, 3, 5]]] = 0
    lines.data *= zero[lines.indices]
    lines.sum_duplicates()
    lines.eliminate_zeros()
    return lines


def row_weights(rows: Sequence[Mapping[str, Any]], settings: Settings) -> Floats:
    """Large groups and large classes count less than their number; natural rows count more."""
    cells = Counter((row["group"], row["task_type"]) for row in rows if row["origin"] != "own")
    totals = Counter[str]()
    for (_, label), count in cells.items():
        totals[label] += count**settings.group_power
    weights = np.array(
        [
            0.0
            if row["origin"] == "own"
            else cells[row["group"], row["task_type"]] ** (settings.group_power - 1)
            / totals[row["task_type"]] ** 0.75
            for row in rows
        ]
    )
    corpus = weights > 0
    weights[corpus] = np.minimum(weights[corpus] / weights[corpus].mean(), 6.0)
    weights[np.array([row["origin"] == "natural" for row in rows])] *= settings.natural
    weights[corpus] /= weights[corpus].mean()
    weights[~corpus] = settings.own
    return (weights / weights.mean()).astype(np.float32)


@dataclass(frozen=True)
class Layers:
    table: Floats
    bias: Floats
    output: Floats
    output_bias: Floats

    def sums(self, lines: sparse.csr_matrix) -> Floats:
        """The last layer's sums, before they become probabilities."""
        return np.maximum(lines @ self.table + self.bias, 0) @ self.output + self.output_bias


def fit(
    lines: sparse.csr_matrix, labels: NDArray[np.int64], weights: Floats, count: int, settings: Settings
) -> Layers:
    """Adam over mini-batches, with table rows left out at random (`row_dropout`) and hidden units too."""
    random = np.random.default_rng(settings.seed)
    used = np.bincount(lines.indices, minlength=lines.shape[1]) >= settings.least_rows
    lines = lines.copy()
    lines.data *= used[lines.indices]
    lines.eliminate_zeros()
    texts, rows = lines.shape
    hidden = settings.hidden
    table = (random.standard_normal((rows, hidden)) * 0.1 * used[:, None]).astype(np.float32)
    small = [
        np.zeros(hidden, np.float32),
        (random.standard_normal((hidden, count)) / np.sqrt(hidden)).astype(np.float32),
        np.zeros(count, np.float32),
    ]
    bias, output, output_bias = small
    first, second = np.zeros_like(table), np.zeros_like(table)
    small_first, small_second = [np.zeros_like(x) for x in small], [np.zeros_like(x) for x in small]
    batch, step = 256, 0
    steps = settings.epochs * -(-texts // batch)
    for _ in range(settings.epochs):
        order = random.permutation(texts)
        for at in range(0, texts, batch):
            chosen = order[at : at + batch]
            part = lines[chosen]
            kept = random.random(part.nnz, dtype=np.float32) >= settings.row_dropout
            part.data = part.data * kept / (1 - settings.row_dropout)
            before = part @ table + bias
            mask = (random.random(before.shape, dtype=np.float32) >= settings.hidden_dropout) / np.float32(
                1 - settings.hidden_dropout
            )
            units = np.maximum(before, 0) * mask
            powers = units @ output + output_bias
            powers = np.exp(powers - powers.max(1, keepdims=True))
            wanted = np.full_like(powers, settings.smoothing / count)
            wanted[np.arange(len(chosen)), labels[chosen]] += 1 - settings.smoothing
            slope = (powers / powers.sum(1, keepdims=True) - wanted) * weights[chosen][:, None] / len(chosen)
            back = (slope @ output.T) * mask * (before > 0)
            step += 1
            rate = settings.rate * min(1, step / 50) * (1 - step / (steps + 1))
            # Only rows that this batch uses are moved.
            touched, place_of = np.unique(part.indices, return_inverse=True)
            narrow = sparse.csr_matrix((part.data, place_of, part.indptr), shape=(len(chosen), len(touched)))
            change = narrow.T @ back + settings.decay * table[touched]
            first[touched] = 0.9 * first[touched] + 0.1 * change
            second[touched] = 0.99 * second[touched] + 0.01 * change * change
            fair, fair_second = 1 - 0.9**step, 1 - 0.99**step
            table[touched] -= rate * (first[touched] / fair) / (np.sqrt(second[touched] / fair_second) + 1e-7)
            for value, change, one, two in zip(
                small, (back.sum(0), units.T @ slope, slope.sum(0)), small_first, small_second, strict=True
            ):
                one += 0.1 * (change - one)
                two += 0.01 * (change * change - two)
                value -= rate * (one / fair) / (np.sqrt(two / fair_second) + 1e-7)
    return Layers(table, bias, output, output_bias)


def to_bytes(
    layers: Layers,
    labels: Sequence[str],
    words: Vocabulary,
    pairs: dict[int, int],
    width: int,
    temperature: float,
) -> Weights:
    """The network with a byte for every weight of the table; each hidden unit has its own scale."""
    most = np.maximum(np.quantile(np.abs(layers.table), 0.9999, axis=0), 1e-6)
    scales = most / 127
    table = np.clip(np.rint(layers.table / scales), -127, 127) + ZERO

    def plain(values: Floats) -> tuple[float, ...]:
        return tuple(round(float(value), 6) for value in values)

    return Weights(
        labels=tuple(labels),
        words=words,
        pairs=pairs,
        width=width,
        table=table.astype(np.uint8).tobytes(),
        scales=tuple(float(scale) for scale in scales),
        bias=plain(layers.bias),
        output=tuple(plain(row) for row in layers.output.T),
        output_bias=plain(layers.output_bias),
        temperature=round(temperature, 4),
    )
