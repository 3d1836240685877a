"""No package keeps Celery below 5.7: a resolver would take an older one without a word."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from importlib.metadata import Distribution, distributions, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

KEPT = ("celery", "kombu", "billiard", "vine", "redis")
"""What K-9's queue stands on."""
PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"


def caps(installed: Iterable[Distribution]) -> list[str]:
    """Who asks for another version of the queue's packages than is installed, if only for an extra."""
    return [
        f"{one.name} {one.version}: {wanted}"
        for one in installed
        for wanted in map(Requirement, one.requires or ())
        if wanted.name.lower() in KEPT and not wanted.specifier.contains(version(wanted.name))
    ]


def test_hazard_17_no_installed_package_caps_the_queues() -> None:
    assert Version("5.7") <= Version(version("celery")) < Version("6")
    assert caps(distributions()) == []


def test_hazard_17_a_package_that_does_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "celery_batches-0.11.dist-info"
    folder.mkdir()
    said = "Metadata-Version: 2.1\nName: celery-batches\nVersion: 0.11\nRequires-Dist: celery<5.7,>=5.0\n"
    (folder / "METADATA").write_text(said)
    assert caps(distributions(path=[str(tmp_path)])) == ["celery-batches 0.11: celery<5.7,>=5.0"]


def test_hazard_17_the_projects_own_bounds_keep_it() -> None:
    project = tomllib.loads(PYPROJECT.read_text("utf-8"))["project"]
    asked = sum(project["optional-dependencies"].values(), project["dependencies"])
    (celery,) = (one for one in map(Requirement, asked) if one.name == "celery")
    assert not celery.specifier.contains("5.6.3")
    assert celery.specifier.contains("5.7.0")
    # Celery's extras pin other packages to one exact version.
    assert not celery.extras
