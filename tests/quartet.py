"""K-9 with four fake backends that play a small and a code model here, a large and a mini one in a cloud."""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fleets import CODE, EMBED, LARGE, MINI, SMALL
from k9_broker.testing import FakeServer
from stack import Child, Stack, ask
from stand import RedisProcess, free_port, wait_until

ROLES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "local-small": ("local", (SMALL, EMBED)),
    "local-code": ("local", (CODE,)),
    "cloud-large": ("cloud", (LARGE,)),
    "cloud-mini": ("cloud", (MINI,)),
}
SLOTS, MARK = 4, 4
LOCAL = ("local-small", "local-code")
CLOUD = ("cloud-large", "cloud-mini")


@dataclass
class Answer:
    """What K-9 answered, and what it says of the job."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: Any = field(repr=False)

    @property
    def backend(self) -> str:
        return self.headers.get("x-k9-backend", "")

    @property
    def reason(self) -> str:
        return self.headers.get("x-k9-reason", "")

    @property
    def job(self) -> str:
        return self.headers["x-k9-job"]

    @property
    def where(self) -> tuple[str, str]:
        """Backend and reason of a good answer."""
        assert self.status == 200, self.body
        return self.backend, self.reason


@dataclass
class Quartet(Stack):
    """The stack. `fake` plays the first role, `others` the rest; each tenant's key is `key-TENANT`."""

    others: dict[str, FakeServer] = field(default_factory=dict)

    @property
    def fakes(self) -> dict[str, FakeServer]:
        return {"local-small": self.fake, **self.others}

    def start_all(self, config: str, tenants: tuple[str, ...]) -> Quartet:
        (self.folder / "k9.toml").write_text(config, encoding="utf-8")
        self.extra["K9_API_KEYS"] = ",".join(f"{tenant}:key-{tenant}" for tenant in tenants)
        for order, (name, (kind, models)) in enumerate(ROLES.items()):
            self.extra["K9_BACKEND_ORDER"] = str(order)
            self.start_worker(
                name,
                name=name,
                kind=kind,
                models=models,
                url=self.fakes[name].url,
                slots=SLOTS,
                max_waiting=MARK if kind == "local" else 256,
            )
        self.start_api()
        wait_until(self._ready, "four workers and the API are ready", 90)
        return self

    def start_worker(self, node: str = "w1", **changes: Any) -> Child:
        """As the parent does; the node is named after the backend, so that each has its own."""
        return super().start_worker(node, **changes)

    def _ready(self) -> bool:
        return sum(one["workers"] for one in self.queues().values() if one["models"]) == len(ROLES)

    def queues(self) -> dict[str, dict[str, Any]]:
        status, _, said = ask(f"{self.url}/v1/queues", headers=self.key())
        return {one["backend"]: one for one in said["data"]} if status == 200 else {}

    @staticmethod
    def key(tenant: str = "plain") -> dict[str, str]:
        return {"authorization": f"Bearer key-{tenant}"}

    def post(self, path: str, body: Mapping[str, Any], tenant: str = "plain", **headers: str) -> Answer:
        """`headers` with underscores for hyphens: `x_k9_privacy="local-only"`."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        status, got, said = ask(self.url + path, dict(body), headers={**self.key(tenant), **sent})
        return Answer(status, {name.lower(): value for name, value in got.items()}, said)

    def chat(self, text: str, model: str = "auto", tenant: str = "plain", **more: Any) -> Answer:
        """One chat; `more` goes into the body, `k9` among it."""
        messages = [{"role": "user", "content": text}]
        return self.post("/v1/chat/completions", {"model": model, "messages": messages, **more}, tenant)

    def queue(self, text: str, model: str = "auto", tenant: str = "plain", **more: Any) -> Answer:
        """The same as a job that is not waited for; its id is the header `x-k9-job`."""
        body = {"model": model, "messages": [{"role": "user", "content": text}], **more}
        return self.post("/v1/jobs", {"endpoint": "/v1/chat/completions", "body": body}, tenant)

    def get(self, path: str, tenant: str = "plain") -> Any:
        status, _, said = ask(self.url + path, headers=self.key(tenant))
        assert status == 200, said
        return said

    def route(self, job: str, tenant: str = "plain") -> dict[str, Any]:
        """The decision that queued a job."""
        return dict(self.get(f"/v1/jobs/{urllib.parse.quote(job)}/route", tenant))

    def cancel(self, jobs: list[str], tenant: str = "plain") -> None:
        for job in jobs:
            ask(f"{self.url}/v1/jobs/{job}", method="DELETE", headers=self.key(tenant))

    def calls(self, *names: str) -> int:
        """How many inferences these backends were asked for since they were reset."""
        return sum(self.fakes[name].stats()["inferences"] for name in names)

    def depth(self, name: str) -> dict[str, int]:
        """Jobs `in_flight` and interactive ones `waiting` at a backend."""
        one = self.queues().get(name, {"in_flight": -1, "waiting": {"interactive": -1}})
        return {"in_flight": one["in_flight"], "waiting": one["waiting"]["interactive"]}

    def reset(self) -> None:
        """Backends as at the start, nothing waiting and nothing running."""

        def idle() -> bool:
            depths = [self.depth(name) for name in ROLES]
            return not any(sum(depth.values()) for depth in depths) and not any(
                fake.stats()["active"] for fake in self.fakes.values()
            )

        wait_until(idle, "nothing waits and nothing runs")
        for fake in self.fakes.values():
            fake.reset()

    def stop(self) -> None:
        try:
            super().stop()
        finally:
            for fake in self.others.values():
                fake.stop()


def quartet(folder: Path, config: str, tenants: tuple[str, ...]) -> Quartet:
    """A running one; stop it."""
    redis = RedisProcess(folder, free_port()).start()
    fakes = {name: FakeServer(models=list(models)) for name, (_, models) in ROLES.items()}
    first = fakes.pop("local-small")
    started = Quartet(folder, redis, first, slots=SLOTS, others=fakes)
    try:
        return started.start_all(config, tenants)
    except BaseException:
        started.stop()
        raise
