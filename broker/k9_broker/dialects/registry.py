"""The dialects by the names `k9.toml` uses."""

from __future__ import annotations

from collections.abc import Mapping

from k9_broker.dialects.anthropic.dialect import Anthropic
from k9_broker.dialects.base import Dialect
from k9_broker.dialects.ollama.dialect import Ollama
from k9_broker.dialects.openai.azure import Azure
from k9_broker.dialects.openai.dialect import OpenAI, OpenAICompatible
from k9_broker.dialects.openai.llamacpp import LlamaCpp
from k9_broker.dialects.openai.vllm import Vllm
from k9_broker.dialects.tgi.dialect import Tgi
from k9_broker.errors import ConfigurationError

_OPENAI = OpenAICompatible()

DIALECTS: Mapping[str, Dialect] = {
    "openai-compatible": _OPENAI,
    "fake": _OPENAI,
    "openai": OpenAI(),
    "azure": Azure(),
    "vllm": Vllm(),
    "llama.cpp": LlamaCpp(),
    "ollama": Ollama(),
    "tgi": Tgi(),
    "anthropic": Anthropic(),
}
"""Dialects spoken over HTTP; `embedded` runs in process and has none."""


def dialect_named(name: str) -> Dialect:
    """The dialect `name` stands for. Raises `ConfigurationError` naming those there are."""
    try:
        return DIALECTS[name]
    except KeyError:
        known = ", ".join(sorted([*DIALECTS, "embedded"]))
        raise ConfigurationError(f"There is no dialect {name!r}. Use one of: {known}.") from None
