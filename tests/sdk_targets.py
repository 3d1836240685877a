"""Client SDKs that cannot live in one environment with the others: each in a folder of its own.

`K9_SDK_DIR` (`.k9/sdk` in the checkout by default) holds them, made by
`pip install --target K9_SDK_DIR/anthropic-0.125.0 anthropic==0.125.0`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]


def sdk_folder(name: str) -> Path:
    """The folder of one SDK, for example `anthropic-0.125.0`; skips without it, fails in CI."""
    folder = Path(os.environ.get("K9_SDK_DIR") or ROOT / ".k9" / "sdk") / name
    package, _, version = name.partition("-")
    if (folder / package).is_dir():
        return folder
    reason = f"{name} is not in {folder}: pip install --target {folder} {package}=={version}"
    if os.environ.get("CI"):
        pytest.fail(f"{reason}; CI must run this suite")
    pytest.skip(reason)


def run_client(program: str, *words: str, path: Path | None = None) -> Any:
    """The JSON that a program beside this file prints, run in this environment or with the SDK in `path`."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("ANTHROPIC_")}
    if path is not None:
        env["PYTHONPATH"] = str(path)
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name(program)), *words],
        env=env, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)
