"""The embedded model: its numbers against the reference's, and how its folder may be wrong."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from k9_broker.errors import ConfigurationError
from k9_broker.minilm import DIMENSIONS, onnx_runner
from k9_broker.minilm.model import MiniLM, plan
from k9_broker.minilm.numpy_runner import NumpyRunner, gelu
from k9_broker.minilm.weights import load_weights, read_safetensors
from k9_broker.results import Vectors
from k9_broker.settings import load_settings

REFERENCE = json.loads(Path(__file__).with_name("minilm_reference.json").read_text())["cases"]
TEXTS = [case["text"] for case in REFERENCE]
RUNNERS = ["numpy", "onnx"]


def model_folder() -> Path:
    folder = load_settings().model_folder
    if not (folder / "model.safetensors").is_file():
        why = f"no model in {folder}: `k9 model fetch minilm`, or name its folder in K9_EMBED_MODEL"
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    return folder


@cache
def model(runner: Literal["numpy", "onnx"] = "numpy") -> MiniLM:
    if runner == "onnx" and not onnx_runner.installed():
        pytest.skip("onnxruntime and onnx are not installed")
    return MiniLM.load(model_folder(), runner)


def rows(vectors: Vectors) -> Any:
    return np.frombuffer(vectors.packed, "<f4").reshape(-1, vectors.dimensions)


@pytest.mark.model
@pytest.mark.parametrize("runner", RUNNERS)
def test_vectors_are_the_references(runner: Literal["numpy", "onnx"]) -> None:
    vectors, tokens = model(runner).encode(TEXTS)
    difference = np.abs(rows(vectors) - np.array([case["vector"] for case in REFERENCE]))
    assert difference.max() < 1e-6
    assert tokens == sum(case["tokens"] for case in REFERENCE)


@pytest.mark.model
@pytest.mark.parametrize("runner", RUNNERS)
def test_a_vector_does_not_depend_on_its_neighbours(runner: Literal["numpy", "onnx"]) -> None:
    alone = [rows(model(runner).encode([text])[0])[0] for text in TEXTS]
    assert np.abs(rows(model(runner).encode(TEXTS[::-1])[0]) - alone[::-1]).max() < 1e-6


@pytest.mark.model
def test_both_runners_agree_on_many_lengths() -> None:
    texts = ["in a queue nobody waits alone " * times for times in range(1, 40, 8)]
    numpy, onnx = (rows(model(runner).encode(texts)[0]) for runner in ("numpy", "onnx"))
    assert np.abs(numpy - onnx).max() < 1e-6


@pytest.mark.model
@pytest.mark.parametrize("runner", RUNNERS)
def test_vectors_have_length_one_and_like_finds_like(runner: Literal["numpy", "onnx"]) -> None:
    found = rows(
        model(runner).encode(["A cat sits outside", "A feline is sitting outdoors", "The disk is full"])[0]
    )
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    assert found[0] @ found[1] > 0.6 > 0.2 > found[0] @ found[2]


@pytest.mark.model
def test_nothing_gives_nothing() -> None:
    vectors, tokens = model().encode([])
    assert (vectors.count, vectors.dimensions, tokens) == (0, DIMENSIONS, 0)


@pytest.mark.model
def test_auto_is_onnx_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = model_folder()
    monkeypatch.setattr(onnx_runner, "installed", lambda: False)
    assert MiniLM.load(folder).runner == "numpy"
    with pytest.raises(ConfigurationError, match="pip install 'k9-broker\\[onnx\\]'"):
        MiniLM.load(folder, "onnx")
    monkeypatch.undo()
    assert MiniLM.load(folder).runner == ("onnx" if onnx_runner.installed() else "numpy")


@pytest.mark.model
def test_scores_too_large_for_a_plain_exponential_stay_finite() -> None:
    """Weights whose attention scores are far beyond what float32 can take the exponential of."""
    weights = load_weights(model_folder())
    for layer in weights.layers:
        layer.query_key_value.weight[:, : 2 * DIMENSIONS] *= 30
    vectors = NumpyRunner(weights).run([[101, *range(2000, 2060), 102]])
    assert np.isfinite(vectors).all()


def test_gelu_is_exact() -> None:
    from math import erf

    x = np.linspace(-8, 8, 4001, dtype=np.float32)
    exact = np.array([value * (1 + erf(value / 2**0.5)) / 2 for value in x.tolist()])
    gelu(x)
    assert np.abs(x - exact).max() < 5e-7


@given(st.lists(st.integers(2, 256)), st.booleans(), st.sampled_from([1, 300, 512]))
def test_a_plan_has_every_text_once_within_its_budget(lengths: list[int], padded: bool, tokens: int) -> None:
    batches = plan(lengths, tokens, padded=padded)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        mine = [lengths[index] for index in batch]
        assert len(batch) == 1 or (len(mine) * max(mine) if padded else sum(mine)) <= tokens
    in_order = [lengths[index] for batch in batches for index in batch]
    assert in_order == sorted(lengths)


# -- a folder that is wrong --------------------------------------------------------------------------


def safetensors(head: object, data: bytes = b"") -> bytes:
    raw = json.dumps(head).encode()
    return len(raw).to_bytes(8, "little") + raw + data


def one(
    name: str = "a", dtype: str = "F32", shape: object = (2,), offsets: object = (0, 8)
) -> dict[str, Any]:
    return {name: {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x01",
        b"PK\x03\x04" + bytes(100),
        (2**63).to_bytes(8, "little"),
        (2).to_bytes(8, "little") + b"{",
        safetensors([]),
        safetensors({"a": 1}, bytes(8)),
        safetensors({"a": {"dtype": "F32"}}, bytes(8)),
        safetensors(one(), bytes(7)),
        safetensors(one(shape=[3]), bytes(8)),
        safetensors(one(offsets=[-4, 4]), bytes(8)),
        safetensors(one(offsets=[8, 0]), bytes(8)),
        safetensors(one(shape="x"), bytes(8)),
    ],
)
def test_a_damaged_file_is_refused_with_the_next_step(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match="k9 model fetch minilm"):
        read_safetensors(path)


def test_a_file_is_read_by_name_whatever_its_alignment(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    data = np.array([[1, 2], [3, 4]], "<f4").tobytes() + bytes(8)
    for filler in ("", "x", "xx", "xxx"):
        head = {
            "__metadata__": {"format": filler},
            **one("a", shape=[2, 2], offsets=[0, 16]),
            **one("ids", "I64", [1], [16, 24]),
        }
        path.write_bytes(safetensors(head, data))
        assert {name: array.tolist() for name, array in read_safetensors(path).items()} == {
            "a": [[1, 2], [3, 4]]
        }


def test_an_empty_folder_says_how_to_get_the_model(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"k9 model fetch minilm.*K9_EMBED_MODEL"):
        MiniLM.load(tmp_path)


@pytest.mark.parametrize(("shape", "complaint"), [([2], r"\(2,\), not \(2, 384\)"), (None, "missing")])
def test_another_models_weights_are_refused(tmp_path: Path, shape: object, complaint: str) -> None:
    head = one("embeddings.token_type_embeddings.weight", shape=shape) if shape else {}
    (tmp_path / "model.safetensors").write_bytes(safetensors(head, bytes(8)))
    with pytest.raises(ConfigurationError, match=f"not all-MiniLM-L6-v2: .* {complaint}"):
        MiniLM.load(tmp_path)
