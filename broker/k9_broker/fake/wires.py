"""Which wire a request speaks: its path says so, and where several servers share a path the flavour."""

from __future__ import annotations

from collections.abc import Mapping

from k9_broker.fake.anthropic_wire import AnthropicWire
from k9_broker.fake.azure_wire import AzureWire
from k9_broker.fake.faults import Flavour
from k9_broker.fake.head import Head
from k9_broker.fake.llamacpp_wire import LlamaCppWire
from k9_broker.fake.ollama_wire import OllamaWire
from k9_broker.fake.openai_hosted import HostedWire
from k9_broker.fake.openai_wire import OpenAIWire
from k9_broker.fake.tei_wire import TeiWire
from k9_broker.fake.tgi_chat import TgiChatWire
from k9_broker.fake.tgi_wire import TgiWire
from k9_broker.fake.vllm_wire import VllmWire
from k9_broker.fake.wire import Wire

_OLLAMA, _ANTHROPIC, _AZURE, _TGI, _TEI = OllamaWire(), AnthropicWire(), AzureWire(), TgiWire(), TeiWire()

FLAVOURS: Mapping[Flavour, Wire] = {
    "plain": OpenAIWire(),
    "openai": HostedWire(),
    "vllm": VllmWire(),
    "tgi": TgiChatWire(),
    "tei": _TEI,
    "llamacpp": LlamaCppWire(),
}
"""Whose the shared paths are."""

_PLACES: Mapping[str, Wire] = {
    "/v1/messages": _ANTHROPIC,
    "/v1/messages/count_tokens": _ANTHROPIC,
    "/generate": _TGI,
    "/generate_stream": _TGI,
    "/embed": _TEI,
}
_REGIONS: tuple[tuple[str, Wire], ...] = (("/api/", _OLLAMA), ("/openai/", _AZURE))
_HOSTS = ("plain", "openai")
"""Flavours that have no page of their own at `/`: there Ollama answers."""


def wire_for(head: Head, flavour: Flavour) -> Wire:
    own, path = FLAVOURS[flavour], head.path
    if path in own.operations:
        return own
    if path in _PLACES:
        return _PLACES[path]
    for region, wire in _REGIONS:
        if path.startswith(region):
            return wire
    if path == "/":
        return _OLLAMA if flavour in _HOSTS else _TGI if flavour == "tgi" else own
    if path.startswith("/v1/models") and head.header(b"anthropic-version") is not None:
        return _ANTHROPIC
    return own
