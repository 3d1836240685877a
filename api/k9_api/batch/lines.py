"""Lines of a byte stream, one after the other, whatever their length, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator

MAX_LINE = 8 * 2**20
"""Bytes. A longer line is not held; it is reported and skipped up to its newline."""

BLOCK = 64 * 2**10
"""Bytes asked for in one read."""


def split_lines(read: Callable[[int], bytes | None], limit: int = MAX_LINE) -> Iterator[bytes | None]:
    """Each line of `read` without its `\\n`; `None` stands for a line longer than `limit` bytes.

    What follows the last newline is a line only if it is not empty. Memory: one line and one block.
    """
    carry, too_long = b"", False
    while block := read(BLOCK):
        *whole, rest = block.split(b"\n")
        for piece in whole:
            line = carry + piece if carry else piece
            yield None if too_long or len(line) > limit else line
            carry, too_long = b"", False
        carry += rest
        if len(carry) > limit:
            carry, too_long = b"", True
    if carry or too_long:
        yield None if too_long else carry
