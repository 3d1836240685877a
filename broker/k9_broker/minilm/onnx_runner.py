"""The same forward pass as an ONNX graph, where `onnxruntime` and `onnx` are installed.

The graph is built in memory from the weights that the NumPy runner reads, so that there is one
model file and nothing to convert. The graph itself holds names and shapes only; the numbers are
handed to the session beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from k9_broker.errors import ConfigurationError
from k9_broker.minilm import DIMENSIONS
from k9_broker.minilm.weights import EPSILON, HEADS, Array, Dense, Layer, Norm, Weights

OPERATORS: Final = 20
"""Version of the ONNX operator set: the first with Gelu."""
FORMAT: Final = 10
"""Version of the ONNX file format that goes with it."""
MASKED: Final = 1e4
"""Taken from the score of a padding token: its share of attention is then exactly zero."""


def installed() -> bool:
    """Whether both packages can be imported; neither is imported to find out."""
    return all(find_spec(name) is not None for name in ("onnxruntime", "onnx"))


class OnnxRunner:
    """Token ids in, unit vectors out, on one core. Threads may share it: each runs its own batch."""

    name: Final = "onnx"
    padded: Final = True
    tokens_at_once: Final = 512

    def __init__(self, weights: Weights) -> None:
        """Raises `ConfigurationError` when the packages are missing."""
        if not installed():
            raise ConfigurationError("The onnx runner needs two packages: pip install 'k9-broker[onnx]'.")
        import onnxruntime

        graph = _Graph()
        options = onnxruntime.SessionOptions()
        # Two batches on one core each cost a sixth less than one batch on two cores, and a core that
        # is busy elsewhere holds up one of them, not both.
        options.intra_op_num_threads = 1
        model = graph.build(weights)
        self._constants = graph.constants  # the session reads some of them in place
        options.add_external_initializers(
            list(self._constants),
            [onnxruntime.OrtValue.ortvalue_from_numpy(v) for v in self._constants.values()],
        )
        self._session: Any = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def run(self, rows: Sequence[Sequence[int]]) -> Array:
        """(n, 384) unit vectors of `n` token lists, padded to the longest."""
        longest = max(map(len, rows))
        ids = np.zeros((len(rows), longest), np.int64)
        mask = np.zeros((len(rows), longest), np.float32)
        for number, row in enumerate(rows):
            ids[number, : len(row)] = row
            mask[number, : len(row)] = 1
        inputs = {"ids": ids, "positions": np.arange(longest), "mask": mask}
        vectors: Array = self._session.run(None, inputs)[0]
        return vectors


class _Graph:
    """Collects the nodes of the graph; each step returns the name of its output."""

    def __init__(self) -> None:
        import onnx

        self._onnx: Any = onnx
        self._nodes: list[Any] = []
        self._initializers: list[Any] = []
        self.constants: dict[str, Array] = {}

    def build(self, weights: Weights) -> bytes:
        """The model, without its numbers; those are in `constants` then."""
        words = self._op("Gather", self._weight(weights.words), "ids")
        x = self._op("Add", words, self._op("Gather", self._weight(weights.positions), "positions"))
        x = self._norm(x, weights.norm)
        hidden = self._op("Mul", self._op("Sub", "mask", self._number(1)), self._number(MASKED))
        hidden = self._op("Unsqueeze", hidden, self._integers(1, 2))
        for layer in weights.layers:
            x = self._layer(x, layer, hidden)
        real = self._op("Mul", x, self._op("Unsqueeze", "mask", self._integers(2)))
        mean = self._op(
            "Div",
            self._op("ReduceSum", real, self._integers(1), keepdims=0),
            self._op("ReduceSum", "mask", self._integers(1), keepdims=1),
        )
        square = self._op("ReduceSum", self._op("Mul", mean, mean), self._integers(1), keepdims=1)
        return self._model(self._op("Div", mean, self._op("Sqrt", square)))

    def _layer(self, x: str, layer: Layer, hidden: str) -> str:
        attended = self._dense(self._attention(x, layer.query_key_value, hidden), layer.attention_output)
        x = self._norm(self._op("Add", x, attended), layer.attention_norm)
        inner = self._op("Gelu", self._dense(x, layer.inner))
        return self._norm(self._op("Add", x, self._dense(inner, layer.output)), layer.output_norm)

    def _attention(self, x: str, query_key_value: Dense, hidden: str) -> str:
        weights = np.split(query_key_value.weight, 3, axis=1)
        biases = np.split(query_key_value.bias, 3)
        heads = self._integers(0, 0, HEADS, DIMENSIONS // HEADS)
        q, k, v = (
            self._op(
                "Transpose",
                self._op("Reshape", self._dense(x, Dense(weight, bias)), heads),
                perm=[0, 2, 3, 1] if part == "key" else [0, 2, 1, 3],
            )
            for part, weight, bias in zip(("query", "key", "value"), weights, biases, strict=True)
        )
        shares = self._op("Softmax", self._op("Add", self._op("MatMul", q, k), hidden), axis=-1)
        mixed = self._op("Transpose", self._op("MatMul", shares, v), perm=[0, 2, 1, 3])
        return self._op("Reshape", mixed, self._integers(0, 0, DIMENSIONS))

    def _dense(self, x: str, dense: Dense) -> str:
        return self._op("Add", self._op("MatMul", x, self._weight(dense.weight)), self._weight(dense.bias))

    def _norm(self, x: str, norm: Norm) -> str:
        scale, shift = self._weight(norm.scale), self._weight(norm.shift)
        return self._op("LayerNormalization", x, scale, shift, axis=-1, epsilon=EPSILON)

    def _op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        output = f"{kind}_{len(self._nodes)}"
        self._nodes.append(self._onnx.helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def _weight(self, array: Array) -> str:
        """A constant whose numbers stay outside the graph."""
        name = f"weight_{len(self.constants)}"
        self.constants[name] = np.ascontiguousarray(array)
        tensor = self._onnx.TensorProto(
            name=name,
            data_type=self._onnx.TensorProto.FLOAT,
            dims=array.shape,
            data_location=self._onnx.TensorProto.EXTERNAL,
        )
        place = tensor.external_data.add()
        place.key, place.value = "location", "memory"
        self._initializers.append(tensor)
        return name

    def _integers(self, *values: int) -> str:
        return self._inline(np.array(values, np.int64))

    def _number(self, value: float) -> str:
        return self._inline(np.array(value, np.float32))

    def _inline(self, array: NDArray[Any]) -> str:
        name = f"constant_{len(self._initializers)}"
        self._initializers.append(self._onnx.numpy_helper.from_array(array, name))
        return name

    def _model(self, output: str) -> bytes:
        helper, kinds = self._onnx.helper, self._onnx.TensorProto
        graph = helper.make_graph(
            self._nodes,
            "all-minilm-l6-v2",
            [
                helper.make_tensor_value_info("ids", kinds.INT64, ["texts", "tokens"]),
                helper.make_tensor_value_info("positions", kinds.INT64, ["tokens"]),
                helper.make_tensor_value_info("mask", kinds.FLOAT, ["texts", "tokens"]),
            ],
            [helper.make_tensor_value_info(output, kinds.FLOAT, ["texts", DIMENSIONS])],
            self._initializers,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPERATORS)])
        model.ir_version = FORMAT
        raw: bytes = model.SerializeToString()
        return raw
