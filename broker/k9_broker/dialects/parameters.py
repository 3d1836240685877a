"""What every dialect makes of parameters that its server has no word for: refuse them by name, or leave
out what asks for nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

from k9_broker.errors import UnsupportedParameter

BOOKKEEPING = frozenset(
    {
        "model",
        "stream",
        "stream_options",
        "user",
        "metadata",
        "store",
        "service_tier",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_retention",
        "prediction",
        "cache_control",
        "thinking",  # save what `asks_to_think` finds
    }
)
"""Fields that do not bear on the answer."""

THINKING = "thinking; its word is reasoning_effort"
"""What a dialect cannot do that has no `thinking`."""

Harmless = Mapping[str, Callable[[Any], bool]]
"""Field → whether a value asks for nothing that the server would not do anyway."""

HARMLESS: Harmless = {
    "n": lambda value: value == 1,
    "best_of": lambda value: value == 1,
    "logprobs": lambda value: value is False,
    "top_logprobs": lambda value: value == 0,
    "logit_bias": lambda value: value in ({}, []),
    "presence_penalty": lambda value: value == 0,
    "frequency_penalty": lambda value: value == 0,
    "repetition_penalty": lambda value: value == 1,
    "min_p": lambda value: value == 0,
    "top_k": lambda value: value in (0, -1),
    "typical_p": lambda value: value == 1,
    "parallel_tool_calls": lambda value: value is True,
    "modalities": lambda value: value == ["text"],
    "echo": lambda value: value is False,
    "suffix": lambda value: value == "",
    "tools": lambda value: value == [],
}


def given(body: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that are there: null counts as absent."""
    return {name: value for name, value in body.items() if value is not None}


def asks_to_think(asked: Mapping[str, Any]) -> bool:
    """Whether `thinking`, which is Anthropic's word, says what no `reasoning_effort` beside it says too."""
    thinking = asked.get("thinking")
    if thinking is None or "reasoning_effort" in asked:
        return False
    return not isinstance(thinking, Mapping) or thinking.get("type") not in ("adaptive", "disabled")


def refuse_unknown(
    asked: Mapping[str, Any], known: AbstractSet[str], server: str, harmless: Harmless = HARMLESS
) -> None:
    """Raises `UnsupportedParameter` for the first field that is not `known` and bears on the answer."""
    if "thinking" not in known and asks_to_think(asked):
        raise unsupported(server, "thinking", THINKING)
    for name, value in asked.items():
        if name in known or name in BOOKKEEPING:
            continue
        if name in harmless and harmless[name](value):
            continue
        raise unsupported(server, name)


def unsupported(server: str, param: str, what: str | None = None) -> UnsupportedParameter:
    """`server` is its name for people; `what` it cannot do, when that is not just `param`."""
    words = what or f"{param} as asked for"
    return UnsupportedParameter(
        f"{server} does not support {words}. Remove it or choose a model of another backend.", param=param
    )
