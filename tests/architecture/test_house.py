"""The rules of the house, checked: sizes, imports, cycles, words, and what the project says of itself."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest
from grimp import ImportGraph, build_graph

ROOT = Path(__file__).parents[2]
PACKAGES = {"k9_broker": "broker", "k9_workers": "workers", "k9_api": "api"}
MOST_LINES = 300
NOUNS = {"errors", "requests", "jobs", "results", "backends", "models", "money", "usage", "naming"}
NOUNS |= {"health", "limits"}
RULES = {"snapshot", "verdict", "policy", "strategy", "recognise", "classify", "sensitive"}
RULES |= {"tokens", "latency", "breaker", "balance", "failover", "saturation", "lateness", "serving"}
WALK = {"ports", "submit", "dead_letters"}
INNER_ONLY = NOUNS | RULES | WALK
HEAVY = {"redis", "celery", "kombu", "httpx", "numpy", "fastapi", "starlette", "uvicorn", "aiohttp"}


def sources(*folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from sorted((ROOT / folder).rglob("*.py"))


def modules_of(path: Path) -> set[str]:
    """The modules a file imports when it is imported: not those inside functions or TYPE_CHECKING."""
    names: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


@pytest.fixture(scope="module")
def graph() -> ImportGraph:
    return build_graph(*PACKAGES, cache_dir=None)


def test_every_file_is_read_in_one_sitting() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in sources(*PACKAGES.values(), "tests", "benchmarks")
        if (lines := len(path.read_text().splitlines())) > MOST_LINES
    }
    assert not long


def test_import_contracts_hold() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_there_are_no_cycles_between_modules(graph: ImportGraph) -> None:
    cycles = []
    for package in PACKAGES:
        for module in {package, *graph.find_descendants(package)}:
            for imported in graph.find_modules_directly_imported_by(module):
                if imported.startswith(f"{package}.") and graph.chain_exists(imported, module):
                    cycles.append((module, imported))
    assert not cycles


@pytest.mark.parametrize(
    ("floor", "below"),
    [(NOUNS, NOUNS), (RULES, NOUNS | RULES), (WALK, NOUNS | RULES | WALK)],
    ids=["nouns", "rules", "walk"],
)
def test_each_floor_stands_on_those_below(floor: set[str], below: set[str], graph: ImportGraph) -> None:
    wrong = [
        (module, imported)
        for module in graph.find_descendants("k9_broker")
        if module.split(".")[1] in floor
        for imported in graph.find_modules_directly_imported_by(module)
        if imported.startswith("k9_broker.") and imported.split(".")[1] not in below
    ]
    assert not wrong


def test_the_inner_floors_do_no_io() -> None:
    """Nouns, rules and the walk import nothing that talks to the outside."""
    wrong = [
        (path.name, name)
        for path in sources("broker")
        if path.relative_to(ROOT / "broker" / "k9_broker").parts[0].removesuffix(".py") in INNER_ONLY
        for name in modules_of(path)
        if name.split(".")[0] in HEAVY | {"socket", "subprocess", "asyncio", "logging", "os"}
    ]
    assert not wrong


def test_no_banned_names() -> None:
    banned = re.compile(r"(manager|helper|util|common)s?$")
    wrong = [
        str(path.relative_to(ROOT))
        for path in sources(*PACKAGES.values())
        if any(banned.search(part.removesuffix(".py")) for part in path.relative_to(ROOT).parts)
    ]
    assert not wrong


def test_folders_of_packages_are_not_packages() -> None:
    """`import broker` must never shadow somebody's own package."""
    assert not [folder for folder in PACKAGES.values() if (ROOT / folder / "__init__.py").exists()]


def test_public_things_say_what_they_mean() -> None:
    silent = []
    for path in sources(*PACKAGES.values()):
        tree = ast.parse(path.read_text())
        if not ast.get_docstring(tree):
            silent.append(f"{path.name}: module")
    assert not silent


def test_every_script_names_its_keys() -> None:
    scripts = sorted((ROOT / "broker/k9_broker/adapters/scripts").glob("*.lua"))
    assert len(scripts) > 5
    silent = [
        path.name
        for path in scripts
        if not re.search(r"^-- KEYS .*\n(--.*\n)*?-- Gives", path.read_text(), re.M)
    ]
    assert not silent


def test_every_dependency_has_its_reason() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [*project["dependencies"], *chain.from_iterable(project["optional-dependencies"].values())]
    packages = {re.split(r"[\[<>=;~ ]", line)[0] for line in named} - {"k9-broker"}
    reasons = (ROOT / "docs/dependencies.md").read_text()
    assert not {package for package in packages if f"`{package}`" not in reasons}


@pytest.mark.parametrize(
    "tool", [["mypy"], ["ruff", "check", "."], ["ruff", "format", "--check", "."]], ids=" ".join
)
def test_typed_linted_formatted(tool: list[str]) -> None:
    done = subprocess.run(
        [str(Path(sys.executable).with_name(tool[0])), *tool[1:]], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
