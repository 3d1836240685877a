"""K-9 as processes in front of real servers: one backend of the dialect `llama.cpp` for each."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from real.llama import LlamaServer
from stack import Child, Stack, ask

SLOTS = {"quick": 8, "narrow": 2, "fragile": 2, "vectors": 4, "router": 1}
"""Slots of each server, and of the backend of the same name."""


@dataclass
class Served(Stack):
    """A stack whose backends are real servers. They are not its own to stop."""

    fake: Any = None
    servers: dict[str, LlamaServer] = field(default_factory=dict)

    def env(self) -> dict[str, str]:
        backends = [
            {
                "name": name,
                "dialect": "llama.cpp",
                "url": server.url,
                "slots": SLOTS[name],
                "probe_seconds": 3,
                # One name that no server has: what a stale configuration says.
                "models": ["cold-a", "cold-b", "ghost"] if name == "router" else [name],
            }
            for name, server in self.servers.items()
        ]
        return {**super().env(), "K9_BACKENDS": json.dumps(backends)}

    def start_worker(self, node: str = "quick", **changes: Any) -> Child:
        """The worker of the backend `node`."""
        env = {**self.env(), "K9_BACKEND": node}
        self.workers[node] = Child(f"worker-{node}", ["k9_workers"], env, self.folder).start()
        return self.workers[node]

    def queue(self, name: str) -> dict[str, Any]:
        """What `/v1/queues` says of one backend."""
        listed = self.get("/v1/queues")["data"]
        return next(one for one in listed if one["backend"] == name)

    def get(self, path: str) -> Any:
        status, _, said = ask(self.url + path)
        assert status == 200, said
        return said

    def stop(self) -> None:
        for child in [self.api, *self.workers.values()]:
            if child is not None:
                child.stop(seconds=10)
        self.redis.stop()
