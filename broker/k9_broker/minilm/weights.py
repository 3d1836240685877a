"""The weights of all-MiniLM-L6-v2, read from its safetensors file with NumPy alone.

Source of the format: huggingface/safetensors, README, "Format": eight bytes with the length of a
JSON head (little-endian), the head (name → dtype, shape, offsets), then the numbers. The file is
mapped into memory, so that the embedding table is shared by every process that reads it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from k9_broker.errors import ConfigurationError
from k9_broker.minilm import DIMENSIONS, GET_AGAIN

Array = NDArray[np.float32]

LAYERS: Final = 6
HEADS: Final = 12
INNER: Final = 1536
"""Width between the two halves of a layer's feed-forward part."""
VOCABULARY: Final = 30522
POSITIONS: Final = 512
EPSILON: Final = 1e-12
"""Added to a variance before its root is taken."""

WEIGHTS_FILE: Final = "model.safetensors"
VOCABULARY_FILE: Final = "vocab.txt"


@dataclass(frozen=True, slots=True)
class Norm:
    """A layer normalisation: `scale` and `shift`, each (384,)."""

    scale: Array
    shift: Array


@dataclass(frozen=True, slots=True)
class Dense:
    """`x @ weight + bias`: `weight` is (inputs, outputs) and contiguous, `bias` is (outputs,)."""

    weight: Array
    bias: Array


@dataclass(frozen=True, slots=True)
class Layer:
    """One transformer layer.

    `query_key_value` is the three projections side by side; the query's already carries the
    1 / √32 by which attention scores are scaled.
    """

    query_key_value: Dense
    attention_output: Dense
    attention_norm: Norm
    inner: Dense
    output: Dense
    output_norm: Norm


@dataclass(frozen=True, slots=True)
class Weights:
    """Everything the forward pass reads. `positions` has the token type's vector added in."""

    words: Array
    positions: Array
    norm: Norm
    layers: tuple[Layer, ...]


def load_weights(folder: Path) -> Weights:
    """The weights in `folder`. Raises `ConfigurationError` when the file is not this model's."""
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        raise ConfigurationError(
            f"There is no embedding model in {folder}. Get it with `k9 model fetch minilm`, "
            "or name its folder in K9_EMBED_MODEL."
        )
    tensors = _Tensors(path, read_safetensors(path))
    size = DIMENSIONS
    token_type = tensors.take("embeddings.token_type_embeddings.weight", 2, size)[0]
    return Weights(
        words=tensors.take("embeddings.word_embeddings.weight", VOCABULARY, size),
        positions=tensors.take("embeddings.position_embeddings.weight", POSITIONS, size) + token_type,
        norm=tensors.norm("embeddings.LayerNorm"),
        layers=tuple(_layer(tensors, f"encoder.layer.{number}") for number in range(LAYERS)),
    )


def _layer(tensors: _Tensors, name: str) -> Layer:
    size = DIMENSIONS
    parts = [tensors.dense(f"{name}.attention.self.{part}", size, size) for part in ("query", "key", "value")]
    scale = np.float32((size // HEADS) ** -0.5)
    parts[0] = Dense(parts[0].weight * scale, parts[0].bias * scale)
    return Layer(
        query_key_value=Dense(
            np.ascontiguousarray(np.concatenate([part.weight for part in parts], axis=1)),
            np.concatenate([part.bias for part in parts]),
        ),
        attention_output=tensors.dense(f"{name}.attention.output.dense", size, size),
        attention_norm=tensors.norm(f"{name}.attention.output.LayerNorm"),
        inner=tensors.dense(f"{name}.intermediate.dense", size, INNER),
        output=tensors.dense(f"{name}.output.dense", INNER, size),
        output_norm=tensors.norm(f"{name}.output.LayerNorm"),
    )


class _Tensors:
    """The named arrays of one file; taking one checks that it is there and has the right shape."""

    def __init__(self, path: Path, arrays: dict[str, Array]) -> None:
        self._path = path
        self._arrays = {name.removeprefix("bert."): array for name, array in arrays.items()}

    def take(self, name: str, *shape: int) -> Array:
        array = self._arrays.get(name)
        if array is None or array.shape != shape:
            found = "missing" if array is None else f"{array.shape}, not {shape}"
            raise ConfigurationError(f"{self._path} is not all-MiniLM-L6-v2: {name} is {found}. {GET_AGAIN}")
        return array

    def dense(self, name: str, inputs: int, outputs: int) -> Dense:
        weight = self.take(f"{name}.weight", outputs, inputs)
        # Copied the other way round once: small products are half as fast again on the transposed view.
        return Dense(np.ascontiguousarray(weight.T), np.array(self.take(f"{name}.bias", outputs)))

    def norm(self, name: str) -> Norm:
        scale, shift = (self.take(f"{name}.{part}", DIMENSIONS) for part in ("weight", "bias"))
        return Norm(np.array(scale), np.array(shift))


def read_safetensors(path: Path) -> dict[str, Array]:
    """The float32 arrays of a safetensors file by name, mapped read-only; other types are left out.

    Raises `ConfigurationError` when the file cannot be read, is cut short or is something else.
    """
    try:
        raw = np.memmap(path, dtype=np.uint8, mode="r")
    except (OSError, ValueError) as error:  # ValueError: NumPy does not map an empty file
        raise ConfigurationError(f"{path} cannot be read ({type(error).__name__}). {GET_AGAIN}") from None
    start = 8 + int.from_bytes(raw[:8].tobytes(), "little")
    if raw.size < 8 or start > raw.size:
        raise ConfigurationError(f"{path} is cut short or is not a safetensors file. {GET_AGAIN}")
    try:
        head: dict[str, Any] = json.loads(raw[8:start].tobytes())
        return {
            name: _array(raw[start:], entry)
            for name, entry in head.items()
            if name != "__metadata__" and entry["dtype"] == "F32"
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ConfigurationError(f"{path} is cut short or is not a safetensors file. {GET_AGAIN}") from None


def _array(data: NDArray[np.uint8], entry: dict[str, Any]) -> Array:
    first, last = entry["data_offsets"]
    shape = tuple(int(size) for size in entry["shape"])
    if not 0 <= first <= last <= data.size or last - first != 4 * prod(shape):
        raise ValueError("offsets outside the file")
    return np.asarray(data[first:last].view("<f4").reshape(shape))
