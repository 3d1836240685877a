"""Cuts a byte stream into lines, however the network cut it into pieces."""

from __future__ import annotations

from k9_broker.errors import BackendError

MAX_EVENT_BYTES = 8 * 2**20
"""Bytes of one line or event; a server that sends more without a break is not speaking the format."""


class LineBuffer:
    """Keeps the unfinished last line. Linear in the bytes fed, also when a line comes in many pieces."""

    __slots__ = ("_limit", "_pieces", "_size")

    def __init__(self, limit: int = MAX_EVENT_BYTES) -> None:
        self._limit = limit
        self._pieces: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that `data` completes, without their LF. Raises `BackendError` on one too long."""
        head, newline, tail = data.rpartition(b"\n")
        if not newline:
            self._keep(data)
            return []
        self._pieces.append(head)
        lines = b"".join(self._pieces).split(b"\n")
        self._pieces, self._size = [], 0
        self._keep(tail)
        return lines

    def close(self) -> bytes:
        """The last line, when no LF ended it."""
        rest = b"".join(self._pieces)
        self._pieces, self._size = [], 0
        return rest

    def _keep(self, piece: bytes) -> None:
        if piece:
            self._pieces.append(piece)
            self._size += len(piece)
            if self._size > self._limit:
                raise too_long(self._limit)


def too_long(limit: int) -> BackendError:
    return BackendError(f"The backend sent one event of more than {limit} bytes; the stream was dropped.")
