"""Messages and tools as TGI's chat route reads them.

Left out without a word is what TGI has no place for and does not bear on the answer: `cache_control`, an
image's `detail`, a message's `reasoning`, a tool's `strict` (its grammar always is).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from k9_broker.dialects.parameters import unsupported
from k9_broker.dialects.tool_calls import arguments_text, function_of
from k9_broker.errors import BadRequest

_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}


def messages(given: Any, *, fetches: bool = False) -> list[dict[str, Any]]:
    """The `messages` of a chat request. Raises `BadRequest`, naming the message.

    `fetches`: TGI may fetch images by URL, from inside the operator's network.
    """
    schemes = ("data:image/", "http://", "https://") if fetches else ("data:image/",)
    if not isinstance(given, list) or not given:
        raise BadRequest("messages must be a list with at least one message.", param="messages")
    names: dict[str, str] = {}
    made: list[dict[str, Any]] = []
    for index, message in enumerate(given):
        made.extend(_message(message, f"messages[{index}]", names, schemes))
    return made


def _message(
    message: Any, where: str, names: dict[str, str], schemes: tuple[str, ...]
) -> list[dict[str, Any]]:
    """One message, or two: TGI drops the calls of one that has text and calls.

    `names` collects tool names by call id: TGI's templates see a result's `name`, not its call's id.
    """
    if not isinstance(message, Mapping):
        raise BadRequest(f"{where} is not an object.", param=where)
    role = _ROLES.get(str(message.get("role")))
    if role is None:
        raise unsupported("TGI", f"{where}.role", "this role of a message")
    content = _content(message.get("content"), f"{where}.content", schemes)
    head: dict[str, Any] = {"role": role}
    if isinstance(message.get("name"), str):
        head["name"] = message["name"]
    calls = message.get("tool_calls") if role == "assistant" else None
    if calls and isinstance(calls, list):
        made = [_call(call, f"{where}.tool_calls[{index}]", names) for index, call in enumerate(calls)]
        text = [{**head, "content": content}] if content else []
        return [*text, {**head, "tool_calls": made}]
    if role == "tool":
        call_id = message.get("tool_call_id")
        head["tool_call_id"] = call_id
        if name := names.get(str(call_id)):
            head["name"] = name
    return [{**head, "content": content}]


def _call(call: Any, where: str, names: dict[str, str]) -> dict[str, Any]:
    function = function_of(call, where)
    call_id, name = str(call.get("id") or "0"), str(function.get("name") or "")
    names[call_id] = name
    arguments = arguments_text(function.get("arguments")) or "{}"
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def _content(content: Any, where: str, schemes: tuple[str, ...]) -> str | list[dict[str, Any]]:
    if content is None or isinstance(content, str):
        return content or ""
    parts = content if isinstance(content, list) else [content]
    return [_part(part, f"{where}[{index}]", schemes) for index, part in enumerate(parts)]


def _part(part: Any, where: str, schemes: tuple[str, ...]) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind in ("text", "refusal"):
        return {"type": "text", "text": str(part.get(kind) or "")}
    if kind == "image_url":
        image = part.get("image_url")
        url = image.get("url") if isinstance(image, Mapping) else image
        if not (isinstance(url, str) and url.startswith(schemes)):
            what = "images other than data URLs, unless its operator allows them (option `image_urls`);"
            raise unsupported("TGI", f"{where}.image_url", what)
        return {"type": "image_url", "image_url": {"url": url}}
    raise unsupported("TGI", f"{where}.type", "this type of content")


def tools_of(given: Any) -> list[dict[str, Any]]:
    """The `tools` of a chat request: TGI takes functions only, and only with parameters."""
    return [_tool(tool, f"tools[{index}]") for index, tool in enumerate(given)]


def _tool(tool: Any, where: str) -> dict[str, Any]:
    function = tool.get("function") if isinstance(tool, Mapping) else None
    if not isinstance(function, Mapping):
        raise unsupported("TGI", where, "tools other than functions")
    made = {name: function[name] for name in ("name", "description") if function.get(name) is not None}
    made["parameters"] = function.get("parameters") or {"type": "object", "properties": {}}
    return {"type": "function", "function": made}
