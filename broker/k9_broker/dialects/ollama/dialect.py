"""The dialect `ollama`: Ollama's own API, which tells what its OpenAI surface leaves out.

An error in the middle of a stream, the context size, `keep_alive`: only `/api/…` has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic_core import from_json, to_json

from k9_broker.dialects import wire_errors
from k9_broker.dialects.base import JSON_HEADERS, Dialect, Options, StreamParser, WireRequest, unreadable
from k9_broker.dialects.ollama import answer
from k9_broker.dialects.ollama.request import request_body
from k9_broker.dialects.ollama.stream import OllamaStream
from k9_broker.errors import K9Error
from k9_broker.health import Load
from k9_broker.models import ModelCard
from k9_broker.requests import InferenceRequest, Operation
from k9_broker.results import Result

_PATHS = {
    Operation.CHAT: "/api/chat",
    Operation.COMPLETIONS: "/api/generate",
    Operation.EMBEDDINGS: "/api/embed",
}
_CAPABILITIES = {
    "completion": (Operation.CHAT, Operation.COMPLETIONS),
    "embedding": (Operation.EMBEDDINGS,),
}


class Ollama(Dialect):
    """Stateless. Backend options: `keep_alive`, `truncate`, `shift`, `raw`; all others, such as
    `num_ctx`, are runner options. Keep them constant: another `num_ctx` reloads the model.
    """

    operations = frozenset(_PATHS)

    def headers(self, key: str | None) -> dict[str, str]:
        return {"authorization": f"Bearer {key}"} if key else {}

    def build(self, request: InferenceRequest, options: Options) -> WireRequest:
        body = to_json(request_body(request, options))
        return WireRequest("POST", _PATHS[request.operation], body, JSON_HEADERS)

    def parse(self, request: InferenceRequest, body: bytes) -> Result:
        return answer.whole(request, body)

    def parser(self, request: InferenceRequest) -> StreamParser:
        return OllamaStream(request)

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> K9Error:
        return wire_errors.classify(
            wire_errors.read(status, _runners_own(body)), wire_errors.retry_after(headers)
        )

    def models_request(self, options: Options) -> WireRequest:
        return WireRequest("GET", "/api/tags")

    def parse_models(self, body: bytes) -> Mapping[str, ModelCard]:
        """Each model as listed, and without its tag where that is `latest`, as Ollama itself allows."""
        listed = answer.read(body).get("models")
        if not isinstance(listed, list):
            raise unreadable("has no list of models")
        return {name: ModelCard() for name in _names(listed)}

    def describe_request(self, model: str, options: Options) -> WireRequest | None:
        return WireRequest("POST", "/api/show", to_json({"model": model}), JSON_HEADERS)

    def parse_description(self, body: bytes, options: Options | None = None) -> ModelCard:
        """What `/api/show` says; a server too old to tell capabilities leaves them unknown.

        The context is what the model was made for or, where the backend's options or the model's own
        parameters set `num_ctx`, no more than that. Without either it is an upper bound: the server
        then decides by its memory, and refuses what is too long.
        """
        found = answer.read(body)
        capable = found.get("capabilities")
        capable = [word for word in capable if isinstance(word, str)] if isinstance(capable, list) else []
        made_for = _made_for(found.get("model_info"))
        set_to = _count((options or {}).get("num_ctx")) or _own_num_ctx(found.get("parameters"))
        bounds = [bound for bound in (made_for, set_to) if bound]
        writes = "completion" in capable
        return ModelCard(
            operations=tuple(one for word, some in _CAPABILITIES.items() if word in capable for one in some),
            context_window=min(bounds, default=None),
            tools="tools" in capable if capable else None,
            vision="vision" in capable if capable else None,
            json_schema=writes if capable else None,
            streaming=writes if capable else None,
            tags=("embedding",) if "embedding" in capable and not writes else (),
        )

    def load_request(self, options: Options) -> WireRequest | None:
        return WireRequest("GET", "/api/ps")

    def parse_load(self, body: bytes) -> Load:
        """Which models are in memory; how busy they are Ollama tells nobody."""
        try:
            found = from_json(body)
        except ValueError:
            return Load()
        listed = found.get("models") if isinstance(found, dict) else None
        return Load(loaded=tuple(_names(listed))) if isinstance(listed, list) else Load()


def _names(listed: list[Any]) -> list[str]:
    """The names in a list of models, and without the tag `latest`, each once."""
    names: dict[str, None] = {}
    for item in listed:
        name = item.get("name") or item.get("model") if isinstance(item, Mapping) else None
        if isinstance(name, str) and name:
            names |= {name: None, name.removesuffix(":latest"): None}
    return list(names)


def _made_for(info: Any) -> int | None:
    """Tokens of the context the model was trained for; the key begins with its architecture."""
    if not isinstance(info, Mapping):
        return None
    if told := _count(info.get(f"{info.get('general.architecture')}.context_length")):
        return told
    others = (_count(value) for key, value in info.items() if str(key).endswith(".context_length"))
    return next((told for told in others if told), None)


def _own_num_ctx(parameters: Any) -> int | None:
    """The `num_ctx` in a model's own parameters: text, a name and a value on each line."""
    if isinstance(parameters, str):
        for line in parameters.splitlines():
            name, _, value = line.strip().partition(" ")
            if name == "num_ctx" and value.strip().isdecimal():
                return int(value) or None
    return None


def _count(told: Any) -> int | None:
    return told if isinstance(told, int) and not isinstance(told, bool) and told > 0 else None


def _runners_own(body: bytes) -> bytes:
    """The error of the process that runs the model, which Ollama puts as JSON text into its own."""
    try:
        inner = from_json(from_json(body)["error"])
    except (ValueError, TypeError, KeyError):
        return body
    return to_json(inner) if isinstance(inner, dict) and inner.get("error") else body
