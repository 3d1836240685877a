"""The forward pass of all-MiniLM-L6-v2 in NumPy.

The texts of a batch lie one after the other in one matrix, without padding: every dense layer is
one large product over real tokens, and only attention looks at one length at a time.

Source of the model: "BERT" (Devlin et al., 2018), post-norm layers with exact GELU; sentence
vectors by mean pooling and L2 normalisation (Reimers and Gurevych, 2019).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final

import numpy as np

from k9_broker.minilm import DIMENSIONS
from k9_broker.minilm.weights import EPSILON, HEADS, Array, Dense, Layer, Norm, Weights
from k9_broker.minilm.wordpiece import MAX_TOKENS

HEAD_SIZE: Final = DIMENSIONS // HEADS

SCORES_AT_ONCE: Final = 2**18
"""Attention scores worked on at once: 1 MiB of float32, so that softmax stays in the cache."""

GELU_AT_ONCE: Final = 2**15
"""Numbers worked on at once, for the same reason."""

SAFE_EXPONENT: Final = 80
"""The sum of 256 exponentials of at most this is a float32; one of at least minus this is not zero."""

_ERF_SCALE: Final = np.float32(0.3275911 / np.sqrt(2))
_ERF_FACTORS: Final = [
    np.float32(factor / 2) for factor in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)
]


class NumpyRunner:
    """Token ids in, unit vectors out. Holds no state between calls."""

    name: Final = "numpy"
    padded: Final = False
    tokens_at_once: Final = 512

    def __init__(self, weights: Weights) -> None:
        self._weights = weights

    def run(self, rows: Sequence[Sequence[int]]) -> Array:
        """(n, 384) unit vectors of `n` token lists, which are best sorted by length."""
        lengths = np.array([len(row) for row in rows])
        starts = np.cumsum(lengths) - lengths
        ids = np.concatenate([np.asarray(row) for row in rows])
        positions = np.arange(len(ids)) - np.repeat(starts, lengths)
        x = self._weights.words[ids]
        x += self._weights.positions[positions]
        _normalize(x, self._weights.norm)
        spans = list(_equal_spans(lengths.tolist()))
        for layer in self._weights.layers:
            _apply(layer, x, spans)
        pooled: Array = np.add.reduceat(x, starts, axis=0)
        pooled /= lengths[:, None].astype(np.float32)
        pooled /= np.linalg.norm(pooled, axis=1, keepdims=True)
        return pooled


def _equal_spans(lengths: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """(first token, texts, tokens of each) of neighbours of one length, within `SCORES_AT_ONCE`."""
    start = 0
    for length, group in groupby(lengths):
        left = sum(1 for _ in group)
        at_once = max(1, SCORES_AT_ONCE // (HEADS * length * length))
        while left:
            texts = min(left, at_once)
            yield start, texts, length
            start += texts * length
            left -= texts


def _apply(layer: Layer, x: Array, spans: Sequence[tuple[int, int, int]]) -> None:
    """One layer over all tokens (t, 384), in place."""
    x += _dense(_attention(_dense(x, layer.query_key_value), spans), layer.attention_output)
    _normalize(x, layer.attention_norm)
    inner = _dense(x, layer.inner)
    gelu(inner)
    x += _dense(inner, layer.output)
    _normalize(x, layer.output_norm)


def _dense(x: Array, dense: Dense) -> Array:
    y: Array = np.matmul(x, dense.weight)
    y += dense.bias
    return y


def _attention(query_key_value: Array, spans: Sequence[tuple[int, int, int]]) -> Array:
    """softmax(q kᵀ) v for each text and head: (t, 3 × 384) to (t, 384). `q` is already scaled."""
    context = np.empty((len(query_key_value), DIMENSIONS), np.float32)
    ones = np.ones((MAX_TOKENS, 1), np.float32)
    for start, texts, length in spans:
        rows = slice(start, start + texts * length)
        q, k, v = query_key_value[rows].reshape(texts, length, 3, HEADS, HEAD_SIZE).transpose(2, 0, 3, 1, 4)
        scores = np.matmul(q, k.swapaxes(-1, -2))
        # Softmax subtracts a row's maximum only lest exp overflow; finding it costs as much as exp.
        if scores.max() > SAFE_EXPONENT or scores.min() < -SAFE_EXPONENT:
            scores -= scores.max(axis=-1, keepdims=True)
        np.exp(scores, out=scores)
        # Dividing the small product instead of the large scores gives the same numbers, and a
        # product with ones is the fastest sum.
        mixed = np.matmul(scores, v)
        mixed /= np.matmul(scores, ones[:length])
        context[rows].reshape(texts, length, HEADS, HEAD_SIZE)[:] = mixed.swapaxes(1, 2)
    return context


def _normalize(x: Array, norm: Norm) -> None:
    """Layer normalisation of each row, in place."""
    x -= x.mean(axis=-1, keepdims=True)
    variance = np.einsum("ti,ti->t", x, x)[:, None] / np.float32(x.shape[-1])
    x *= np.float32(1) / np.sqrt(variance + np.float32(EPSILON))
    x *= norm.scale
    x += norm.shift


def gelu(x: Array) -> None:
    """Exact GELU, `x Φ(x)`, in place on a contiguous array; the error is below 5e-7.

    Written as `max(x, 0) − |x| erfc(|x| / √2) / 2`, with erfc by formula 7.1.26 of Abramowitz and
    Stegun, "Handbook of Mathematical Functions".
    """
    flat = x.reshape(-1)
    scratch = np.empty((3, GELU_AT_ONCE), np.float32)
    for start in range(0, flat.size, GELU_AT_ONCE):
        part = flat[start : start + GELU_AT_ONCE]
        size, t, tail = scratch[:, : part.size]
        np.abs(part, out=size)
        np.multiply(size, _ERF_SCALE, out=t)
        t += np.float32(1)
        np.reciprocal(t, out=t)
        np.multiply(t, _ERF_FACTORS[0], out=tail)
        for factor in _ERF_FACTORS[1:]:
            tail += factor
            tail *= t
        tail *= size
        np.multiply(part, part, out=t)
        t *= np.float32(-0.5)
        np.exp(t, out=t)
        tail *= t
        np.maximum(part, np.float32(0), out=part)
        part -= tail
