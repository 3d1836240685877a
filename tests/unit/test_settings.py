"""Configuration: the file, the environment over it, and errors that name the key."""

from __future__ import annotations

from pathlib import Path

import pytest

from k9_broker.errors import ConfigurationError
from k9_broker.settings import load_settings

FILE = """
redis_url = "redis://example.invalid/0"

[api]
port = 9000

[[backends]]
name = "gpu"
dialect = "ollama"
url = "http://127.0.0.1:11434"
slots = 2

[[backends]]
name = "cloud"
dialect = "openai-compatible"
kind = "cloud"
url = "https://example.invalid"
api_key_env = "CLOUD_KEY"
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "k9.toml"
    path.write_text(FILE)
    monkeypatch.setenv("K9_CONFIG", str(path))
    return path


def test_the_file_is_read(config: Path) -> None:
    settings = load_settings()
    assert settings.api.port == 9000
    assert [backend.name for backend in settings.backends] == ["gpu", "cloud"]
    assert settings.backends[1].kind == "cloud"


def test_the_environment_wins(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K9_API__PORT", "9001")
    monkeypatch.setenv("K9_REDIS_URL", "redis://127.0.0.1/3")
    settings = load_settings()
    assert settings.api.port == 9001
    assert settings.redis_url == "redis://127.0.0.1/3"


def test_keys_are_pairs_of_tenant_and_key_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K9_API_KEYS", "acme:sk-1, other:sk-2")
    settings = load_settings()
    assert settings.keys == {"sk-1": "acme", "sk-2": "other"}
    assert "sk-1" not in repr(settings)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("slots = 0", "backends.0.slots"),
        ('dialect = "ollama"', "backends.0.url"),
        ("colour = 1", "backends.0.colour"),
        ('name = "Big GPU"', "backends.0.name"),
    ],
)
def test_an_error_names_its_key(
    config: Path, tmp_path: Path, broken: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = broken.split()[0]
    lines = ['name = "gpu"', 'dialect = "fake"', 'url = "http://127.0.0.1:1"']
    if said.endswith("url"):
        lines = lines[:2]
    lines = [line for line in lines if not line.startswith(f"{key} ")] + [broken]
    config.write_text("[[backends]]\n" + "\n".join(lines))
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    assert said.rsplit(".", 1)[0] in caught.value.message


@pytest.mark.parametrize(
    ("text", "said"),
    [("port = ", "cannot be read"), ('[[backends]]\nname="a"\ndialect="embedded"\n' * 2, "used twice")],
)
def test_a_broken_file_is_named(config: Path, text: str, said: str) -> None:
    config.write_text(text)
    with pytest.raises(ConfigurationError, match=said):
        load_settings()


def test_a_missing_file_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K9_CONFIG", "/nowhere/k9.toml")
    with pytest.raises(ConfigurationError, match="not a file"):
        load_settings()
