"""What became of one chunk: the job's answer as one array, or why each of its lines failed."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from k9_api.batch.chunks import Chunk
from k9_broker.errors import BackendError

Matrix = NDArray[np.float32]
"""Shape (rows, dimensions), little-endian float32."""

FLOAT32 = np.dtype("<f4")
NOTHING: Matrix = np.empty((0, 0), FLOAT32)

NOT_FINITE = ("not_finite", "The embedding holds values that are no numbers.")


@dataclass(frozen=True, slots=True)
class Answer:
    """`vectors` holds one row per record of `chunk` that did not fail, in order."""

    chunk: Chunk
    vectors: Matrix = field(default_factory=lambda: NOTHING, repr=False)
    errors: Mapping[int, tuple[str, str]] = field(default_factory=dict)
    """Index within `chunk.records` → code and message."""
    tokens: int = 0
    backend: str = ""

    @property
    def ids(self) -> list[str]:
        """The ids of the rows of `vectors`."""
        return [record.id for at, record in enumerate(self.chunk.records) if at not in self.errors]


def failed(chunk: Chunk, code: str, message: str) -> Answer:
    """Every line of the chunk failed for the same reason."""
    return Answer(chunk, errors=dict.fromkeys(range(len(chunk.records)), (code, message)))


def answer(chunk: Chunk, job: Mapping[str, Any]) -> Answer:
    """The answer in a succeeded job. Raises `BackendError` when it does not fit the chunk."""
    result = job.get("result") or {}
    count = len(chunk.records)
    try:
        rows: list[Any] = [None] * count
        for row in result["data"]:
            rows[row["index"]] = row["embedding"]
        errors = {
            int(index): (str(error.get("code")), str(error.get("message")))
            for index, error in (job.get("errors") or {}).items()
        }
        matrix = _matrix([rows[at] for at in range(count) if at not in errors])
        tokens = int((result.get("usage") or {}).get("total_tokens") or 0)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        raise BackendError("The job's result does not fit its inputs.") from None
    if len(matrix) and not np.isfinite(matrix).all():
        good = np.asarray(np.isfinite(matrix).all(axis=1))
        places = [at for at in range(count) if at not in errors]
        errors |= {at: NOT_FINITE for at, fine in zip(places, good, strict=True) if not fine}
        matrix = matrix[good]
    return Answer(chunk, matrix, errors, tokens, str(job.get("backend") or ""))


def _matrix(rows: list[Any]) -> Matrix:
    if not rows:
        return NOTHING
    if isinstance(rows[0], str):  # validation of base64 costs three times its decoding
        matrix = np.frombuffer(b"".join(map(b64decode, rows)), FLOAT32)
        width, rest = divmod(len(matrix), len(rows))
        if rest or not width or any(len(row) != len(rows[0]) for row in rows):
            raise ValueError("rows differ in length")
        return matrix.reshape(len(rows), width)
    return np.asarray(rows, FLOAT32).reshape(len(rows), -1)
