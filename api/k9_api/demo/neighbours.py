"""Nearest neighbours over what `k9 embed` wrote."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Match:
    """A text near a question; `score` is the cosine of the angle between them."""

    score: float
    id: str
    text: str


class Texts:
    """Embedded texts: row k of the matrix belongs to the k-th id."""

    def __init__(self, matrix: Path, texts: Path) -> None:
        """`matrix`: the `.npy` file, with `.ids.jsonl` beside it; `texts`: the JSONL that was embedded."""
        rows: NDArray[np.float32] = np.load(matrix, mmap_mode="r")
        self._rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        self._ids = [line["id"] for line in _lines(matrix.with_name(matrix.name + ".ids.jsonl"))]
        self._texts = {line["id"]: line["text"] for line in _lines(texts)}

    def nearest(self, question: list[float], count: int) -> list[Match]:
        vector = np.asarray(question, np.float32)
        scores = self._rows @ (vector / np.linalg.norm(vector))
        best = np.argsort(-scores)[:count]
        return [Match(float(scores[k]), self._ids[k], self._texts[self._ids[k]]) for k in best]


def _lines(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]
