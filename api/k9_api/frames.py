"""The frames of server-sent events."""

from __future__ import annotations


def frame(data: bytes, *, event: str | None = None, id: str | None = None) -> bytes:
    """One event. `data` must be a single line."""
    head = (f"id: {id}\n" if id else "") + (f"event: {event}\n" if event else "")
    return head.encode() + b"data: " + data + b"\n\n"
