"""Server-sent events, read incrementally (WHATWG HTML, "Interpreting an event stream").

Fields other than `event` and `data` steer browsers and are skipped.
"""

from __future__ import annotations

from typing import NamedTuple

from k9_broker.dialects.lines import MAX_EVENT_BYTES, LineBuffer, too_long

_BOM = b"\xef\xbb\xbf"


class ServerEvent(NamedTuple):
    """One event. `data` stays bytes: JSON is read from them, and no character is ever cut in two."""

    data: bytes
    name: str = "message"


class SseParser:
    """Feed it bytes as they come; it gives whole events."""

    __slots__ = ("_after_cr", "_data", "_first", "_limit", "_lines", "_name", "_size")

    def __init__(self, limit: int = MAX_EVENT_BYTES) -> None:
        self._limit = limit
        self._lines = LineBuffer(limit)
        self._data: list[bytes] = []
        self._size = 0
        self._name = ""
        self._first = True
        self._after_cr = False

    def feed(self, data: bytes) -> list[ServerEvent]:
        """The events that `data` completes. Raises `BackendError` on one beyond the limit."""
        if self._after_cr and data:  # the CR was already counted as a line's end
            data = data.removeprefix(b"\n")
            self._after_cr = False
        if b"\r" in data:
            self._after_cr = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return self._read(self._lines.feed(data))

    def close(self) -> list[ServerEvent]:
        """The last event, when the stream ended without the blank line that should follow it."""
        return self._read([self._lines.close(), b""])

    def _read(self, lines: list[bytes]) -> list[ServerEvent]:
        events: list[ServerEvent] = []
        for line in lines:
            if self._first:
                line = line.removeprefix(_BOM)
                self._first = False
            if not line:
                if self._data:
                    events.append(ServerEvent(b"\n".join(self._data), self._name or "message"))
                    self._data, self._size = [], 0
                self._name = ""
            elif line.startswith(b"data:"):
                value = line[6:] if line[5:6] == b" " else line[5:]
                self._size += len(value) + 1
                if self._size > self._limit:
                    raise too_long(self._limit)
                self._data.append(value)
            elif line == b"data":
                self._size += 1
                self._data.append(b"")
            elif line.startswith(b"event:"):
                self._name = line[6:].removeprefix(b" ").decode("utf-8", "replace")
        return events
