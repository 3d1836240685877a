"""The example configuration is valid, and the demo that reads it shows what it promises."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from k9_api.demo.prompts import PROMPTS
from k9_broker.adapters.redis_binary import installed
from k9_broker.recognise import recognise
from k9_broker.requests import InferenceRequest, Kind, TaskType
from k9_broker.settings import load_settings

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "routing" / "k9.toml"


def demo(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("K9_")}
    return subprocess.run(
        [sys.executable, "-m", "k9_api.cli", "demo-routing", *options],
        cwd=folder, env={**clean, "K9_STATE_DIR": str(folder)}, capture_output=True, text=True, timeout=110,
    )  # fmt: skip


def test_the_example_is_a_valid_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K9_CONFIG", str(EXAMPLE))
    settings = load_settings()
    assert [backend.kind for backend in settings.backends] == [Kind.LOCAL, Kind.LOCAL, Kind.CLOUD, Kind.CLOUD]
    models = {model for backend in settings.backends for model in backend.models}
    assert models >= {model for several in settings.aliases.values() for model in several}


def test_the_prompts_are_of_all_types_easy_and_hard() -> None:
    found = [recognise(InferenceRequest(prompt.operation, "auto", prompt.body("auto"))) for prompt in PROMPTS]
    assert {one.task_type for one in found} == set(TaskType)
    assert sum(one.needs_strong > 0.5 for one in found) >= 3
    assert 40 <= len(PROMPTS) <= 50


@pytest.mark.skipif(not list(installed()), reason="no Redis server on this machine")
def test_the_demo_shows_every_prompt_and_the_totals(tmp_path: Path) -> None:
    done = demo(tmp_path, "--config", str(EXAMPLE))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 120
    totals = {
        line.split()[0]: line.split()[1:]
        for line in lines
        if re.match(r"(task-type|cost-first|quality-first|latency-first) +\d", line)
    }
    assert set(totals) == {"task-type", "cost-first", "quality-first", "latency-first"}
    for local, cloud, *_ in totals.values():
        assert int(local) + int(cloud) == len(PROMPTS)
    cost = {strategy: float(row[4]) for strategy, row in totals.items()}
    assert 0 < cost["cost-first"] < cost["task-type"] < cost["quality-first"]
    assert float(totals["cost-first"][6]) > 0
    private = lines.index(next(line for line in lines if line.startswith("privacy: email")))
    assert "cloud" not in lines[private - 1]


def test_without_an_example_it_says_what_to_do(tmp_path: Path) -> None:
    done = demo(tmp_path)
    assert done.returncode == 2
    assert "examples/routing/k9.toml" in done.stderr
    assert "Traceback" not in done.stderr
