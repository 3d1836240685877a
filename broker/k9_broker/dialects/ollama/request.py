"""OpenAI's request in Ollama's words. What Ollama cannot do is refused by name, never dropped.

Dropped without a word is only what does not bear on the answer (`parameters.BOOKKEEPING`, `cache_control`
and `thinking_blocks`, and the `name` of a message's author, for which Ollama has no place).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from k9_broker.dialects.base import Options
from k9_broker.dialects.parameters import given, refuse_unknown, unsupported
from k9_broker.dialects.tool_calls import arguments_object, function_of
from k9_broker.errors import BadRequest, UnsupportedParameter
from k9_broker.requests import InferenceRequest, Operation

_RUNNER = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "seed": "seed",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "repeat_penalty": "repeat_penalty",
    "repetition_penalty": "repeat_penalty",
    "max_tokens": "num_predict",
    "max_completion_tokens": "num_predict",  # after max_tokens: the newer name wins
}
"""Request field → name in Ollama's `options`."""

_KNOWN: Mapping[Operation, frozenset[str]] = {
    Operation.CHAT: frozenset(
        {*_RUNNER, "messages", "stop", "tools", "tool_choice", "response_format", "reasoning_effort"}
    ),
    Operation.COMPLETIONS: frozenset({*_RUNNER, "prompt", "suffix", "stop"}),
    Operation.EMBEDDINGS: frozenset({"input", "encoding_format", "dimensions"}),
}
_TOP_LEVEL = frozenset({"keep_alive", "truncate", "shift", "raw"})
"""Backend options that are fields of Ollama's request; the rest go into its `options`."""

_THINK: Mapping[str, bool | str] = {
    "none": False,
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "max",
    "max": "max",
}


def request_body(request: InferenceRequest, options: Options) -> dict[str, Any]:
    """The JSON body for `/api/chat`, `/api/generate` or `/api/embed`.

    `truncate` and `shift` are false unless the operator says otherwise: Ollama would cut a prompt longer
    than the context, and forget its beginning once the answer fills the context, without a word.
    Raises `UnsupportedParameter` and `BadRequest`, each naming the field.
    """
    asked = given(request.body)
    refuse_unknown(asked, _KNOWN[request.operation], "Ollama")
    fields = {name: value for name, value in options.items() if name in _TOP_LEVEL}
    runner = {name: value for name, value in options.items() if name not in _TOP_LEVEL}
    body: dict[str, Any] = {"model": request.model, "truncate": False, **fields}
    if request.operation is Operation.EMBEDDINGS:
        body["input"] = _texts(asked.get("input"))
        if "dimensions" in asked:
            body["dimensions"] = asked["dimensions"]
    else:
        body = {"shift": False, **body, "stream": request.stream}  # Ollama streams unless told not to
        runner |= {name: asked[field] for field, name in _RUNNER.items() if field in asked}
        if "stop" in asked:
            runner["stop"] = [asked["stop"]] if isinstance(asked["stop"], str) else asked["stop"]
        body |= _chat(asked) if request.operation is Operation.CHAT else _generate(asked)
    if runner:
        body["options"] = runner
    return body


def _unsupported(param: str, what: str | None = None) -> UnsupportedParameter:
    return unsupported("Ollama", param, what)


def _chat(asked: Mapping[str, Any]) -> dict[str, Any]:
    body: dict[str, Any] = {"messages": _messages(asked.get("messages"))}
    choice = asked.get("tool_choice", "auto")
    if choice not in ("auto", "none"):
        raise _unsupported("tool_choice", "a tool_choice other than auto and none")
    if asked.get("tools") and choice == "auto":
        body["tools"] = [_tool(tool) for tool in asked["tools"]]
    if "response_format" in asked:
        body |= _format(asked["response_format"])
    if "reasoning_effort" in asked:
        try:
            body["think"] = _THINK[asked["reasoning_effort"]]
        except (KeyError, TypeError):
            raise _unsupported("reasoning_effort") from None
    return body


def _tool(tool: Any) -> Any:
    if not isinstance(tool, Mapping):
        return tool
    return {name: value for name, value in tool.items() if name != "cache_control"}


