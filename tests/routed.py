"""K-9 with four backends to choose from, two here and two in a cloud, all played by one fake."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from fleets import CARDS, CODE, EMBED, LARGE, MINI, SMALL
from k9_broker.testing import FakeServer
from stack import Child, Stack
from stand import RedisProcess, free_port, wait_until

KEYS = {tenant: f"k-{tenant}" for tenant in ("default", "acme", "poor", "counted")}
"""The key of each tenant. `poor` may spend next to nothing; `counted` is for tests that count its jobs."""
BACKENDS = {
    "local-small": ("local", (SMALL, EMBED)),
    "local-code": ("local", (CODE,)),
    "cloud-large": ("cloud", (LARGE,)),
    "cloud-mini": ("cloud", (MINI,)),
}
POLICY: dict[str, Any] = {
    "K9_STRATEGIES": [{"name": "careful", "extends": "cost-first", "weights": {"quality": 0.5}}],
    "K9_RULES": [{"name": "contracts stay", "when": {"tenant": "acme"}, "then": {"privacy": "local-only"}}],
    "K9_ALIASES": {"small": [SMALL, MINI], "nobody-has-it": ["unserved"]},
    "K9_TENANTS": {"poor": {"budget_usd_per_day": 0.000001, "strategy": "quality-first"}},
}


@dataclass
class Routed(Stack):
    """A stack whose backends, policy and keys are configured."""

    def env(self) -> dict[str, str]:
        backends = [
            {
                "name": name,
                "dialect": "fake",
                "url": self.fake.url,
                "kind": kind,
                "models": models,
                "cards": {model: CARDS[model].model_dump(mode="json") for model in models},
                "slots": 4,
                "max_waiting": 4,
            }
            for name, (kind, models) in BACKENDS.items()
        ]
        keys = ",".join(f"{tenant}:{key}" for tenant, key in KEYS.items())
        policy = {name: json.dumps(value) for name, value in POLICY.items()}
        return {**super().env(), **policy, "K9_BACKENDS": json.dumps(backends), "K9_API_KEYS": keys}

    def start_worker(self, node: str = "local-small", **changes: Any) -> Child:
        """The worker of the backend `node`."""
        env = {**self.env(), "K9_BACKEND": node}
        self.workers[node] = Child(f"worker-{node}", ["k9_workers"], env, self.folder).start()
        return self.workers[node]

    def client(self, tenant: str = "default") -> httpx.Client:
        """HTTP with the tenant's key."""
        return httpx.Client(
            base_url=self.url, headers={"authorization": f"Bearer {KEYS[tenant]}"}, timeout=20
        )

    def wait_ready(self, workers: int | None = None) -> Routed:
        expected = len(self.workers) if workers is None else workers

        def ready() -> bool:
            try:
                with self.client() as http:
                    data = http.get("/v1/queues").json()["data"]
            except (httpx.TransportError, KeyError):
                return False
            return sum(one["workers"] for one in data if one["models"]) >= expected

        wait_until(ready, f"{expected} workers and the API are ready", 60)
        return self


def start(folder: Path) -> Routed:
    redis = RedisProcess(folder, free_port()).start()
    fake = FakeServer(models=[model for _, models in BACKENDS.values() for model in models])
    routed = Routed(folder, redis, fake)
    for name in BACKENDS:
        routed.start_worker(name)
    routed.start_api()
    return routed
