"""Requests captured from real clients, replayed: each authenticates, and parses where K-9 has its surface.

Those for surfaces that K-9 does not have yet are named here, and get a clean 404 in their caller's envelope.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import Request

from k9_api.app import create_app
from k9_api.auth import DEFAULT_TENANT, Keys
from k9_broker.jobs import Job
from k9_broker.requests import InferenceRequest, Operation
from k9_broker.settings import JobSettings, Settings
from k9_broker.snapshot import Snapshot
from k9_broker.strategy.decision import Decision
from scripted import VIEW, Scripted, Step, chunk, end, running
from serving import Served

pytestmark = pytest.mark.contracts

KEYS = ("sk-test", "sk-ant-test", "azkey", "k")
MODELS = frozenset({"m", "dep1", "dummy", "claude-x", "org/model:tag"})
SERVED = {
    "openai-chat": Operation.CHAT,
    "openai-chat-stream": Operation.CHAT,
    "openai-embeddings": Operation.EMBEDDINGS,
    "langchain-chat": Operation.CHAT,
    "langchain-embeddings": Operation.EMBEDDINGS,
    "azure-chat": Operation.CHAT,
    "azure-v1-chat": Operation.CHAT,
    "mistral-chat": Operation.CHAT,
    "hf-chat": Operation.CHAT,
    "litellm-anthropic": Operation.CHAT,
    **{f"anthropic{major}-message": Operation.CHAT for major in range(3)},
    **{f"anthropic{major}-beta-message": Operation.CHAT for major in range(3)},
    "openai-model-retrieve": None,
}
"""What K-9 answers, by the operation it is."""
NOT_YET_OPENAI = {
    *("openai-files-upload", "openai-file-content", "openai-batch-create", "openai-responses"),
    *("hf-text-generation-stream", "ollama-chat", "ollama-embed", "litellm-ollama"),
}
NOT_YET_ANTHROPIC = {f"anthropic{major}-batch-results" for major in range(3)}
EVERY = sorted({*SERVED, *NOT_YET_OPENAI, *NOT_YET_ANTHROPIC})


@dataclass
class Recording(Scripted):
    """A broker that answers everything, and keeps what it was asked."""

    steps: list[Step] = field(default_factory=lambda: [running(), chunk("hi"), end()])
    asked: list[InferenceRequest] = field(default_factory=list)

    async def snapshot(self, *, fresh: bool = False) -> Snapshot:
        return Snapshot((replace(VIEW, models=MODELS),))

    async def admit(
        self, job_id: str, request: InferenceRequest, decision: Decision, *, waiter: str | None = None
    ) -> Job:
        self.asked.append(request)
        return await super().admit(job_id, request, decision, waiter=waiter)


@dataclass(frozen=True)
class Api:
    url: str
    broker: Recording


def api(keys: str) -> Iterator[Api]:
    broker = Recording()

    async def opener(url: str, jobs: JobSettings) -> Recording:
        return broker

    with Served(create_app(Settings(api_keys=keys), "redis://127.0.0.1:1/0", opener=opener)) as served:
        yield Api(served.url, broker)


@pytest.fixture(scope="module")
def keyed() -> Iterator[Api]:
    """An API that everyone needs a key for, and that knows those of the captured clients."""
    yield from api(",".join(f"acme:{key}" for key in KEYS))


@pytest.fixture(scope="module")
def keyless() -> Iterator[Api]:
    """An API without keys, as some clients expect it."""
    yield from api("")


def captured(contracts: Path, name: str) -> dict[str, Any]:
    return dict(json.loads((contracts / "examples" / f"client-{name}.json").read_text())["request"])


def has_key(request: dict[str, Any]) -> bool:
    return bool({"authorization", "x-api-key", "api-key"} & request["headers"].keys())


def replay(api: Api, request: dict[str, Any]) -> httpx.Response:
    raw = json.dumps(request["json"]) if "json" in request else request["text"]
    headers = {name: value for name, value in request["headers"].items() if name != "accept-encoding"}
    with httpx.Client(timeout=10) as client:
        url = api.url + request["path"]
        return client.request(request["method"], url, content=raw.encode(), headers=headers)


def test_every_captured_request_is_here(contracts: Path) -> None:
    found = {path.stem.removeprefix("client-") for path in (contracts / "examples").glob("client-*.json")}
    assert found == set(EVERY)
    assert len(found) == len(SERVED) + len(NOT_YET_OPENAI) + len(NOT_YET_ANTHROPIC) == 28


@pytest.mark.parametrize("name", EVERY)
def test_each_authenticates(contracts: Path, name: str) -> None:
    request = captured(contracts, name)
    headers = [(key.encode(), value.encode()) for key, value in request["headers"].items()]
    scope = {"type": "http", "method": request["method"], "path": "/", "headers": headers}
    keys = Keys(dict.fromkeys(KEYS, "acme") if has_key(request) else {})
    assert keys.tenant(Request(scope)) == ("acme" if has_key(request) else DEFAULT_TENANT)


@pytest.mark.parametrize("name", SERVED)
def test_each_parses_and_is_answered(contracts: Path, keyed: Api, keyless: Api, name: str) -> None:
    request = captured(contracts, name)
    one = keyed if has_key(request) else keyless
    one.broker.asked.clear()
    reply = replay(one, request)
    assert reply.status_code == 200, reply.text
    operation = SERVED[name]
    if operation is None:
        assert reply.json()["id"] == "org/model:tag"
        return
    [asked] = one.broker.asked
    assert (asked.operation, asked.model) == (operation, request["json"]["model"])
    assert asked.tenant == ("acme" if has_key(request) else DEFAULT_TENANT)
    assert asked.stream == bool(request["json"].get("stream"))
    if operation is Operation.CHAT:
        assert asked.body["messages"] == [{"content": "hi", "role": "user"}]
    else:
        assert asked.body["input"] == request["json"]["input"]
    if "messages" in request["path"]:
        assert reply.json()["type"] == "message"
        assert asked.body["max_completion_tokens"] == request["json"]["max_tokens"]


@pytest.mark.parametrize("name", sorted(NOT_YET_OPENAI | NOT_YET_ANTHROPIC))
def test_the_others_are_not_found_in_their_own_words(
    contracts: Path, keyed: Api, keyless: Api, name: str
) -> None:
    request = captured(contracts, name)
    reply = replay(keyed if has_key(request) else keyless, request)
    assert reply.status_code == 404
    error = reply.json()["error"]
    if name in NOT_YET_ANTHROPIC:
        assert (reply.json()["type"], error["type"]) == ("error", "not_found_error")
        assert reply.headers["request-id"]
    else:
        assert error.keys() == {"message", "type", "param", "code"}
        assert error["code"] == "not_found"


@pytest.mark.parametrize("name", sorted(set(SERVED) - {"hf-chat"}))
def test_with_another_key_each_is_refused(contracts: Path, keyed: Api, name: str) -> None:
    request = captured(contracts, name)
    for header in ("authorization", "x-api-key", "api-key"):
        if header in request["headers"]:
            request["headers"][header] = request["headers"][header] + "-wrong"
    reply = replay(keyed, request)
    assert reply.status_code == 401
    anthropic = "anthropic-version" in request["headers"]
    assert ("type" in reply.json()) is anthropic
