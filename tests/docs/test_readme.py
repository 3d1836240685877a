"""What the documents say is true: commands exist, configuration loads, examples run, links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel

from k9_broker.backends import Backend
from k9_broker.models import ModelCard
from k9_broker.policy import (
    SCORERS,
    CloudModel,
    Consequence,
    Policy,
    PrivacyPolicy,
    Rule,
    Strategy,
    TenantPolicy,
    When,
)
from k9_broker.settings import (
    ApiSettings,
    FlowerSettings,
    JobSettings,
    RoutingSettings,
    Settings,
    load_settings,
)
from k9_broker.strategy import filters
from k9_broker.strategy.builtin import SHORT, strategies_of
from stack import Stack

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
ROUTING = (ROOT / "docs/routing.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


SECTIONS: dict[str, type[BaseModel]] = {
    "`[api]`": ApiSettings,
    "`[flower]`": FlowerSettings,
    "`[jobs]`": JobSettings,
    "`[routing]`": RoutingSettings,
    "`[[strategies]]`": Strategy,
    "`[[rules]]`": Rule,
    "`[[backends]]`": Backend,
}


def blocks(language: str, page: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.M | re.S)


def test_the_two_commands_are_the_makefiles() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert {"demo", "test", "clean"} <= targets
    assert set(re.findall(r"`?make ([a-z-]+)", README)) <= targets
    assert (ROOT / ".ci/run").read_text().rstrip().endswith("exec make test")


def test_every_k9_command_it_names_exists() -> None:
    named = set(re.findall(r"\bk9 ([a-z]+)", "".join(page.read_text() for page in PAGES)))
    shown = subprocess.run(
        [sys.executable, "-m", "k9_api.cli", "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert {name for name in named if name not in shown} == set()


def test_its_configuration_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (snippet,) = blocks("toml")
    (tmp_path / "k9.toml").write_text(snippet)
    monkeypatch.setenv("K9_CONFIG", str(tmp_path / "k9.toml"))
    settings = load_settings()
    assert [backend.name for backend in settings.backends] == ["gpu", "cloud"]
    assert set(tomllib.loads(snippet)) == {"redis_url", "api", "backends"}


def test_its_python_example_runs(stack: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    snippet, _ = blocks("python")
    assert "http://127.0.0.1:8765" in snippet
    here = snippet.replace("http://127.0.0.1:8765", stack.url).replace("all-minilm-l6-v2", stack.embed_model)
    exec(compile(here, "README.md", "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    assert stack.model in printed
    assert "fake task-type:local" in printed


def test_its_example_of_anthropics_client_runs(stack: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    _, snippet = blocks("python")
    here = snippet.replace("http://127.0.0.1:8765", stack.url)
    exec(compile(here, "README.md", "exec"), {})
    assert capsys.readouterr().out.strip()


def test_every_setting_is_documented_and_every_documented_one_exists() -> None:
    sections = re.split(r"^## ", (ROOT / "docs/configuration.md").read_text(), flags=re.M)[1:]
    tables = {
        section.partition("\n")[0]: set(re.findall(r"^\| `([^`]+)` \|", section, re.M))
        for section in sections
    }
    for heading, model in SECTIONS.items():
        assert tables.pop(heading) == set(model.model_fields), heading
    tops, named = tables.values()
    assert named == {
        *("aliases.NAME", 'models."NAME"'),
        *(f"tenants.NAME.{name}" for name in TenantPolicy.model_fields),
        *(f"privacy.{name}" for name in PrivacyPolicy.model_fields),
    }
    covered = {*tops, *(name.partition(".")[0] for name in named), *(name.strip("`[]") for name in SECTIONS)}
    assert covered == set(Settings.model_fields) - {"api_keys"}


@pytest.mark.parametrize("model", [When, Consequence, ModelCard, CloudModel])
def test_every_word_inside_a_table_is_documented(model: type[BaseModel]) -> None:
    page = (ROOT / "docs/configuration.md").read_text()
    told = set(re.findall(r"[a-z_]+", " ".join(re.findall(r"`([^`]+)`", page))))
    assert set(model.model_fields) <= told


@pytest.mark.parametrize("number", range(len(blocks("toml", ROUTING))))
def test_examples_of_routing_load(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "k9.toml").write_text(blocks("toml", ROUTING)[number])
    monkeypatch.setenv("K9_CONFIG", str(tmp_path / "k9.toml"))
    assert load_settings().policy


def test_routing_is_told_as_it_is() -> None:
    reasons = {value for name, value in vars(filters).items() if name.isupper() and isinstance(value, str)}
    strategies = strategies_of(Policy()).keys() | {f"auto:{short}" for short in SHORT}
    for name in {*reasons, *strategies, *SCORERS}:
        assert f"`{name}`" in ROUTING, name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text())
    assert not [link for link in links if "://" not in link and not (page.parent / link).exists()]


def test_the_changelog_names_the_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"## {project['version']}" in (ROOT / "CHANGELOG.md").read_text()
