"""`k9 simulate` as a person uses it: the built-in example, files, changes, comparisons, clear refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from k9_api.cli.main import app
from k9_broker.errors import ConfigurationError
from k9_broker.simulation.scenario import load

FILE = """
[backends.gpu]
slots = 2

[backends.cloud]
kind = "cloud"
output_usd = 1.0

[traffic.chat]
arrivals = "trace"
trace = "day.csv"

[traffic.lines]
arrivals = "feeder"
requests = 20
priority = "batch"
tenant = "acme"

[routing.tenants.acme]
weight = 2.0
"""
TRACE = "t_seconds,input_tokens,output_tokens,kind\n0.5,100,20,conv\n1.5,30,9,code\n2.0,10,1,conv\n"


@pytest.fixture(autouse=True)
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    (tmp_path / "day.csv").write_text(TRACE)
    path = tmp_path / "scenario.toml"
    path.write_text(FILE)
    return path


def run(*words: str) -> Any:
    return CliRunner().invoke(app, ["simulate", *words])


def said(*words: str) -> dict[str, Any]:
    done = run(*words, "--json")
    assert done.exit_code == 0, done.output
    return dict(json.loads(done.output))


def test_without_a_file_it_shows_the_example() -> None:
    done = run("--requests", "500")
    assert done.exit_code == 0, done.output
    assert "k9" in done.output
    assert "500 requests" in done.output
    assert max(map(len, done.output.splitlines())) <= 80


def test_the_example_can_be_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(run("--example").output)
    assert load(path) == load()


def test_a_file_with_a_trace_beside_it(scenario: Path) -> None:
    (found,) = said(str(scenario))["runs"]
    assert [(row["traffic"], row["served"]) for row in found["traffic"]] == [("chat", 3), ("lines", 20)]
    done = run(str(scenario))
    assert "lines (acme)" in done.output
    assert max(map(len, done.output.splitlines())) <= 80


def test_changes_and_policies_are_compared() -> None:
    words = ("--requests", "800", "--set", "backends.gpu.slots=1", "--set", "seed=3")
    local, cloud, ours = said(*words, "--policy", "all-local", "--policy", "all-cloud", "--policy", "k9")[
        "runs"
    ]
    assert [one["policy"] for one in (local, cloud, ours)] == ["all-local", "all-cloud", "k9"]
    assert (local["total"]["cloud"], cloud["total"]["cloud"]) == (0, 1)
    assert 0 < ours["total"]["cloud"] < 1
    assert said(*words)["runs"][0] == ours


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ("backends.gpu.slots=none", "backends.gpu.slots"),
        ("backends.gpu.slot=3", "backends.gpu.slot"),
        ("seed.of=3", "seed"),
        ("seed", "key=value"),
        ("traffic.azure.arrivals=feeder", "requests"),
        ("traffic.azure.arrivals=poisson", "trace"),
        ("traffic.azure.trace=none.csv", "arrivals"),
    ],
)
def test_a_change_that_is_wrong_is_named(change: str, names: str) -> None:
    changes = ["seed=1", change]
    if change.endswith("poisson"):
        changes.append("traffic.azure.trace=x.csv")
    with pytest.raises(ConfigurationError, match=names):
        load(None, changes)
    words = [word for one in changes for word in ("--set", one)]
    assert run(*words).exit_code == 2 or run(*words).exception is not None


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere\.toml"):
        load(tmp_path / "nowhere.toml")
