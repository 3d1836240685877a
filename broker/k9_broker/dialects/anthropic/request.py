"""OpenAI's request in the words of Anthropic's Messages API. What it cannot do is refused by name.

Some of what other dialects keep as mere bookkeeping has a place here: `user`, `service_tier`,
`cache_control`, and a caller's own `thinking`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from k9_broker.dialects.anthropic.messages import SERVER, conversation, unsupported
from k9_broker.dialects.base import Options
from k9_broker.dialects.parameters import HARMLESS, Harmless, given, refuse_unknown
from k9_broker.errors import BadRequest
from k9_broker.requests import InferenceRequest

DEFAULT_VERSION = "2023-06-01"
"""The API version that takes every parameter this dialect sends."""

OWN_OPTIONS = frozenset({"version", "beta", "max_tokens", "budget_models"})
"""Backend options that mean something to the dialect; all others are defaults of the request's body."""

DEFAULT_MAX_TOKENS = 4096
"""Tokens of an answer whose caller names no limit: Anthropic wants one."""

MOST_TOKENS_UNSTREAMED = 21_333
"""Anthropic wants longer answers streamed: at 128,000 tokens an hour this one takes ten minutes."""

_SAMPLING = ("temperature", "top_p", "top_k")
_SAMPLING_REMOVED = "2026-10-21"
"""From this API version on, those are refused even at their defaults."""

_TRANSLATED = frozenset(
    {
        *_SAMPLING,
        "messages",
        "max_tokens",
        "max_completion_tokens",
        "stop",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "response_format",
        "reasoning_effort",
        "thinking",
    }
)
_HARMLESS: Harmless = {**HARMLESS, "verbosity": lambda value: value == "medium"}
_EFFORTS: Mapping[str, str] = {
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "xhigh",
    "max": "max",
}
_BUDGETS: Mapping[str, int] = {
    "minimal": 1024,
    "low": 2048,
    "medium": 8192,
    "high": 16_384,
    "xhigh": 32_768,
    "max": 32_768,
}
"""Tokens of thinking by `reasoning_effort`, for models that know no effort; 1024 is the least there is."""

_TIERS: Mapping[str, str] = {"auto": "auto", "default": "standard_only", "standard_only": "standard_only"}


def request_body(request: InferenceRequest, options: Options) -> dict[str, Any]:
    """The JSON body for `/v1/messages`.

    Raises `UnsupportedParameter` and `BadRequest`, each naming the field in OpenAI's words.
    """
    asked = given(request.body)
    refuse_unknown(asked, _TRANSLATED, SERVER, _HARMLESS)
    system, messages = conversation(asked.get("messages"))
    defaults = {name: value for name, value in options.items() if name not in OWN_OPTIONS}
    body: dict[str, Any] = {**defaults, "model": request.model, "messages": messages}
    if system is not None:
        body["system"] = system
    if "cache_control" in asked:
        body["cache_control"] = asked["cache_control"]
    body |= _sampling(asked, str(options.get("version", DEFAULT_VERSION)))
    if stop := _stop(asked.get("stop")):
        body["stop_sequences"] = stop
    if user := asked.get("user") or asked.get("safety_identifier"):
        body["metadata"] = {"user_id": user}
    if tier := _TIERS.get(str(asked.get("service_tier"))):
        body["service_tier"] = tier
    body |= _tools(asked)
    most = _most_tokens(asked)
    thinking, config = _thinking(asked, most, budgets=request.model in options.get("budget_models", ()))
    if thinking:
        body["thinking"] = thinking
    if form := _format(asked.get("response_format")):
        config["format"] = form
    if config:
        body["output_config"] = {**defaults.get("output_config", {}), **config}
    body["max_tokens"] = most if most is not None else _default_tokens(asked, options, thinking or {})
    if request.stream or body["max_tokens"] > MOST_TOKENS_UNSTREAMED:
        body["stream"] = True
    return body


def _sampling(asked: Mapping[str, Any], version: str) -> dict[str, Any]:
    """The sampling parameters. OpenAI's temperatures above 1 become 1, the highest Anthropic has."""
    wished = {name: asked[name] for name in _SAMPLING if name in asked}
    temperature = wished.get("temperature")
    if isinstance(temperature, int | float) and temperature > 1:
        wished["temperature"] = 1
    if "top_k" in wished and HARMLESS["top_k"](wished["top_k"]):
        del wished["top_k"]
    if version < _SAMPLING_REMOVED:  # versions are dates
        return wished
    for name, value in wished.items():
        if name == "top_k" or value != 1:
            raise unsupported(name, f"{name} in API version {version}, which this backend is set to")
    return {}


def _stop(wished: Any) -> list[str]:
    stops = wished if isinstance(wished, list) else [wished] if wished else []
    if not all(isinstance(stop, str) and stop.strip() for stop in stops):
        raise unsupported("stop", "stop sequences of white space alone")
    return stops


