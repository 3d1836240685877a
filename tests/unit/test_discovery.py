"""What K-9 finds on a machine nobody configured, against real servers on loopback."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from k9_broker.backends import Backend
from k9_broker.discovery import Found, Place, discover, pick, resolve
from k9_broker.errors import ConfigurationError
from k9_broker.requests import Kind, Operation
from k9_broker.settings import Settings

Routes = dict[str, Any]
"""Path → JSON (dict or list), text, or a status code."""

OLLAMA: Routes = {"/": "Ollama is running", "/api/version": {"version": "0.13.5"}}
OLD_OLLAMA: Routes = {"/": "Ollama is running"}
VLLM: Routes = {
    "/version": {"version": "0.33.0"},
    "/v1/models": {"object": "list", "data": [{"id": "Qwen/Qwen3-8B", "owned_by": "vllm"}]},
}
VLLM_LOCKED: Routes = {"/version": {"version": "0.33.0"}, "/v1/models": 401}
LLAMACPP: Routes = {
    "/health": {"status": "ok"},
    "/props": {"total_slots": 3, "default_generation_settings": {}},
    "/v1/models": {"object": "list", "data": [{"id": "tiny.gguf", "owned_by": "llamacpp"}]},
}
LLAMACPP_LOCKED: Routes = {**LLAMACPP, "/props": 401}
TGI: Routes = {"/info": {"model_id": "m/chat", "max_total_tokens": 4096, "max_concurrent_requests": 128}}
TEI: Routes = {
    "/info": {
        "model_id": "BAAI/bge-small-en",
        "model_type": {"embedding": {"pooling": "cls"}},
        "max_concurrent_requests": 512,
        "max_client_batch_size": 32,
    }
}
SOMEBODY: Routes = {"/": "<html>a web application</html>"}
ASKED = ("/", "/v1/models", "/version", "/info", "/props", "/api/version")
EVERYTHING_HTML: Routes = dict.fromkeys(ASKED, "<html/>")


@contextmanager
def serving(routes: Routes) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = routes.get(self.path, 404)
            status = answer if isinstance(answer, int) else 200
            body = (
                b"" if isinstance(answer, int) else answer if isinstance(answer, str) else json.dumps(answer)
            )
            body = body.encode() if isinstance(body, str) else body
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def closed_port() -> Iterator[int]:
    """Bound but not listening: refuses, and cannot be taken by anybody else meanwhile."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


ALL = ("ollama", "vllm", "llamacpp", "tgi")


@pytest.mark.parametrize(
    ("routes", "name", "dialect", "slots"),
    [
        (OLLAMA, "ollama", "ollama", 4),
        (OLD_OLLAMA, "ollama", "ollama", 4),
        (VLLM, "vllm", "vllm", 64),
        (LLAMACPP, "llamacpp", "llama.cpp", 3),
        (LLAMACPP_LOCKED, "llamacpp", "llama.cpp", 4),
        (TGI, "tgi", "tgi", 64),
        (TEI, "tei", "tgi", 64),
    ],
)
async def test_an_engine_is_recognised(routes: Routes, name: str, dialect: str, slots: int) -> None:
    with serving(routes) as port:
        found = await discover({}, places=[Place(port, ALL)])
    (backend,) = found.backends
    assert (backend.name, backend.dialect, backend.slots) == (name, dialect, slots)
    assert backend.kind is Kind.LOCAL
    assert backend.url == f"http://127.0.0.1:{port}"


async def test_an_embedding_server_is_not_asked_to_chat() -> None:
    with serving(TEI) as tei, serving(TGI) as tgi:
        found = await discover({}, places=[Place(tei, ("tgi",)), Place(tgi, ("tgi",))])
    embeddings, chat = found.backends
    assert embeddings.operations == (Operation.EMBEDDINGS,)
    assert (embeddings.models, embeddings.max_inputs) == ((), 32)
    assert Operation.EMBEDDINGS not in chat.operations


async def test_an_engine_is_looked_for_only_at_its_own_places() -> None:
    with serving(VLLM) as port:
        found = await discover({}, places=[Place(port, ("ollama",))])
    assert found.backends == ()
    assert any(f"Port {port} answers, but not like" in note for note in found.notes)


