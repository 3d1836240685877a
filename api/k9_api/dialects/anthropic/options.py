"""Everything of a Messages request beside its messages, in OpenAI's words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from k9_api.dialects.anthropic.blocks import mark, refused
from k9_api.dialects.anthropic.shapes import TOOL
from k9_api.dialects.decoding import Path, valid
from k9_broker.errors import BadRequest

EFFORTS = ((4096, "low"), (16_384, "medium"))
"""The effort that stands for a budget of thinking tokens up to a number; more is `high`."""

_SAME = ("model", "stream", "temperature", "top_p", "top_k")
_TRANSLATED = frozenset(
    {
        *_SAME,
        *("messages", "system", "max_tokens", "stop_sequences", "tools", "tool_choice", "thinking"),
        *("output_config", "output_format", "metadata", "service_tier", "cache_control", "k9"),
    }
)
_BOOKKEEPING = frozenset({"diagnostics"})
"""Dropped: it does not bear on the answer."""
_REFUSED = {
    "container": "containers",
    "mcp_servers": "MCP servers",
    "context_management": "context management",
    "inference_geo": "a choice of region",
    "fallbacks": "fallback models",
    "n": "several answers to one request here",
    "logprobs": "log probabilities here",
    "top_logprobs": "log probabilities here",
    "stream_options": "stream options here",
}
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
_TIERS = {"auto": "auto", "standard_only": "default"}


def options_of(body: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of OpenAI's body for a body whose shape has been checked, without `messages`.

    Fields that Anthropic does not have pass, because backends have parameters of their own. Raises
    `BadRequest` and `UnsupportedParameter`.
    """
    body = {name: value for name, value in body.items() if value is not None}
    for name, what in _REFUSED.items():
        if body.get(name) not in (None, [], {}, False):
            raise refused((name,), what)
    if body.get("speed", "standard") != "standard":
        raise refused(("speed",), "speeds other than `standard`")
    known = _TRANSLATED | _BOOKKEEPING | _REFUSED.keys() | {"speed"}
    options = {name: value for name, value in body.items() if name not in known}
    options |= {name: body[name] for name in _SAME if name in body}
    if "max_tokens" in body:
        options["max_completion_tokens"] = body["max_tokens"]
    if body.get("stop_sequences"):
        options["stop"] = body["stop_sequences"]
    if user := body.get("metadata", {}).get("user_id"):
        options["user"] = user
    if tier := body.get("service_tier"):
        options["service_tier"] = _TIERS[tier]
    return options | _tools(body) | _thinking(body) | _format(body)


def _tools(body: Mapping[str, Any]) -> dict[str, Any]:
    tools = [_tool(tool, ("tools", index)) for index, tool in enumerate(body.get("tools", ()))]
    choice: Mapping[str, Any] = body.get("tool_choice", {})
    kind = choice.get("type")
    if not tools:
        if kind in ("any", "tool"):
            raise BadRequest("`tool_choice` needs `tools`.", param="tool_choice")
        return {}
    told: dict[str, Any] = {"tools": tools}
    if kind == "tool":
        if "name" not in choice:
            raise BadRequest("`tool_choice.name` is required.", param="tool_choice.name")
        told["tool_choice"] = {"type": "function", "function": {"name": choice["name"]}}
    elif kind is not None:
        told["tool_choice"] = _CHOICES[kind]
    if choice.get("disable_parallel_tool_use"):
        told["parallel_tool_calls"] = False
    return told


def _tool(tool: Mapping[str, Any], at: Path) -> dict[str, Any]:
    kind = tool.get("type")
    if kind not in (None, "custom", "function"):
        # They run at Anthropic, so that no other backend could stand in.
        raise refused((*at, "type"), f"tools of the type {str(kind)[:64]!r}")
    valid(TOOL, tool, at)
    if tool.get("input_examples"):
        raise refused((*at, "input_examples"), "examples of a tool's input")
    if tool.get("defer_loading"):
        raise refused((*at, "defer_loading"), "tools that are loaded later")
    if tool.get("allowed_callers") not in (None, [], ["direct"]):
        raise refused((*at, "allowed_callers"), "callers of a tool other than the model")
    function = {"name": tool["name"], "parameters": tool["input_schema"]}
    function |= {name: tool[name] for name in ("description", "strict") if tool.get(name) is not None}
    written: dict[str, Any] = {"type": "function", "function": function}
    mark(written, tool)
    return written


def _thinking(body: Mapping[str, Any]) -> dict[str, Any]:
    thinking: Mapping[str, Any] = body.get("thinking", {})
    effort = body.get("output_config", {}).get("effort")
    match thinking.get("type"):
        case None:
            return {"reasoning_effort": effort} if effort else {}
        case "disabled":
            return {"thinking": thinking, "reasoning_effort": "none"}
        case "enabled":
            if thinking.get("budget_tokens") is None:
                raise BadRequest("`thinking.budget_tokens` is required.", param="thinking.budget_tokens")
            effort = effort or _effort(thinking["budget_tokens"])
    # Adaptive thinking without an effort is left to the model, on every backend.
    return {"thinking": thinking, **({"reasoning_effort": effort} if effort else {})}


def _effort(budget: int) -> str:
    return next((effort for most, effort in EFFORTS if budget <= most), "high")


def _format(body: Mapping[str, Any]) -> dict[str, Any]:
    wanted = body.get("output_config", {}).get("format") or body.get("output_format")
    if not wanted:
        return {}
    schema = {"name": "answer", "schema": wanted["schema"], "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": schema}}
