"""Whole answers of OpenAI's shape, with what clients rely on put right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from k9_broker.dialects import wire_errors
from k9_broker.dialects.base import json_object, read_usage, unreadable
from k9_broker.dialects.embeddings import inputs_of, ordered, vectors
from k9_broker.dialects.finish_reasons import finish_reason
from k9_broker.dialects.tool_calls import whole_calls
from k9_broker.errors import UnsupportedParameter
from k9_broker.requests import InferenceRequest, Operation
from k9_broker.results import Result


def read_answer(request: InferenceRequest, body: bytes) -> Result:
    """The answer in the body of a 2xx response; an error hidden in it is raised."""
    answer = json_object(body)
    if error := wire_errors.in_band(answer):
        raise error
    usage = read_usage(answer.get("usage"))
    model = answer.get("model")
    model = model if isinstance(model, str) and model else request.model
    if request.operation is Operation.EMBEDDINGS:
        found = vectors(ordered(answer.get("data")), len(inputs_of(request)))
        asked = request.body.get("dimensions")
        if asked is not None and asked != found.dimensions:  # some servers ignore the field
            raise UnsupportedParameter(
                f"This model gives embeddings of {found.dimensions} dimensions only. Leave dimensions out.",
                param="dimensions",
            )
        return Result(model, usage, vectors=found)
    choices = answer.get("choices")
    if not choices or not isinstance(choices, list):  # clients read the first one without looking
        raise unreadable("has no choices")
    choices = [_choice(choice) for choice in choices]
    return Result(model, usage, body={**answer, "choices": choices, "usage": usage.openai()})


def settle_reasoning(message: dict[str, Any]) -> None:
    """Have the reasoning of a message or delta under its one name, in place.

    vLLM and Ollama write `reasoning`; llama.cpp, DeepSeek and older vLLM `reasoning_content`; some both.
    """
    if "reasoning_content" in message or "reasoning" in message:
        said = (message.pop("reasoning", None), message.pop("reasoning_content", None))
        if text := next((one for one in said if one and isinstance(one, str)), None):
            message["reasoning"] = text


def settle_extras(choice: dict[str, Any]) -> None:
    """Leave out, in place, what says nothing: vLLM's `stop_reason` that is no stop string, null token ids."""
    if "stop_reason" in choice and not isinstance(choice["stop_reason"], str):
        del choice["stop_reason"]
    if "token_ids" in choice and choice["token_ids"] is None:
        del choice["token_ids"]


def _choice(choice: Any) -> dict[str, Any]:
    """One choice with what clients rely on: a reason, and tool calls they can run."""
    if not isinstance(choice, Mapping):
        raise unreadable("has a choice that is not an object")
    made = {"logprobs": None, **choice}
    settle_extras(made)
    tools = False
    message = choice.get("message")
    if isinstance(message, Mapping):
        said = {name: value for name, value in message.items() if value is not None}
        made["message"] = message = {"content": None, "refusal": None, **said}
        settle_reasoning(message)
        calls = message.pop("tool_calls", None)
        if calls and isinstance(calls, list):
            message["tool_calls"] = whole_calls(calls)
            tools = True
    ended = finish_reason(choice.get("finish_reason"), tools=tools)
    made["finish_reason"] = ended or ("tool_calls" if tools else "stop")
    return made
