"""The checkpoint: how far a run is, so that it can go on exactly there after any kind of end."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from k9_api.batch.parts import write_whole
from k9_api.batch.writers import Position, writer_for
from k9_broker.errors import ConfigurationError

SECONDS = 1.0
"""A checkpoint is written when the last is older than this."""

START_AGAIN = "Start again with --overwrite."


def new_run() -> str:
    """The name of one run: the first part of its idempotency keys."""
    return f"embed-{secrets.token_hex(8)}"


class Counts(BaseModel):
    """What was done so far, over all runs."""

    model_config = ConfigDict(extra="forbid")

    items: int = 0
    """Lines with a vector."""
    errors: int = 0
    """Lines in the error file."""
    tokens: int = 0
    backends: dict[str, int] = Field(default_factory=dict)
    """Backend → lines it embedded."""

    @property
    def lines(self) -> int:
        return self.items + self.errors


class Checkpoint(BaseModel):
    """Everything a run needs to go on. A frozen snapshot; the run writes a new one as it goes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = 1
    run: str
    input: dict[str, Any]
    model: str
    field: str | None = None
    id_field: str | None = None
    chunk: int
    errors: str = ""
    """The error file, as seen from the output's folder."""
    next: int = 0
    """Index of the first item that is not yet in the outputs: always the start of a chunk."""
    position: Position = Position()
    errors_offset: int = 0
    counts: Counts = Counts()
    complete: bool = False
    """Every part is whole; only the renames may be missing."""


class Outputs(BaseModel):
    """Where a run writes."""

    model_config = ConfigDict(frozen=True)

    out: Path
    errors: Path

    @property
    def progress(self) -> Path:
        return self.out.parent / f"{self.out.name}.progress"

    @property
    def finals(self) -> tuple[Path, ...]:
        """All the files there may be at the end. Raises `ConfigurationError` for an unknown suffix."""
        return *writer_for(self.out).finals(self.out), self.errors

    def save(self, checkpoint: Checkpoint) -> None:
        """Write the checkpoint. The outputs must be durable up to its offsets before."""
        write_whole(self.progress, checkpoint.model_dump_json(indent=1).encode() + b"\n")

    def load(self) -> Checkpoint | None:
        """The checkpoint, if there is one. Raises `ConfigurationError` when it is damaged."""
        try:
            return Checkpoint.model_validate_json(self.progress.read_bytes())
        except FileNotFoundError:
            return None
        except (ValidationError, OSError):
            raise ConfigurationError(f"{self.progress} is damaged. {START_AGAIN}") from None

    @property
    def errors_from_out(self) -> str:
        """The error file's path from the output's folder: the same wherever the run is resumed from."""
        return os.path.relpath(self.errors, self.out.parent)

    @property
    def finished(self) -> bool:
        """Whether an earlier run ended here with all its work done."""
        return self.out.exists() and not self.progress.exists()

    def begin(self, *, resume: bool, overwrite: bool) -> Checkpoint | None:
        """The checkpoint to go on from; `None` to start at the beginning.

        Raises `ConfigurationError` when something would be lost: an output or a checkpoint exists
        and neither `resume` nor `overwrite` was said.
        """
        if resume and overwrite:
            raise ConfigurationError("Say --resume or --overwrite, not both.")
        if self.out.is_dir():
            raise ConfigurationError(f"{self.out} is a folder. Name a file.")
        for path in self.finals:
            if not path.absolute().parent.is_dir():
                raise ConfigurationError(
                    f"The folder {path.absolute().parent} does not exist. Create it first."
                )
        if len(set(map(os.path.abspath, self.finals))) < len(self.finals):
            raise ConfigurationError(f"{self.errors} is an output too. Name another file with --errors.")
        if resume:
            return self.load()
        if overwrite:
            return None
        if self.progress.exists():
            raise ConfigurationError(f"{self.out} was begun before. Go on with --resume, or {_again()}")
        for path in self.finals:
            if path.exists():
                raise ConfigurationError(f"{path} exists. {START_AGAIN}")
        return None


def _again() -> str:
    return START_AGAIN[0].lower() + START_AGAIN[1:]


def check_same(
    found: Checkpoint,
    *,
    input: dict[str, Any],
    model: str | None,
    field: str | None,
    id_field: str | None,
    chunk: int | None,
    errors: str,
) -> None:
    """Raises `ConfigurationError` unless the run that is resumed would go on as it began.

    What is `None` was not said, and is as it was.
    """
    if found.input != input:
        raise ConfigurationError(f"The input has changed since the run began. {START_AGAIN}")
    for option, now, before in (
        ("--model", model, found.model),
        ("--field", field, found.field),
        ("--id-field", id_field, found.id_field),
        ("--chunk", chunk, found.chunk),
        ("--errors", errors, found.errors),
    ):
        if now is not None and now != before:
            raise ConfigurationError(f"The run began with {option} {before}, not {now}. {START_AGAIN}")
