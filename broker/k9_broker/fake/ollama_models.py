"""What Ollama tells of its models: installed, loaded, described."""

from __future__ import annotations

from collections.abc import Collection
from hashlib import sha256
from typing import Any

from pydantic_core import to_json

from k9_broker.fake.faults import Behaviour
from k9_broker.fake.script import Reply

VERSION = "0.32.1"
"""The server whose wire format this is."""

JSON = "application/json; charset=utf-8"
TEXT = "text/plain; charset=utf-8"
CREATED = "2023-11-14T22:13:20Z"
PATHS = frozenset(("/", "/api/version", "/api/tags", "/api/ps"))
"""Where `inventory` finds something."""

_LONG_AFTER = "2318-12-31T00:00:00Z"
_SIZE = 2_019_393_189


def inventory(path: str, behaviour: Behaviour, loaded: Collection[str]) -> Reply | None:
    """What `GET` finds at `PATHS`; `None` elsewhere."""
    match path:
        case "/":
            return Reply(b"Ollama is running", content_type=TEXT)
        case "/api/version":
            return Reply(to_json({"version": VERSION}), content_type=JSON)
        case "/api/tags":
            listed = [{**_listed(name), "modified_at": CREATED} for name in behaviour.models]
            return Reply(to_json({"models": listed}), content_type=JSON)
        case "/api/ps":
            extra = {"expires_at": _LONG_AFTER, "size_vram": _SIZE}
            extra["context_length"] = behaviour.context_tokens or 4096
            running = [{**_listed(name), **extra} for name in behaviour.models if name in loaded]
            return Reply(to_json({"models": running}), content_type=JSON)
    return None


def described(behaviour: Behaviour) -> Reply:
    """What `/api/show` says of any model."""
    abilities = ["completion", "tools", "embedding"]
    body = {
        "details": _details(),
        "model_info": {
            "general.architecture": "fake",
            "fake.context_length": behaviour.context_tokens or 131_072,
            "fake.embedding_length": behaviour.dimensions,
        },
        "capabilities": [*abilities, "thinking"] if behaviour.reasoning_tokens else abilities,
    }
    return Reply(to_json(body), content_type=JSON)


def _tagged(name: str) -> str:
    return name if ":" in name else f"{name}:latest"


def _details() -> dict[str, Any]:
    return {
        "parent_model": "",
        "format": "gguf",
        "family": "fake",
        "families": ["fake"],
        "parameter_size": "3.2B",
        "quantization_level": "Q4_K_M",
    }


def _listed(name: str) -> dict[str, Any]:
    tagged = _tagged(name)
    digest = sha256(tagged.encode()).hexdigest()
    return {"name": tagged, "model": tagged, "size": _SIZE, "digest": digest, "details": _details()}
