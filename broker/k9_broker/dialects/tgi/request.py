"""OpenAI's request in TGI's words, for its chat route and for its own `/generate`.

What TGI cannot do is refused by name. TGI itself ignores fields it does not know, so nothing is sent
on in the hope that it does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from k9_broker.dialects.base import Options
from k9_broker.dialects.parameters import HARMLESS, given, refuse_unknown, unsupported
from k9_broker.dialects.tgi.messages import messages, tools_of
from k9_broker.errors import BadRequest, UnsupportedParameter
from k9_broker.requests import InferenceRequest

SERVED = "tgi"
"""What TGI calls the model it serves; any other name is taken for a LoRA adapter, known or not."""

_CHAT_AS_IS = ("temperature", "top_p", "frequency_penalty", "seed", "logprobs", "top_logprobs", "tool_prompt")
_GENERATE_AS_IS = (
    "temperature",
    "top_p",
    "top_k",
    "typical_p",
    "seed",
    "repetition_penalty",
    "frequency_penalty",
    "watermark",
)
_CHAT = frozenset(
    {
        *_CHAT_AS_IS,
        "messages",
        "max_tokens",
        "max_completion_tokens",
        "stop",
        "tools",
        "tool_choice",
        "response_format",
        "repetition_penalty",
    }
)
_GENERATE = frozenset({*_GENERATE_AS_IS, "prompt", "max_tokens", "stop", "response_format"})

_HARMLESS = {
    **HARMLESS,
    "parallel_tool_calls": lambda value: isinstance(value, bool),  # TGI never makes more than one call
    "reasoning_effort": lambda value: value == "none",
}

_SAMPLERS = ("temperature", "top_p", "top_k", "typical_p")


def chat_body(request: InferenceRequest, options: Options) -> dict[str, Any]:
    """The JSON body for `/v1/chat/completions`. Raises `BadRequest`, naming the field."""
    asked = _asked(request, options, _CHAT)
    body: dict[str, Any] = {
        "model": _adapter(request.model, options) or SERVED,
        "messages": messages(asked.get("messages"), fetches=options.get("image_urls") is True),
        "stream": request.stream,
        **_as_is(asked, _CHAT_AS_IS),
    }
    if request.stream:
        body["stream_options"] = {"include_usage": True}
    most = asked.get("max_completion_tokens", asked.get("max_tokens"))
    if most is not None:
        body["max_tokens"] = most  # the two names are one field to TGI, which refuses a field given twice
    if "stop" in asked:
        body["stop"] = stops(asked)
    if _number(asked.get("repetition_penalty")) and asked["repetition_penalty"] != 1:
        # The chat route has no such field: it takes presence_penalty + 2 for one.
        body["presence_penalty"] = asked["repetition_penalty"] - 2
    choice = asked.get("tool_choice", "auto")
    if asked.get("tools") and choice != "none":
        body |= {"tools": tools_of(asked["tools"]), "tool_choice": _tool_choice(choice)}
    if grammar := _grammar(asked.get("response_format")):
        if "tools" in body:
            raise _unsupported("response_format", "response_format together with tools")
        body["response_format"] = grammar
    return body


def generate_body(request: InferenceRequest, options: Options) -> dict[str, Any]:
    """The JSON body for `/generate` and `/generate_stream`. Raises `BadRequest`, naming the field."""
    asked = _asked(request, options, _GENERATE)
    prompt = asked.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str):
        raise _unsupported("prompt", "several prompts or token ids in one request")
    parameters = {"details": True, "do_sample": not _greedy(asked), **_as_is(asked, _GENERATE_AS_IS)}
    if _greedy(asked):
        del parameters["temperature"]
    if "max_tokens" in asked:
        parameters["max_new_tokens"] = asked["max_tokens"]
    if "stop" in asked:
        parameters["stop"] = stops(asked)
    if grammar := _grammar(asked.get("response_format")):
        parameters["grammar"] = grammar
    if adapter := _adapter(request.model, options):
        parameters["adapter_id"] = adapter
    return {"inputs": prompt, "parameters": parameters}


def stops(body: Mapping[str, Any]) -> list[Any]:
    """The stop strings of a request as the list TGI insists on."""
    stop = body.get("stop")
    return list(stop) if isinstance(stop, list | tuple) else [] if stop is None else [stop]


def _asked(request: InferenceRequest, options: Options, known: frozenset[str]) -> dict[str, Any]:
    """The caller's fields over the operator's defaults. Raises `UnsupportedParameter`."""
    asked = given(request.body)
    refuse_unknown(asked, known, "TGI", _HARMLESS)
    defaults = {name: value for name, value in options.items() if name in known and value is not None}
    return {**defaults, **asked}


def _as_is(asked: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Fields both know, without the values that mean "none" to OpenAI and are errors to TGI.

    At temperature 0 the other samplers decide nothing; TGI would sample again because of them.
    """
    taken = {name: asked[name] for name in names if name in asked}
    for name in _SAMPLERS[1:]:
        if name in taken and (_greedy(asked) or _is_none(name, taken[name])):
            del taken[name]
    return taken


def _is_none(sampler: str, value: Any) -> bool:
    return _number(value) and (value <= 0 if sampler == "top_k" else value >= 1)


def _greedy(asked: Mapping[str, Any]) -> bool:
    return _number(asked.get("temperature")) and asked["temperature"] == 0


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _adapter(model: str, options: Options) -> str | None:
    adapters = options.get("adapters")
    return model if isinstance(adapters, list | tuple) and model in adapters else None


def _tool_choice(choice: Any) -> Any:
    if choice in ("auto", "required"):
        return choice
    function = choice.get("function") if isinstance(choice, Mapping) else None
    if isinstance(function, Mapping) and isinstance(function.get("name"), str):
        return {"type": "function", "function": {"name": function["name"]}}
    raise _unsupported("tool_choice")


def _grammar(response_format: Any) -> dict[str, Any] | None:
    """What the answer must match, in TGI's words; `None` when it may be any text."""
    if response_format is None:
        return None
    asked = response_format if isinstance(response_format, Mapping) else {}
    kind = asked.get("type")
    if kind == "text":
        return None
    if kind in ("json", "regex") and "value" in asked:  # TGI's own words
        return {"type": kind, "value": asked["value"]}
    if kind == "json_object":
        schema = asked.get("schema") or asked.get("value")
        if not isinstance(schema, Mapping):
            raise _unsupported("response_format", "json_object without a schema")
        return {"type": "json", "value": schema}
    if kind == "json_schema":
        wrapped = asked.get("json_schema")
        schema = wrapped.get("schema") if isinstance(wrapped, Mapping) else None
        if not isinstance(schema, Mapping):
            where = "response_format.json_schema.schema"
            raise BadRequest("response_format.json_schema has no schema.", param=where)
        return {"type": "json", "value": schema}
    raise _unsupported("response_format")


def _unsupported(param: str, what: str | None = None) -> UnsupportedParameter:
    return unsupported("TGI", param, what)
