"""Reads OpenAI's requests, and refuses the bad ones as OpenAI does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic_core import to_json

from k9_broker.fake.answers import Question, Tool
from k9_broker.fake.script import Call, Headers, Refused, Reply

JSON_OBJECT: Mapping[str, Any] = {
    "type": "object",
    "properties": {"answer": {"type": "string"}},
    "required": ["answer"],
}
"""What an answer looks like when JSON is asked for without a schema."""

_USUAL = {
    401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    429: ("requests", "rate_limit_exceeded", "Rate limit reached for requests. Please try again later."),
    503: ("server_error", "engine_overloaded", "The engine is currently overloaded, please try again later."),
}


def error(
    status: int,
    message: str,
    *,
    kind: str = "invalid_request_error",
    param: str | None = None,
    code: str | None = None,
    headers: Headers = (),
) -> Reply:
    """OpenAI's error envelope, always with its four keys."""
    body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
    return Reply(to_json(body), status, headers=headers)


def waiting(retry_after: float | None) -> Headers:
    """The two headers that say when to come again."""
    if retry_after is None:
        return ()
    return (("retry-after", f"{retry_after:g}"), ("retry-after-ms", f"{retry_after * 1000:g}"))


def failure(status: int, code: str | None = None, retry_after: float | None = None) -> Reply:
    """The error a fault asks for. 502 is a page of HTML, as the edge before the real API sends it."""
    headers = waiting(retry_after)
    if status == 502 and code is None:
        page = b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body></body>\r\n</html>\r\n"
        return Reply(page, 502, "text/html", headers)
    if status == 429 and code == "insufficient_quota":
        return error(429, "You exceeded your current quota.", kind=code, code=code, headers=headers)
    message = "The server had an error while processing your request." if status >= 500 else "Refused."
    kind, usual, text = _USUAL.get(
        status, ("server_error" if status >= 500 else "invalid_request_error", None, message)
    )
    return error(status, text, kind=kind, code=code or usual, headers=headers)


def refuse(message: str, param: str | None = None, code: str | None = None) -> Refused:
    return Refused(error(400, message, param=param, code=code))


def model(call: Call) -> str:
    """The model's name as the caller wrote it. Raises `Refused`."""
    name = call.body.get("model")
    if not isinstance(name, str) or not name:
        raise refuse("you must provide a model parameter", "model")
    if call.model is None:
        raise Refused(unknown_model(name))
    return name


def unknown_model(name: str) -> Reply:
    return error(
        404, f"The model `{name}` does not exist or you do not have access to it.", code="model_not_found"
    )


def integer(body: Mapping[str, Any], name: str, low: int) -> int | None:
    """An optional whole number of at least `low`. Raises `Refused`."""
    value = body.get(name)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
        raise refuse(f"Invalid type for '{name}': expected an integer.", name, "invalid_type")
    if value is not None and value < low:
        raise refuse(
            f"Invalid '{name}': integer below minimum value. Expected >= {low}, got {value}.",
            name,
            "integer_below_min_value",
        )
    return value


def chat_question(call: Call) -> Question:
    """The question in a chat request. Raises `Refused`."""
    messages = call.body.get("messages")
    if messages is None:
        raise refuse("Missing required parameter: 'messages'.", "messages", "missing_required_parameter")
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise refuse("Invalid type for 'messages': expected an array of objects.", "messages", "invalid_type")
    if not messages:
        raise refuse("Invalid 'messages': empty array.", "messages", "empty_array")
    for at, message in enumerate(messages):
        if not isinstance(message.get("role"), str):
            raise refuse("Missing required parameter.", f"messages[{at}].role", "missing_required_parameter")
    said = [f"{message['role']}: {_text(message.get('content'))}" for message in messages]
    last = messages[-1]
    tools = call.body.get("tools") or []
    return _bounded(
        call,
        Question(
            said="\n".join(said),
            asked=_text(last.get("content")) if last["role"] == "user" else "",
            seed=integer(call.body, "seed", -(2**63)) or 0,
            max_tokens=integer(call.body, "max_completion_tokens", 1) or integer(call.body, "max_tokens", 1),
            stop=_stops(call.body),
            tools=read_tools(tools),
            tool_choice=_tool_choice(call.body, tools),
            parallel=call.body.get("parallel_tool_calls") is not False,
            schema=_schema(call.body.get("response_format")),
            thinking=_thinking(call),
        ),
    )