@pytest.mark.parametrize("routes", [SOMEBODY, EVERYTHING_HTML])
async def test_another_server_is_left_alone(routes: Routes) -> None:
    with serving(routes) as port:
        found = await discover({}, places=[Place(port, ALL)])
    assert found.backends == ()
    assert any("left alone" in note for note in found.notes)


async def test_a_server_that_wants_a_key_is_named() -> None:
    with serving(VLLM_LOCKED) as port:
        found = await discover({}, places=[Place(port, ("vllm",))])
    assert found.backends == ()
    assert any("asks for a key" in note and str(port) in note for note in found.notes)


async def test_two_of_a_kind_get_two_names() -> None:
    with serving(TGI) as one, serving(TGI) as two:
        found = await discover({}, places=[Place(one, ("tgi",)), Place(two, ("tgi",))])
    assert [backend.name for backend in found.backends] == ["tgi", f"tgi-{two}"]


async def test_nothing_found_says_what_to_do(tmp_path: Path) -> None:
    with closed_port() as port:
        found = await discover({}, places=[Place(port, ALL)], model_folder=tmp_path / "none")
    assert found.backends == ()
    text = "\n".join(found.notes)
    assert "No chat model" in text
    assert str(port) in text
    assert "k9 model fetch minilm" in text


async def test_silent_servers_do_not_hold_it_up() -> None:
    with socket.socket() as one, socket.socket() as two:
        for silent in (one, two):
            silent.bind(("127.0.0.1", 0))
            silent.listen()
        places = [Place(silent.getsockname()[1], ALL) for silent in (one, two)]
        started = time.monotonic()
        found = await discover({}, places=places, timeout=0.1)
        assert time.monotonic() - started < 2.0
    assert found.backends == ()


async def test_a_proxy_of_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(OLLAMA) as port, closed_port() as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy}")
        monkeypatch.delenv("NO_PROXY", raising=False)
        found = await discover({}, places=[Place(port, ("ollama",))])
    assert [backend.name for backend in found.backends] == ["ollama"]


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({"OPENAI_API_KEY": "word"}, "https://api.openai.com"),
        ({"OPENAI_API_KEY": "word", "OPENAI_BASE_URL": ""}, "https://api.openai.com"),
        (
            {"OPENAI_API_KEY": "word", "OPENAI_BASE_URL": "https://gateway.example/v1/"},
            "https://gateway.example",
        ),
        (
            {"OPENAI_API_KEY": "word", "OPENAI_BASE_URL": "https://openrouter.example/api/v1"},
            "https://openrouter.example/api",
        ),
        ({"OPENAI_API_KEY": ""}, None),
        ({"OPENAI_API_KEY": "word", "OPENAI_BASE_URL": "http://localhost:8765/v1"}, None),
        ({"OPENAI_API_KEY": "word", "OPENAI_BASE_URL": "http://127.0.0.1:8765/v1"}, None),
        ({"OPENAI_API_KEY": "word", "OPENAI_BASE_URL": "nonsense"}, None),
    ],
)
async def test_a_cloud_key_offers_its_cloud(environ: dict[str, str], url: str | None) -> None:
    found = await discover(environ, places=[])
    assert [backend.url for backend in found.backends] == ([url] if url else [])
    for backend in found.backends:
        assert backend.kind is Kind.CLOUD
        assert backend.api_key_env == "OPENAI_API_KEY"
        assert "word" not in backend.model_dump_json()


@pytest.mark.parametrize(
    ("environ", "dialect", "url"),
    [
        ({}, "openai", "https://api.openai.com"),
        ({"OPENAI_BASE_URL": "https://gateway.example/v1"}, "openai-compatible", "https://gateway.example"),
    ],
)
async def test_openai_itself_is_spoken_to_in_its_own_dialect(
    environ: dict[str, str], dialect: str, url: str
) -> None:
    (backend,) = (await discover({"OPENAI_API_KEY": "word", **environ}, places=[])).backends
    assert (backend.dialect, backend.url) == (dialect, url)


