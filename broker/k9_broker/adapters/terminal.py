"""The terminal a process was started from: whether it is still there.

SIGHUP means two things: that the terminal was closed, and, by convention, "read your configuration again".
A process without a terminal takes it for the second; one with a terminal looks whether that is gone.
"""

from __future__ import annotations

import os
import sys


class Terminal:
    """Make it when the process starts."""

    def __init__(self) -> None:
        try:
            self._descriptor = sys.stdin.fileno()
        except (AttributeError, OSError, ValueError):  # no standard input at all
            self._descriptor = -1
        self._was_there = self._is_there()

    @property
    def is_gone(self) -> bool:
        """Whether the process had a terminal that has been closed since."""
        return self._was_there and not self._is_there()

    def _is_there(self) -> bool:
        return self._descriptor >= 0 and os.isatty(self._descriptor)
