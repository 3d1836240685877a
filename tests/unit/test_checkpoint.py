"""Checkpoints: when a run may begin, go on, or is refused, and that the last one is always whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from k9_api.batch.checkpoint import Checkpoint, Counts, Outputs, check_same, new_run
from k9_api.batch.models import choose
from k9_api.batch.writers import Position
from k9_broker.errors import ConfigurationError

INPUT = {"size": 3, "mtime_ns": 1, "head_sha256": "ab"}


def checkpoint(**changes: Any) -> Checkpoint:
    return Checkpoint(
        **{"run": "embed-1", "input": INPUT, "model": "m", "chunk": 256, "errors": "e", **changes}
    )


@pytest.fixture
def outputs(tmp_path: Path) -> Outputs:
    return Outputs(out=tmp_path / "out.jsonl", errors=tmp_path / "out.jsonl.errors.jsonl")


def test_it_reads_back(outputs: Outputs) -> None:
    saved = checkpoint(
        next=512,
        position=Position(offsets=(10, 20), rows=5, dimensions=8),
        errors_offset=7,
        counts=Counts(items=5, errors=1, tokens=9, backends={"toy": 5}),
    )
    outputs.save(saved)
    outputs.save(saved)
    assert outputs.load() == saved
    assert [path.name for path in outputs.out.parent.iterdir()] == ["out.jsonl.progress"]


BEGINNINGS = [
    pytest.param([], {}, None, id="fresh"),
    pytest.param([], {"resume": True}, None, id="resume with nothing there starts"),
    pytest.param(["progress"], {"resume": True}, "found", id="resume"),
    pytest.param(["progress", "out"], {"resume": True}, "found", id="resume over an old output"),
    pytest.param(["progress"], {}, "--resume", id="begun before"),
    pytest.param(["out"], {}, "--overwrite", id="output exists"),
    pytest.param(["errors"], {}, "--overwrite", id="error file exists"),
    pytest.param(["progress", "out", "errors"], {"overwrite": True}, None, id="overwrite"),
    pytest.param([], {"resume": True, "overwrite": True}, "not both", id="both"),
    pytest.param(["damaged"], {"resume": True}, "damaged", id="damaged"),
]


@pytest.mark.parametrize(("existing", "options", "expected"), BEGINNINGS)
def test_beginning(
    outputs: Outputs, existing: list[str], options: dict[str, bool], expected: str | None
) -> None:
    if "progress" in existing:
        outputs.save(checkpoint())
    if "damaged" in existing:
        outputs.progress.write_text('{"run": ')
    if "out" in existing:
        outputs.out.write_text("old")
    if "errors" in existing:
        outputs.errors.write_text("old")
    options = {"resume": False, "overwrite": False} | options
    if expected is None:
        assert outputs.begin(**options) is None
    elif expected == "found":
        assert outputs.begin(**options) == checkpoint()
    else:
        with pytest.raises(ConfigurationError, match=expected):
            outputs.begin(**options)


@pytest.mark.parametrize("out", ["no/such/out.jsonl", "."])
def test_an_output_that_cannot_be(tmp_path: Path, out: str) -> None:
    with pytest.raises(ConfigurationError, match="folder"):
        Outputs(out=tmp_path / out, errors=tmp_path / "e").begin(resume=False, overwrite=False)


SAME: dict[str, Any] = {
    "input": INPUT,
    "model": "m",
    "field": None,
    "id_field": None,
    "chunk": 256,
    "errors": "e",
}


@pytest.mark.parametrize("said", [{}, {"model": None, "chunk": None}])
def test_the_same_run_goes_on(said: dict[str, Any]) -> None:
    check_same(checkpoint(), **SAME | said)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"input": INPUT | {"size": 4}}, "input has changed"),
        ({"model": "n"}, "--model m, not n"),
        ({"field": "t"}, "--field"),
        ({"id_field": "k"}, "--id-field"),
        ({"chunk": 8}, "--chunk 256, not 8"),
        ({"errors": "other"}, "--errors e, not other"),
    ],
)
def test_another_run_does_not(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        check_same(checkpoint(), **SAME | changed)


def test_runs_have_names_of_their_own() -> None:
    assert new_run() != new_run()


def backend(*models: str, operations: tuple[str, ...] = ("chat", "embeddings")) -> dict[str, Any]:
    return {"models": list(models), "operations": list(operations)}


@pytest.mark.parametrize(
    ("backends", "model"),
    [
        ([backend("llama"), backend("minilm", operations=("embeddings",))], "minilm"),
        ([backend("llama", "nomic-embed-text")], "nomic-embed-text"),
        ([backend("llama", operations=("chat",)), backend("llama")], "llama"),
    ],
)
def test_the_default_model(backends: list[dict[str, Any]], model: str) -> None:
    assert choose(backends) == model


@pytest.mark.parametrize(
    ("backends", "message"),
    [([], "k9 model fetch minilm"), ([backend("a", "b")], "--model: a, b"), ([backend()], "k9 model fetch")],
)
def test_no_default_model(backends: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        choose(backends)
