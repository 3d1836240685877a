"""Settings that would do harm in silence, or fail somewhere less clear, are refused with the fix."""

from __future__ import annotations

from pathlib import Path

import pytest

from k9_broker.errors import ConfigurationError
from k9_broker.settings import default_state_dir, load_settings


@pytest.fixture(autouse=True)
def _nothing_configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("K9_CONFIG", raising=False)


@pytest.mark.parametrize(
    "pairs", ["sesame", "acme:", "acme: ", ":sesame", "acme:ok,sesame", "a:sesame,b:sesame"]
)
def test_half_a_pair_does_not_open_the_api_to_everyone(monkeypatch: pytest.MonkeyPatch, pairs: str) -> None:
    monkeypatch.setenv("K9_API_KEYS", pairs)
    with pytest.raises(ConfigurationError, match="K9_API_KEYS") as refused:
        load_settings()
    assert "sesame" not in refused.value.message


def test_blanks_between_pairs_mean_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K9_API_KEYS", " acme : one ,, lab:two:three ,")
    assert load_settings().keys == {"one": "acme", "two:three": "lab"}


def test_keys_do_not_belong_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "k9.toml").write_text('api_keys = "acme:sesame"\n')
    with pytest.raises(ConfigurationError, match="K9_API_KEYS") as refused:
        load_settings()
    assert "sesame" not in refused.value.message


def test_a_list_in_a_variable_is_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "k9.toml").write_text("")
    monkeypatch.setenv("K9_PRIVACY__WORDS", "Larkspur")
    with pytest.raises(ConfigurationError, match=r"variable.*privacy.*JSON") as refused:
        load_settings()
    assert "Larkspur" not in refused.value.message
    assert "k9.toml" not in refused.value.message
    monkeypatch.setenv("K9_PRIVACY__WORDS", '["Larkspur"]')
    assert load_settings().privacy.words == ("Larkspur",)


def test_log_levels_are_known_in_any_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K9_LOG_LEVEL", "debug")
    assert load_settings().log_level == "DEBUG"
    monkeypatch.setenv("K9_LOG_LEVEL", "chatty")
    with pytest.raises(ConfigurationError, match=r"log_level.*DEBUG"):
        load_settings()


def test_a_tilde_in_the_file_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/x")
    monkeypatch.delenv("K9_STATE_DIR", raising=False)
    monkeypatch.delenv("K9_EMBED_MODEL", raising=False)
    (tmp_path / "k9.toml").write_text('state_dir = "~/k9"\nembed_model = "~/minilm"\n')
    assert load_settings().state_dir == Path("/home/x/k9")
    assert load_settings().model_folder == Path("/home/x/minilm")


def test_an_empty_variable_is_one_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("K9_STATE_DIR", "K9_REDIS_URL", "K9_API__PORT", "K9_API_KEYS"):
        monkeypatch.setenv(name, "")
    settings = load_settings()
    assert settings.state_dir == default_state_dir()
    assert (settings.redis_url, settings.api.port, settings.keys) == (None, 8765, {})
