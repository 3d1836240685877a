"""The model: tokenizer and runner joined.

A call is an `Encoding` that is worked on batch by batch, so that whoever drives it may stop
between two batches or let another call go first.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal, Protocol

import numpy as np

from k9_broker import minilm
from k9_broker.minilm import onnx_runner
from k9_broker.minilm.numpy_runner import NumpyRunner
from k9_broker.minilm.weights import VOCABULARY, VOCABULARY_FILE, Array, load_weights
from k9_broker.minilm.wordpiece import WordPiece
from k9_broker.results import Vectors

RunnerName = Literal["auto", "numpy", "onnx"]


class Runner(Protocol):
    """A forward pass."""

    @property
    def name(self) -> str:
        """`numpy` or `onnx`."""
        ...

    @property
    def padded(self) -> bool:
        """Whether a batch costs as much as if all its texts were as long as the longest."""
        ...

    @property
    def tokens_at_once(self) -> int:
        """The size of a batch, in tokens, beyond which it gets no faster."""
        ...

    def run(self, rows: Sequence[Sequence[int]]) -> Array:
        """(n, 384) unit vectors of `n` token lists."""
        ...


def plan(lengths: Sequence[int], tokens: int, *, padded: bool) -> list[list[int]]:
    """Indices of `lengths` in batches, shortest first, each of at most `tokens` tokens.

    A text longer than that is a batch of its own. Neighbours in length share a batch, so that
    little is lost to padding where the runner pads.
    """
    batches: list[list[int]] = []
    used = 0
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        length = lengths[index]
        cost = (len(batches[-1]) + 1) * length if padded and batches else used + length
        if not batches or cost > tokens:
            batches.append([])
            cost = length
        batches[-1].append(index)
        used = cost
    return batches


class Encoding:
    """Texts on their way to vectors. Several threads may step at once: each takes a batch."""

    def __init__(self, rows: Sequence[Sequence[int]], runner: Runner) -> None:
        lengths = [len(row) for row in rows]
        self._rows, self._runner = rows, runner
        self._left = plan(lengths, runner.tokens_at_once, padded=runner.padded)[::-1]
        self._vectors = np.zeros((len(rows), minilm.DIMENSIONS), "<f4")
        self.tokens = sum(lengths)
        """Tokens of all texts after truncation, the markers at both ends of each included."""

    def step(self) -> bool:
        """Work on the next batch, for some tens to hundreds of milliseconds; `False` when none was left."""
        try:
            batch = self._left.pop()
        except IndexError:
            return False
        self._vectors[batch] = self._runner.run([self._rows[index] for index in batch])
        return True

    @property
    def vectors(self) -> Vectors:
        """One unit vector for each text, in the order given; zeros where no batch was worked on yet."""
        return Vectors(self._vectors.tobytes(), minilm.DIMENSIONS)


class MiniLM:
    """all-MiniLM-L6-v2. Texts of more than 256 tokens are cut there, as the reference does."""

    MODEL_NAME: ClassVar[str] = minilm.MODEL_NAME

    def __init__(self, tokenizer: WordPiece, runner: Runner) -> None:
        self._tokenizer, self._runner = tokenizer, runner

    @classmethod
    def load(cls, folder: Path, runner: RunnerName = "auto") -> MiniLM:
        """The model in `folder`: about 0.1 s with NumPy, 0.3 s with ONNX.

        `auto` is ONNX where it is installed, else NumPy: the same numbers, a single text in half the
        time and batches at least as fast (`benchmarks/embedding_runners.py`). Raises
        `ConfigurationError` when a file is missing, cut short or not this model's, or when `onnx`
        is asked for and not installed.
        """
        weights = load_weights(folder)
        tokenizer = WordPiece.load(folder / VOCABULARY_FILE, VOCABULARY)
        use_onnx = runner == "onnx" or (runner == "auto" and onnx_runner.installed())
        return cls(tokenizer, onnx_runner.OnnxRunner(weights) if use_onnx else NumpyRunner(weights))

    @property
    def runner(self) -> str:
        """Which runner was chosen."""
        return self._runner.name

    def begin(self, texts: Sequence[str]) -> Encoding:
        """Split the texts into tokens and plan the batches; the caller does the steps."""
        return Encoding([self._tokenizer.encode(text) for text in texts], self._runner)

    def encode(self, texts: Sequence[str]) -> tuple[Vectors, int]:
        """Unit vectors of `texts`, in their order, and the tokens they took."""
        encoding = self.begin(texts)
        while encoding.step():
            pass
        return encoding.vectors, encoding.tokens
