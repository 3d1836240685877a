"""What the command line sends where: addresses and keys that cannot work are said, never a traceback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from typer.testing import CliRunner

from k9_api.cli.main import app
from serving import Served

MODELS = {"object": "list", "data": [{"id": "llama", "object": "model", "owned_by": "library"}]}


def run(*words: str) -> Any:
    return CliRunner().invoke(app, words)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("K9_URL", raising=False)
    monkeypatch.setenv("K9_STATE_DIR", str(tmp_path))
    (tmp_path / "in.txt").write_text("one\n")


@pytest.fixture(scope="module")
def other() -> Iterator[str]:
    """A model server that is no K-9, such as Ollama; it asks for a key at `/v1/queues`."""

    async def models(request: Request) -> Response:
        return JSONResponse(MODELS)

    async def queues(request: Request) -> Response:
        error = {"message": "no", "type": "invalid_request_error", "param": None, "code": "invalid_api_key"}
        return JSONResponse({"error": error}, 401)

    with Served(Starlette(routes=[Route("/v1/models", models), Route("/v1/queues", queues)])) as served:
        yield served.url


def refused(shown: Any, said: str) -> None:
    assert shown.exit_code == 2, shown.output
    assert said in shown.stderr
    assert len(shown.stderr.splitlines()) == 1


@pytest.mark.parametrize("url", ["http://127.0.0.1:99999", "http://[bad", "http://", "http://host:port"])
@pytest.mark.parametrize("words", [["queues"], ["embed", "in.txt", "-o", "out.jsonl"]])
def test_a_url_that_is_none(words: list[str], url: str) -> None:
    refused(run(*words, "--url", url), "is not valid. Write http://HOST:PORT.")


@pytest.mark.parametrize("words", [["queues"], ["embed", "in.txt", "-o", "out.jsonl"]])
@pytest.mark.parametrize("key", ["cl\u00e9", "two\nlines"])
def test_a_key_no_header_can_carry(monkeypatch: pytest.MonkeyPatch, words: list[str], key: str) -> None:
    monkeypatch.setenv("K9_API_KEY", key)
    shown = run(*words, "--url", "http://127.0.0.1:9")
    refused(shown, "K9_API_KEY holds characters")
    assert key not in shown.stderr


@pytest.mark.parametrize("words", [["queues"], ["embed", "in.txt", "-o", "out.jsonl"]])
def test_a_missing_key_is_said_with_the_variable(other: str, words: list[str]) -> None:
    refused(run(*words, "--url", other), "Set K9_API_KEY.")


def test_a_chat_with_a_server_that_is_no_k9(other: str) -> None:
    refused(run("chat", "hello", "--url", other), "is not K-9")


@pytest.mark.parametrize("out", [".", "/", "..", "in.txt/"])
def test_an_output_that_is_no_file_name(out: str) -> None:
    shown = run("embed", "in.txt", "-o", out, "--url", "http://127.0.0.1:9")
    refused(shown, "must end in .jsonl, .npy or .parquet")
