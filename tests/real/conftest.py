"""Real servers for the whole session, and K-9 in front of them."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import OpenAI

from k9_broker.backends import Backend
from k9_broker.minilm.model import MiniLM
from k9_broker.ports import Caller
from k9_broker.settings import load_settings
from k9_workers.callers import build_caller
from real import gguf_models
from real.llama import LlamaServer, binary
from real.served import SLOTS, Served
from stand import RedisProcess, free_port

CONTEXT = 4096
"""Tokens one slot of a chat server has room for."""


@pytest.fixture(scope="session")
def minilm_folder() -> Path:
    """The embedding model's folder; skips without it, fails in CI."""
    folder = load_settings().model_folder
    if not (folder / "model.safetensors").is_file():
        why = f"no model in {folder}: `k9 model fetch minilm`, or name its folder in K9_EMBED_MODEL"
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    return folder


@pytest.fixture(scope="session")
def minilm(minilm_folder: Path) -> MiniLM:
    """The model as K-9 itself runs it."""
    return MiniLM.load(minilm_folder, "numpy")


Launch = Callable[..., LlamaServer]


@pytest.fixture(scope="session")
def launch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launch]:
    """Starts llama-servers, which live to the end of the session."""
    program, folder = binary(), tmp_path_factory.mktemp("llama")
    servers: list[LlamaServer] = []

    def launch(name: str, *words: str) -> LlamaServer:
        server = LlamaServer(program, folder, name, words)
        servers.append(server)
        return server.start()

    yield launch
    for server in servers:
        server.stop()


@pytest.fixture(scope="session")
def llama_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random chat model."""
    return gguf_models.write_llama(tmp_path_factory.mktemp("gguf") / "random.gguf", context=CONTEXT)


@pytest.fixture(scope="session")
def chat_server(launch: Launch, llama_gguf: Path) -> Callable[..., LlamaServer]:
    """Starts a server of the random chat model, which it offers under the server's own name."""

    def start(name: str, *words: str) -> LlamaServer:
        slots = SLOTS.get(name, 1)
        room = ("--parallel", str(slots), "--ctx-size", str(slots * CONTEXT))
        return launch(name, "--model", str(llama_gguf), "--alias", name, *room, *words)

    return start


@pytest.fixture(scope="session")
def quick(chat_server: Callable[..., LlamaServer]) -> LlamaServer:
    """A chat server with room for all."""
    return chat_server("quick")


@pytest.fixture(scope="session")
def narrow(chat_server: Callable[..., LlamaServer]) -> LlamaServer:
    """A chat server with two slots, for tests of who waits where."""
    return chat_server("narrow")


@pytest.fixture(scope="session")
def fragile(chat_server: Callable[..., LlamaServer]) -> LlamaServer:
    """A chat server to be killed; the test that does starts it again."""
    return chat_server("fragile")


@pytest.fixture(scope="session")
def locked(chat_server: Callable[..., LlamaServer]) -> LlamaServer:
    """A chat server that wants the key `right`."""
    return chat_server("locked", "--api-key", "right")


@pytest.fixture(scope="session")
def vectors(launch: Launch, minilm_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> LlamaServer:
    """all-MiniLM-L6-v2 behind a real server."""
    gguf = gguf_models.write_minilm(minilm_folder, tmp_path_factory.mktemp("gguf") / "minilm.gguf")
    words = ("--embeddings", "--pooling", "mean", "--parallel", str(SLOTS["vectors"]))
    return launch("vectors", "--model", str(gguf), "--alias", "vectors", *words)


@pytest.fixture(scope="session")
def router(launch: Launch, tmp_path_factory: pytest.TempPathFactory) -> LlamaServer:
    """Two models behind one port, of which one at a time is loaded: by the request that wants it."""
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("cold-a", "cold-b")):
        gguf_models.write_llama(folder / f"{name}.gguf", context=512, seed=seed)
    return launch("router", "--models-dir", str(folder), "--models-max", "1", "--parallel", "1")


@pytest.fixture(scope="session")
def served(
    quick: LlamaServer,
    narrow: LlamaServer,
    fragile: LlamaServer,
    vectors: LlamaServer,
    router: LlamaServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Served]:
    """K-9 with a worker for each of the servers."""
    folder = tmp_path_factory.mktemp("served")
    redis = RedisProcess(folder, free_port()).start()
    servers = {server.name: server for server in (quick, narrow, fragile, vectors, router)}
    running = Served(folder, redis, servers=servers)
    for name in servers:
        running.start_worker(name)
    running.start_api()
    try:
        yield running.wait_ready()
    finally:
        running.stop()


@pytest.fixture(scope="session")
def sdk(served: Served) -> Iterator[OpenAI]:
    """OpenAI's own client, which asks K-9."""
    with OpenAI(base_url=f"{served.url}/v1", api_key="any", max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture
def http(served: Served) -> Iterator[httpx.Client]:
    """A bare HTTP client of K-9's API."""
    with httpx.Client(base_url=served.url, timeout=60) as client:
        yield client


@pytest.fixture
async def caller_of(tmp_path: Path) -> AsyncIterator[Callable[..., Caller]]:
    """Makes callers as a worker does, without a queue before them; closes them."""
    async with AsyncExitStack() as stack:

        def make(server: LlamaServer, **more: Any) -> Caller:
            backend = Backend(
                name=server.name, dialect="llama.cpp", url=server.url, slots=SLOTS.get(server.name, 1), **more
            )
            caller = build_caller(backend, tmp_path)
            stack.push_async_callback(caller.close)
            return caller

        yield make
