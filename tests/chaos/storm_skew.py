"""`python -m storm_skew SECONDS MODULE …`: run a module of K-9's in a process whose wall clock is wrong.

Only the wall clock: a monotonic one goes on as it should, as on a machine whose clock was never set.
"""

from __future__ import annotations

import datetime
import runpy
import sys
import time


def shift(seconds: float) -> None:
    """Move everything this process may call its wall clock."""
    here, here_ns = time.time, time.time_ns
    time.time = lambda: here() + seconds
    time.time_ns = lambda: here_ns() + int(seconds * 1e9)
    real = datetime.datetime

    class Shifted(real):  # type: ignore[misc, valid-type]
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:
            return real.now(tz) + datetime.timedelta(seconds=seconds)

        @classmethod
        def utcnow(cls) -> datetime.datetime:
            return real.now(datetime.UTC).replace(tzinfo=None) + datetime.timedelta(seconds=seconds)

    datetime.datetime = Shifted  # type: ignore[misc]


if __name__ == "__main__":
    shift(float(sys.argv[1]))
    del sys.argv[:2]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
