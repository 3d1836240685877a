"""`k9 up` in the background, for as long as a demo runs."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from k9_broker.errors import K9Error

_START_SECONDS = 90


class DemoFailed(K9Error):
    """The demo could not be run to its end; the message above says why."""

    code = "demo_failed"


@contextmanager
def k9_up(
    state: Path,
    options: Sequence[str],
    environment: Mapping[str, str],
    console: Console,
    *,
    quiet: bool = False,
) -> Iterator[str]:
    """Its URL once everything is ready, on free ports and with the state folder `state`.

    `quiet` keeps what it says of itself off the screen. Raises `DemoFailed` when it does not come up.
    """
    console.rule("k9 up")
    words = [sys.executable, "-m", "k9_api.cli", "up", "--port", "0", *options]
    said = state / "up.json"
    process = subprocess.Popen(
        words,
        env={**environment, "K9_STATE_DIR": str(state)},
        stdout=subprocess.DEVNULL if quiet else None,
        start_new_session=True,
    )
    try:
        yield _wait_for_url(process, said)
    finally:
        console.rule("shutting down")
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(60)
        console.print(f"k9 up ended with exit code {process.returncode}")


def _wait_for_url(process: subprocess.Popen[bytes], said: Path) -> str:
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            raise DemoFailed(f"`k9 up` ended with exit code {process.returncode}.")
        try:
            up = json.loads(said.read_text("utf-8"))
        except (OSError, ValueError):
            time.sleep(0.1)
            continue
        if up["pid"] == process.pid:
            return str(up["api"])
        time.sleep(0.1)
    raise DemoFailed(f"`k9 up` was not ready within {_START_SECONDS} s; see the logs in {said.parent}/logs.")
