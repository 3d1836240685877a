"""The dialect `vllm`: OpenAI's, and what vLLM has beside it or reads in its own way (written for 0.33)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from k9_broker.dialects.base import Options, WireRequest, read_models
from k9_broker.dialects.exposition import samples
from k9_broker.dialects.openai.dialect import OpenAICompatible
from k9_broker.dialects.openai.request import GUIDED, Server
from k9_broker.dialects.parameters import unsupported
from k9_broker.health import Load
from k9_broker.models import ModelCard
from k9_broker.requests import Operation

_RUNNING = "vllm:num_requests_running"
_WAITING = "vllm:num_requests_waiting"
_FILLED = ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")
"""Of each engine, from 0 to 1; the second name is that of older releases."""
_GAUGES = tuple(name.encode() for name in (_RUNNING, _WAITING, *_FILLED))


class Vllm(OpenAICompatible):
    """vLLM ignores fields it does not know, so those of other servers are refused here.

    Backend options, beside those of `OpenAICompatible`:

    - `image_urls`: `true` lets vLLM fetch images by URL, from wherever it runs;
    - `load`: `false` leaves its `/metrics` alone.
    """

    server = Server(
        "vLLM",
        refuses=frozenset(
            {
                "functions",
                "function_call",
                "modalities",
                "audio",
                "web_search_options",
                "data_sources",
                "verbosity",
                "moderation",
                "grammar",
                "json_schema",
                "guided_decoding_backend",
                "best_of",
                "typical_p",
                "mirostat",
                "samplers",
                "embed_dtype",  # K-9 reads float32
                "endianness",
            }
        ),
        renames={
            "repeat_penalty": "repetition_penalty",
            "reasoning_budget_tokens": "thinking_token_budget",
            "thinking_budget_tokens": "thinking_token_budget",
        },
        most_tokens=None,
        reasoning="reasoning",
        developer=False,  # chat templates leave out messages of a role they do not know
        fetches=False,
    )

    def adapt(self, operation: Operation, body: dict[str, Any]) -> None:
        if operation is Operation.EMBEDDINGS:
            return
        if not body.keys().isdisjoint(GUIDED):
            moved = {word: body.pop(name) for name, word in GUIDED.items() if name in body}
            wished = body.get("structured_outputs") or {}
            if not isinstance(wished, Mapping):
                raise unsupported(self.server.name, "structured_outputs")
            body["structured_outputs"] = {**moved, **wished}
        if body.get("reasoning_effort") == "none" and operation is Operation.CHAT:
            wished = body.get("chat_template_kwargs")
            wished = wished if isinstance(wished, Mapping) else {}
            body["chat_template_kwargs"] = {"enable_thinking": False, **wished}

    def parse_models(self, body: bytes) -> Mapping[str, ModelCard]:
        """The base models and their LoRA adapters, which have their base's context."""
        items = read_models(body)
        return {
            name: self.card({**items.get(str(item.get("parent")), {}), **_told(item)})
            for name, item in items.items()
        }

    def card(self, item: Mapping[str, Any]) -> ModelCard:
        length = item.get("max_model_len")
        known = isinstance(length, int) and not isinstance(length, bool) and length > 0
        return ModelCard(context_window=length if known else None)

    def load_request(self, options: Options) -> WireRequest | None:
        return None if options.get("load") is False else WireRequest("GET", "/metrics")

    def parse_load(self, body: bytes) -> Load:
        """Requests of all engines together, and how full their memory is on average."""
        lines = (line for line in body.split(b"\n") if line.startswith(_GAUGES))
        values: dict[str, list[float]] = {}
        for name, _, value in samples(b"\n".join(lines)):
            if 0 <= value < 1e9:
                values.setdefault(name, []).append(value)
        filled = next((values[name] for name in _FILLED if name in values), None)
        return Load(
            running=int(sum(values[_RUNNING])) if _RUNNING in values else None,
            waiting=int(sum(values[_WAITING])) if _WAITING in values else None,
            saturation=min(1.0, sum(filled) / len(filled)) if filled else None,
        )


def _told(item: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in item.items() if value is not None}
