"""Newline-delimited JSON, read incrementally: one value per line."""

from __future__ import annotations

from k9_broker.dialects.lines import MAX_EVENT_BYTES, LineBuffer


class NdjsonParser:
    """Feed it bytes as they come; it gives whole lines, blank ones left out."""

    __slots__ = ("_lines",)

    def __init__(self, limit: int = MAX_EVENT_BYTES) -> None:
        self._lines = LineBuffer(limit)

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that `data` completes. Raises `BackendError` on one beyond the limit."""
        return [line for line in self._lines.feed(data) if line and not line.isspace()]

    def close(self) -> list[bytes]:
        """The last line, when no line end followed it."""
        rest = self._lines.close()
        return [] if not rest or rest.isspace() else [rest]
