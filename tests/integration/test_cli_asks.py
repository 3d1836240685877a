"""The commands that ask a running K-9, and what they say when none runs or the configuration is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from k9_api.cli import where
from k9_api.cli.chat import pieces
from k9_api.cli.main import app
from k9_broker.errors import BackendError, ConfigurationError, StreamTruncated
from stack import Stack, ask
from stand import free_port


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("K9_URL", raising=False)
    monkeypatch.setenv("K9_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)


def run(*words: str) -> Any:
    return CliRunner().invoke(app, words)


@pytest.mark.parametrize("command", ["chat", "route"])
def test_text_that_is_no_unicode_is_one_clear_message(k9: Stack, command: str) -> None:
    """As a shell passes on bytes that are not UTF-8."""
    done = run(command, "a\udcff", "--url", k9.url)
    assert done.exit_code == 2
    assert "UTF-8" in done.stderr
    assert "Traceback" not in done.stderr


def test_queues_shows_every_backend(k9: Stack) -> None:
    shown = run("queues", "--url", k9.url)
    assert shown.exit_code == 0
    header, row = (line.split() for line in shown.output.splitlines())
    assert header[:4] == ["backend", "kind", "models", "workers"]
    expected = "fake local fake-chat(+1) 1 0 of 32 0 0 0.0 s 0.0 s fit"
    assert row == expected.split()


def test_chat_prints_the_answer(k9: Stack) -> None:
    body = {"model": k9.model, "messages": [{"role": "user", "content": "hello"}]}
    _, _, whole = ask(f"{k9.url}/v1/chat/completions", body)
    for more in ([], ["--model", k9.model]):
        shown = run("chat", "hello", "--url", k9.url, *more)
        assert shown.exit_code == 0
        assert shown.output == whole["choices"][0]["message"]["content"] + "\n"


def test_chat_says_what_went_wrong(k9: Stack) -> None:
    shown = run("chat", "hello", "--model", "nobody", "--url", k9.url)
    assert shown.exit_code == 2
    assert "No backend serves the model 'nobody'" in shown.stderr
    k9.fake.behave(error_after_tokens=2, tokens_per_second=100)
    shown = run("chat", "hello", "--url", k9.url)
    assert shown.exit_code == 2
    assert shown.stderr.startswith("k9: ")
    assert "Traceback" not in shown.output


def test_jobs_are_shown_and_cancelled(k9: Stack) -> None:
    k9.fake.behave(latency_ms=20_000)
    job_id = k9.submit()
    shown = run("jobs", "show", job_id, "--url", k9.url)
    assert shown.exit_code == 0
    assert "task-type:local" in shown.output
    cancelled = run("jobs", "cancel", job_id, "--url", k9.url, "--json")
    assert json.loads(cancelled.output)["state"] == "cancelled"
    assert "job_cancelled" in run("jobs", "show", job_id, "--url", k9.url).output


@pytest.mark.parametrize(
    "words", [["queues"], ["chat", "hello"], ["jobs", "show", "job-1"], ["jobs", "cancel", "job-1"]]
)
def test_without_a_k9_the_next_step_is_told(words: list[str]) -> None:
    shown = run(*words, "--url", f"http://127.0.0.1:{free_port()}")
    assert shown.exit_code == 2
    assert "start it with `k9 up`" in shown.stderr
    assert len(shown.stderr.splitlines()) == 1


@pytest.mark.parametrize("words", [["k9_api"], ["k9_api.cli", "api"]])
@pytest.mark.parametrize(
    ("env", "said"),
    [({}, "K9_REDIS_URL"), ({"K9_API__PORT": "secret"}, "api.port"), ({"K9_CONFIG": "no.toml"}, "no.toml")],
)
def test_a_wrong_configuration_is_one_clear_message(words: list[str], env: dict[str, str], said: str) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("K9_")}
    done = subprocess.run(
        [sys.executable, "-m", *words], env=clean | env, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 2
    assert done.stderr.startswith("k9: ")
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_something_else_that_answers_is_no_k9(k9: Stack) -> None:
    shown = run("queues", "--url", k9.fake.url)
    assert shown.exit_code == 2
    assert "k9: " in shown.stderr


def test_where_k9_answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert where.api_url() == "http://127.0.0.1:8765"
    (tmp_path / "up.json").write_text('{"api": "http://127.0.0.1:1234"}')
    assert where.api_url() == "http://127.0.0.1:1234"
    monkeypatch.setenv("K9_URL", "http://gpu:8765/v1/")
    assert where.api_url() == "http://gpu:8765"
    assert where.api_url("https://other/") == "https://other"
    with pytest.raises(ConfigurationError):
        where.api_url("gpu:8765")
    monkeypatch.delenv("K9_URL")
    for broken in ("", "[]", '{"api": 7}', "{"):
        (tmp_path / "up.json").write_text(broken)
        assert where.api_url() == "http://127.0.0.1:8765"


def test_pieces_of_a_stream() -> None:
    say = 'data: {"choices": [{"delta": {"content": "a"}}]}'
    assert list(pieces([": waiting", "", say, 'data: {"choices": []}', say, "data: [DONE]"])) == ["a", "a"]
    with pytest.raises(StreamTruncated):
        list(pieces([say]))
    with pytest.raises(BackendError, match="it broke"):
        list(pieces([say, 'data: {"error": {"code": "backend_error", "message": "it broke"}}']))