def prompt_questions(call: Call) -> list[Question]:
    """One question for each prompt of a completions request. Raises `Refused`."""
    prompt = call.body.get("prompt", "<|endoftext|>")
    return [
        _bounded(
            call,
            Question(
                said=text,
                asked=text,
                seed=integer(call.body, "seed", -(2**63)) or 0,
                max_tokens=integer(call.body, "max_tokens", 0),
                stop=_stops(call.body),
            ),
        )
        for text in texts(prompt, "prompt")
    ]


def texts(value: Any, param: str) -> list[str]:
    """Text, list of texts, token ids or list of token ids, as texts. Raises `Refused`."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and value:
        if all(isinstance(item, str) for item in value):
            return value
        if _are_ids(value):
            return [_spelled(value)]
        if all(isinstance(item, list) and _are_ids(item) for item in value):
            return [_spelled(item) for item in value]
    raise refuse(f"'$.{param}' is invalid. Send text, token ids or a non-empty array of either.", param)


def read_tools(tools: Any) -> tuple[Tool, ...]:
    """The functions among `tools`; anything else is passed over, as hosted tools would be."""
    functions = [tool.get("function") for tool in tools if isinstance(tool, dict)]
    return tuple(
        Tool(str(function["name"]), function.get("parameters") or {})
        for function in functions
        if isinstance(function, dict) and function.get("name")
    )


def _tool_choice(body: Mapping[str, Any], tools: Any) -> str:
    choice = body.get("tool_choice") or ("auto" if tools else "none")
    if isinstance(choice, dict):
        function = choice.get("function")
        name = function.get("name") if isinstance(function, dict) else None
        if name not in [tool.name for tool in read_tools(tools)]:
            raise refuse("Tool choice not found in 'tools' parameter.", "tool_choice", "invalid_value")
        return f"named:{name}"
    return str(choice)


def _schema(wanted: Any) -> Mapping[str, Any] | None:
    match wanted:
        case {"type": "json_schema", "json_schema": {"schema": dict(schema)}}:
            return schema
        case {"type": "json_object"} | {"type": "json_schema"}:
            return JSON_OBJECT
    return None


def _thinking(call: Call) -> int:
    """Tokens of thought: none if the request says so in one of the ways there are to say it."""
    if not call.behaviour.reasoning_tokens:
        return 0
    template = call.body.get("chat_template_kwargs")
    off = call.body.get("reasoning_effort") == "none"
    off = off or (isinstance(template, dict) and template.get("enable_thinking") is False)
    return 0 if off else call.behaviour.reasoning_tokens


def _stops(body: Mapping[str, Any]) -> tuple[str, ...]:
    stop = body.get("stop") or ()
    stops = (stop,) if isinstance(stop, str) else stop
    if not isinstance(stops, (list, tuple)) or len(stops) > 4 or not all(isinstance(s, str) for s in stops):
        raise refuse("Invalid 'stop': expected a string or up to 4 strings.", "stop", "invalid_type")
    return tuple(stops)


def _text(content: Any) -> str:
    if isinstance(content, list):
        return " ".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def _are_ids(value: list[Any]) -> bool:
    return bool(value) and all(type(item) is int for item in value)


def _spelled(ids: list[int]) -> str:
    return " ".join([f"token{number}" for number in ids])


def _bounded(call: Call, question: Question) -> Question:
    limit = call.behaviour.context_tokens
    wanted = question.tokens + (question.max_tokens or 0)
    if limit and wanted > limit:
        raise refuse(
            f"This model's maximum context length is {limit} tokens. However, you requested {wanted} tokens. "
            "Please reduce the length of the messages.",
            "messages",
            "context_length_exceeded",
        )
    return question