async def test_an_anthropic_key_offers_anthropic() -> None:
    (backend,) = (await discover({"ANTHROPIC_API_KEY": "secret-word"}, places=[])).backends
    assert (backend.name, backend.dialect, backend.kind) == ("anthropic", "anthropic", Kind.CLOUD)
    assert (backend.url, backend.api_key_env) == ("https://api.anthropic.com", "ANTHROPIC_API_KEY")
    here = {"ANTHROPIC_API_KEY": "secret-word", "ANTHROPIC_BASE_URL": "http://127.0.0.1:8765"}
    assert (await discover(here, places=[])).backends == ()


AZURE = {"AZURE_OPENAI_API_KEY": "secret-word", "AZURE_OPENAI_ENDPOINT": "https://mine.openai.azure.com/"}


@pytest.mark.parametrize(
    ("variable", "said", "models"),
    [
        ("AZURE_OPENAI_DEPLOYMENTS", "chat-4o, embed ,", ("chat-4o", "embed")),
        ("AZURE_OPENAI_DEPLOYMENT", "chat-4o", ("chat-4o",)),
        ("AZURE_OPENAI_DEPLOYMENT_NAME", "chat-4o", ("chat-4o",)),
    ],
)
async def test_azure_is_offered_with_its_deployments(
    variable: str, said: str, models: tuple[str, ...]
) -> None:
    environ = {**AZURE, variable: said, "OPENAI_API_VERSION": "2024-10-21"}
    (backend,) = (await discover(environ, places=[])).backends
    assert (backend.name, backend.dialect, backend.models) == ("azure", "azure", models)
    assert backend.url == "https://mine.openai.azure.com"
    assert backend.options == {"api_version": "2024-10-21"}


@pytest.mark.parametrize("missing", ["AZURE_OPENAI_ENDPOINT", "AZURE_OPENAI_DEPLOYMENTS"])
async def test_azure_of_which_something_is_unknown_is_named_and_not_offered(missing: str) -> None:
    environ = {**AZURE, "AZURE_OPENAI_DEPLOYMENTS": "chat"}
    del environ[missing]
    found = await discover(environ, places=[])
    assert found.backends == ()
    (note,) = [note for note in found.notes if "AZURE_OPENAI_API_KEY is set" in note]
    assert missing in note
    assert 'dialect = "azure"' in note
    assert "secret-word" not in "".join(found.notes)


async def test_order_is_engines_then_the_embedded_model_then_clouds(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    with serving(OLLAMA) as ollama, serving(VLLM) as vllm:
        places = [Place(ollama, ("ollama",)), Place(vllm, ("vllm",))]
        found = await discover({"OPENAI_API_KEY": "word"}, places=places, model_folder=tmp_path)
    assert [backend.name for backend in found.backends] == ["ollama", "vllm", "embedded", "openai"]
    assert found.notes == ()


async def test_the_embedded_model_is_offered_for_embeddings_alone(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    found = await discover({}, places=[], model_folder=tmp_path)
    (backend,) = found.backends
    assert (backend.dialect, backend.operations, backend.slots) == ("embedded", (Operation.EMBEDDINGS,), 2)
    assert any("No chat model" in note for note in found.notes)


async def test_configured_backends_are_taken_as_they_are(tmp_path: Path) -> None:
    mine = Backend(name="mine", dialect="openai-compatible", url="http://gpu:1", api_key_env="MY_KEY")
    settings = Settings(backends=(mine,), state_dir=tmp_path)
    assert (await resolve(settings, {"MY_KEY": "x", "OPENAI_API_KEY": "y"})) == Found((mine,))
    (note,) = (await resolve(settings, {})).notes
    assert "MY_KEY" in note


def test_backends_are_picked_by_name_in_their_order() -> None:
    a, b, c = (Backend(name=name, dialect="fake", url="http://x") for name in "abc")
    assert pick(Found((a, b, c)), ["c", "a"]).backends == (a, c)
    with pytest.raises(ConfigurationError, match=r"no backend 'z'.*a, b, c"):
        pick(Found((a, b, c)), ["z"])


async def test_a_dialect_nobody_knows_is_told_before_anything_starts() -> None:
    odd = Backend(name="odd", dialect="nonsense", url="http://127.0.0.1:1")
    with pytest.raises(ConfigurationError, match="There is no dialect 'nonsense'"):
        await resolve(Settings(backends=(odd,)), {})