def _generate(asked: Mapping[str, Any]) -> dict[str, Any]:
    prompt = asked.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str):
        raise _unsupported("prompt", "several prompts or token ids in one request")
    if not prompt:  # Ollama would load the model and answer nothing
        raise BadRequest("There is nothing to complete: `prompt` is empty.", param="prompt")
    return {"prompt": prompt} | ({"suffix": asked["suffix"]} if "suffix" in asked else {})


def _texts(given: Any) -> list[str]:
    texts = given if isinstance(given, list) else [given]
    if any(text == "" for text in texts) or not texts:
        raise BadRequest("An input is empty. Leave empty texts out.", param="input")
    if not all(isinstance(text, str) for text in texts):
        raise _unsupported("input", "token ids as input")
    return texts


def _format(given: Any) -> dict[str, Any]:
    kind = given.get("type") if isinstance(given, Mapping) else None
    if kind == "text":
        return {}
    if kind == "json_object":
        return {"format": given.get("schema") or "json"}
    if kind == "json_schema":
        schema = given.get("json_schema")
        schema = schema.get("schema") if isinstance(schema, Mapping) else None
        if not isinstance(schema, Mapping):
            raise BadRequest(
                "response_format.json_schema has no schema.", param="response_format.json_schema.schema"
            )
        return {"format": schema}
    raise _unsupported("response_format")


def _messages(given: Any) -> list[dict[str, Any]]:
    if not isinstance(given, list) or not given:  # Ollama would load the model and answer nothing
        raise BadRequest("messages must be a list with at least one message.", param="messages")
    names: dict[str, str] = {}
    return [_message(message, f"messages[{index}]", names) for index, message in enumerate(given)]


def _message(message: Any, where: str, names: dict[str, str]) -> dict[str, Any]:
    """One message; `names` collects tool names by call id, since Ollama's tool results go by name."""
    if not isinstance(message, Mapping):
        raise BadRequest(f"{where} is not an object.", param=where)
    role = message.get("role")
    text, images = _content(message.get("content"), f"{where}.content")
    made: dict[str, Any] = {"role": "system" if role == "developer" else role, "content": text}
    if images:
        made["images"] = images
    if role == "assistant":
        if thinking := message.get("reasoning") or message.get("reasoning_content"):
            made["thinking"] = thinking
        if calls := message.get("tool_calls"):
            made["tool_calls"] = [
                _call(call, f"{where}.tool_calls[{index}]", names) for index, call in enumerate(calls)
            ]
    elif role == "tool":
        call_id = message.get("tool_call_id")
        made["tool_call_id"] = call_id
        if name := names.get(str(call_id)) or message.get("name"):
            made["tool_name"] = name
    elif role not in ("system", "developer", "user"):
        raise _unsupported(f"{where}.role", "this role of a message")
    return made


def _call(call: Any, where: str, names: dict[str, str]) -> dict[str, Any]:
    function = function_of(call, where)
    name, arguments = str(function.get("name") or ""), arguments_object(function, where)
    names[str(call.get("id"))] = name
    return {"id": call.get("id"), "function": {"name": name, "arguments": arguments}}


def _content(content: Any, where: str) -> tuple[str, list[str]]:
    """A message's text and its images as bare base64."""
    if content is None or isinstance(content, str):
        return content or "", []
    texts: list[str] = []
    images: list[str] = []
    for index, part in enumerate(content if isinstance(content, list) else [content]):
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "text":
            texts.append(str(part.get("text") or ""))
        elif kind == "refusal":
            texts.append(str(part.get("refusal") or ""))
        elif kind == "image_url":
            images.append(_image(part.get("image_url"), f"{where}[{index}].image_url"))
        else:
            raise _unsupported(f"{where}[{index}].type", "this type of content")
    return "\n".join(texts), images


def _image(given: Any, where: str) -> str:
    url = given.get("url") if isinstance(given, Mapping) else given
    head, comma, data = url.partition(",") if isinstance(url, str) else ("", "", "")
    if not (comma and head.startswith("data:image/") and head.endswith(";base64")):
        raise _unsupported(where, "image URLs other than data:image/…;base64")
    return str(data)
