"""K-9 with a backend for every wire, each played by a fake that wants a key, and a spare one in a cloud."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from k9_broker.adapters.connect import Commands, connect
from k9_broker.adapters.redis_fleet import RedisFleet
from k9_broker.testing import FakeServer
from stack import Stack
from stand import RedisProcess, free_port, wait_until

WIRES: Mapping[str, tuple[str, str]] = {
    "openai": ("openai", "openai"),
    "azure": ("azure", "openai"),
    "anthropic": ("anthropic", "plain"),
    "ollama": ("ollama", "plain"),
    "compatible": ("openai-compatible", "plain"),
    "vllm": ("vllm", "vllm"),
    "llamacpp": ("llama.cpp", "llamacpp"),
    "tgi": ("tgi", "tgi"),
    "tei": ("tgi", "tei"),
}
"""Backend → its dialect, and the flavour of its fake."""
CHATTING = tuple(name for name in WIRES if name != "tei")
EMBEDDING = ("openai", "azure", "ollama", "compatible", "vllm", "llamacpp", "tei")
SPARE = "spare"
LIMITED = "limited"
"""A backend to be held up for a minute by a limit of rate."""
ORG_MODEL = "org/model:tag"
CLIENT_KEY, UPSTREAM_KEY = "client-key-of-traps", "upstream-key-of-traps"
HELLO = [{"role": "user", "content": "hello"}]
LOOK: dict[str, Any] = {
    "name": "look",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
WAIT: dict[str, Any] = {"name": "wait", "parameters": {"type": "object", "properties": {}}}
TOOLS: list[dict[str, Any]] = [{"type": "function", "function": LOOK}, {"type": "function", "function": WAIT}]
USE_BOTH = [{"role": "user", "content": "Please use the tool look, then use the tool wait."}]


def only(name: str) -> str:
    """The model that one backend alone has."""
    return f"only-{name}"


def twin(name: str) -> str:
    """The model that the spare backend has too."""
    return f"twin-{name}"


MODELS: Mapping[str, tuple[str, ...]] = {
    **{name: (only(name), twin(name)) for name in WIRES},
    "compatible": (only("compatible"), twin("compatible"), ORG_MODEL),
    SPARE: tuple(map(twin, WIRES)),
    LIMITED: (only(LIMITED),),
}


@dataclass
class Menagerie(Stack):
    """The stack; `fakes` by the backend's name."""

    fakes: dict[str, FakeServer] = field(default_factory=dict)
    http: httpx.Client = field(default_factory=httpx.Client)

    def start_all(self) -> Menagerie:
        self.extra |= {"K9_API_KEYS": f"traps:{CLIENT_KEY}", "UPSTREAM_KEY": UPSTREAM_KEY}
        common = {"api_key_env": "UPSTREAM_KEY", "slots": 4, "probe_seconds": 0, "read_timeout": 20}
        for name, (dialect, _) in WIRES.items():
            models, url = MODELS[name], self.fakes[name].url
            self.start_worker(name, name=name, dialect=dialect, url=url, models=models, **common)
        limited = {"dialect": "openai", "url": self.fakes[LIMITED].url, "models": MODELS[LIMITED]}
        self.start_worker(LIMITED, name=LIMITED, **limited, **common)
        priced = {model: {"input_usd": 1.0, "output_usd": 1.0} for model in MODELS[SPARE]}
        self.start_worker(
            SPARE, name=SPARE, kind="cloud", dialect="openai-compatible", url=self.fakes[SPARE].url,
            models=MODELS[SPARE], cards=priced, **common,
        )  # fmt: skip
        self.start_api()
        key = {"authorization": f"Bearer {CLIENT_KEY}"}
        self.http = httpx.Client(base_url=self.url, headers=key, timeout=40)
        wait_until(self._all_there, "a worker for every wire, and the API", 100)
        return self

    def _all_there(self) -> bool:
        try:
            return sum(bool(one["workers"]) for one in self.queues().values()) == len(self.fakes)
        except (httpx.TransportError, KeyError):
            return False

    # -- asking ------------------------------------------------------------------------------------

    def chat(self, model: str, **more: Any) -> httpx.Response:
        return self.http.post("/v1/chat/completions", json={"model": model, "messages": HELLO, **more})

    def said(self, model: str, **more: Any) -> dict[str, Any]:
        """A good answer."""
        reply = self.chat(model, **more)
        assert reply.status_code == 200, reply.text
        return dict(reply.json())

    def frames(self, model: str, **more: Any) -> list[Any]:
        """The frames of a chat stream as the caller gets them, `[DONE]` as that text."""
        reply = self.chat(model, stream=True, **more)
        assert reply.status_code == 200, reply.text
        return events(reply.text)

    def queues(self) -> dict[str, dict[str, Any]]:
        return {one["backend"]: one for one in self.http.get("/v1/queues").json()["data"]}

    def job(self, job_id: str) -> dict[str, Any]:
        return dict(self.http.get(f"/v1/jobs/{job_id}").json())

    def ended_job(self, reply: httpx.Response) -> dict[str, Any]:
        """The record of the job behind an answer, once its worker has written it."""
        job_id = reply.headers["x-k9-job"]
        wait_until(lambda: self.job(job_id)["ended_at"], "the job has ended")
        return self.job(job_id)

    # -- the backends ------------------------------------------------------------------------------

    def inferences(self, *names: str) -> int:
        return sum(int(self.fakes[name].stats()["inferences"]) for name in names)

    def upstream(self, name: str) -> dict[str, Any]:
        """The last inference request that a backend got."""
        asked = [one for one in self.fakes[name].requests() if one["method"] == "POST"]
        return asked[-1]

    def reset_circuits(self, *names: str) -> None:
        """What `k9 backends reset` does."""

        async def publish() -> None:
            commands = Commands(connect(self.redis.url, retries=1))
            try:
                for name in names:
                    assert await RedisFleet(commands).reset(name) == 1
            finally:
                await commands.close()

        asyncio.run(publish())

    def mend(self, *names: str) -> None:
        """These backends as at the start: nothing wrong, nothing remembered, their circuits closed."""
        for name in names:
            self.fakes[name].reset()
        self.reset_circuits(*names)

        def fit() -> bool:
            queues = self.queues()
            return not any(queues[name]["down"] or queues[name]["in_flight"] for name in names)

        wait_until(fit, f"{names} are fit")

    def stop(self) -> None:
        try:
            self.http.close()
            for child in self.workers.values():  # all at once: each takes a second to leave
                if child.alive:
                    child.send(signal.SIGTERM)
            super().stop()
        finally:
            for fake in self.fakes.values():
                fake.stop()


def events(text: str) -> list[Any]:
    """The data of OpenAI's frames; comments are left out."""
    blocks = [block for block in text.split("\n\n") if block and not block.startswith(":")]
    assert all(block.startswith("data: ") for block in blocks), blocks
    found = [block.removeprefix("data: ") for block in blocks]
    return [one if one == "[DONE]" else json.loads(one) for one in found]


def menagerie(folder: Path) -> Menagerie:
    """A running one; stop it."""
    flavours = {name: flavour for name, (_, flavour) in WIRES.items()}

    def fake(name: str) -> tuple[str, FakeServer]:
        flavour = flavours.get(name, "plain")
        return name, FakeServer(flavour=flavour, models=MODELS[name], api_key=UPSTREAM_KEY)

    with ThreadPoolExecutor(4) as pool:
        fakes = dict(pool.map(fake, MODELS))
    started = Menagerie(folder, RedisProcess(folder, free_port()).start(), fakes["openai"], fakes=fakes)
    try:
        return started.start_all()
    except BaseException:
        started.stop()
        raise