def _tools(asked: Mapping[str, Any]) -> dict[str, Any]:
    tools = [_tool(tool, f"tools[{index}]") for index, tool in enumerate(asked.get("tools") or ())]
    choice = _tool_choice(asked.get("tool_choice", "auto"))
    if not tools:
        if choice["type"] in ("any", "tool"):
            raise BadRequest("tool_choice asks for a tool, but there are no tools.", param="tools")
        return {}
    if asked.get("parallel_tool_calls") is False and choice["type"] != "none":
        choice["disable_parallel_tool_use"] = True
    return {"tools": tools} | ({"tool_choice": choice} if choice != {"type": "auto"} else {})


def _tool(tool: Any, where: str) -> dict[str, Any]:
    function = tool.get("function") if isinstance(tool, Mapping) else None
    if not isinstance(function, Mapping):
        raise unsupported(f"{where}.type", "tools other than functions")
    made: dict[str, Any] = {
        "name": function.get("name"),
        "input_schema": {"type": "object", **(function.get("parameters") or {"properties": {}})},
    }
    if description := function.get("description"):
        made["description"] = description
    if function.get("strict") is True:
        made["strict"] = True
    if mark := tool.get("cache_control") or function.get("cache_control"):
        made["cache_control"] = mark
    return made


def _tool_choice(choice: Any) -> dict[str, Any]:
    if choice in ("auto", "none"):
        return {"type": choice}
    if choice == "required":
        return {"type": "any"}
    function = choice.get("function") if isinstance(choice, Mapping) else None
    if isinstance(function, Mapping) and function.get("name"):
        return {"type": "tool", "name": function["name"]}
    raise unsupported("tool_choice")


def _most_tokens(asked: Mapping[str, Any]) -> int | None:
    most = asked.get("max_completion_tokens", asked.get("max_tokens"))
    if most is not None and not isinstance(most, int):
        raise BadRequest("max_tokens must be a whole number.", param="max_tokens")
    return most


def _default_tokens(asked: Mapping[str, Any], options: Options, thinking: Mapping[str, Any]) -> int:
    """The default for an answer, and room for the thinking before it, which Anthropic counts too."""
    room = thinking.get("budget_tokens") or _BUDGETS.get(str(asked.get("reasoning_effort")), 0)
    return int(options.get("max_tokens", DEFAULT_MAX_TOKENS)) + int(room)


def _thinking(
    asked: Mapping[str, Any], most: int | None, *, budgets: bool
) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """`thinking` and the beginning of `output_config`.

    The caller's own `thinking` wins over `reasoning_effort`, save that thinking without a budget
    takes its depth from it.
    """
    effort: Any = asked.get("reasoning_effort")
    if effort not in (None, "none", *_EFFORTS):
        raise unsupported("reasoning_effort")
    if own := asked.get("thinking"):
        if not isinstance(own, Mapping):
            raise BadRequest("thinking is not an object.", param="thinking")
        bounded = own.get("type") in ("enabled", "disabled")
        return dict(own), {"effort": _EFFORTS[effort]} if effort in _EFFORTS and not bounded else {}
    if effort is None:
        return None, {}
    if effort == "none":
        return {"type": "disabled"}, {}
    if budgets:
        return {"type": "enabled", "budget_tokens": _budget(effort, most)}, {}
    return {"type": "adaptive"}, {"effort": _EFFORTS[effort]}


def _budget(effort: str, most: int | None) -> int:
    """Tokens of thinking; of `most` tokens in all a quarter is left to the answer, as far as that goes."""
    budget = _BUDGETS[effort]
    if most is None:
        return budget
    least = _BUDGETS["minimal"]
    if most <= least:
        raise unsupported("reasoning_effort", f"reasoning within {most} max_tokens; it takes over {least}")
    return max(least, min(budget, most * 3 // 4))


def _format(wished: Any) -> dict[str, Any] | None:
    if wished is None:
        return None
    kind = wished.get("type") if isinstance(wished, Mapping) else None
    if kind == "text":
        return None
    schema = wished.get("schema") if kind == "json_object" else None
    if kind == "json_schema":
        schema = wished.get("json_schema")
        schema = schema.get("schema") if isinstance(schema, Mapping) else None
        if not isinstance(schema, Mapping):
            raise BadRequest(
                "response_format.json_schema has no schema.", param="response_format.json_schema.schema"
            )
    if not isinstance(schema, Mapping):
        raise unsupported("response_format", "JSON without a schema")
    return {"type": "json_schema", "schema": _closed(schema)}


def _closed(schema: Any) -> Any:
    """The schema with `additionalProperties: false` where it says nothing of them: Anthropic insists on it.

    What fits the closed schema fits the open one.
    """
    if isinstance(schema, list):
        return [_closed(part) for part in schema]
    if not isinstance(schema, Mapping):
        return schema
    data = ("const", "default", "enum", "examples")
    made = {name: part if name in data else _closed(part) for name, part in schema.items()}
    if made.get("type") == "object":
        made.setdefault("additionalProperties", False)
    return made
