"""OpenAI's messages as Anthropic's turns: content in blocks, the system prompt apart."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any
from urllib.parse import unquote_to_bytes

from k9_broker.dialects import parameters
from k9_broker.dialects.tool_calls import arguments_object, function_of
from k9_broker.errors import BadRequest

Block = dict[str, Any]

_IMAGES = {f"image/{kind}": f"image/{kind}" for kind in ("jpeg", "png", "gif", "webp")}
_IMAGES["image/jpg"] = "image/jpeg"
_NO_ID = re.compile(r"[^a-zA-Z0-9_-]")
"""What the ids of other servers' tool calls may hold and Anthropic's may not."""


SERVER = "Anthropic"
"""Its name in messages."""

unsupported = partial(parameters.unsupported, SERVER)
"""The refusal of what Anthropic cannot do: the parameter, and what it is where its name does not tell."""


def conversation(given: Any) -> tuple[str | list[Block] | None, list[dict[str, Any]]]:
    """`system` and `messages`.

    Neighbours of one role become one turn; in it tool results come first, as the service wants
    them. A message's `thinking_blocks` are sent back as they came; `reasoning` without them cannot
    be, since Anthropic takes back only what it has signed. Authors' names have no place.

    Raises `BadRequest` or `UnsupportedParameter` naming the part that cannot be sent.
    """
    if not isinstance(given, list):
        raise BadRequest("messages must be a list.", param="messages")
    system: list[Block] = []
    turns: list[dict[str, Any]] = []
    for index, message in enumerate(given):
        where = f"messages[{index}]"
        if not isinstance(message, Mapping):
            raise BadRequest(f"{where} is not an object.", param=where)
        role, blocks = _message(message, where)
        _carry_cache_control(message, blocks)
        if role == "system":
            system += blocks
        elif turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        elif blocks:
            turns.append({"role": role, "content": blocks})
    if not turns:
        raise BadRequest("Anthropic needs a message that is no system message. Add one.", param="messages")
    for turn in turns:
        turn["content"].sort(key=lambda block: block["type"] != "tool_result")
    return _system(system), turns


def _system(blocks: list[Block]) -> str | list[Block] | None:
    if len(blocks) == 1 and "cache_control" not in blocks[0]:
        return str(blocks[0]["text"])
    return blocks or None


def _message(message: Mapping[str, Any], where: str) -> tuple[str, list[Block]]:
    """The role of the turn a message belongs to, and its blocks; an assistant may have said nothing."""
    role, content = message.get("role"), message.get("content")
    if role == "assistant":
        return role, list(_assistant(message, where))
    if role == "tool":
        return "user", [_tool_result(message, where)]
    if role in ("system", "developer"):
        return "system", list(_blocks(content, f"{where}.content", allowed=("text",)))
    if role != "user":
        raise unsupported(f"{where}.role", "this role of a message")
    blocks = list(_blocks(content, f"{where}.content", allowed=("text", "image_url", "file")))
    if not blocks:
        raise BadRequest(f"{where} has no content. Anthropic refuses empty messages.", param=where)
    return role, blocks


def _carry_cache_control(message: Mapping[str, Any], blocks: list[Block]) -> None:
    """A message's own mark stands for all before its end, which is where Anthropic sets it."""
    if blocks and message.get("cache_control") and not blocks[-1]["type"].endswith("thinking"):
        blocks[-1].setdefault("cache_control", message["cache_control"])


def _assistant(message: Mapping[str, Any], where: str) -> Iterator[Block]:
    for block in message.get("thinking_blocks") or ():
        if not isinstance(block, Mapping) or block.get("type") not in ("thinking", "redacted_thinking"):
            at = f"{where}.thinking_blocks"
            raise BadRequest(f"{at} holds something else than blocks of thinking.", param=at)
        yield dict(block)
    content = message.get("content")
    yield from _blocks(content or message.get("refusal"), f"{where}.content", allowed=("text", "refusal"))
    for index, call in enumerate(message.get("tool_calls") or ()):
        yield _tool_use(call, f"{where}.tool_calls[{index}]")


def _tool_use(call: Any, where: str) -> Block:
    function = function_of(call, where)
    made = {
        "type": "tool_use",
        "id": _id(call.get("id"), f"{where}.id"),
        "name": str(function.get("name") or ""),
        "input": arguments_object(function, where),
    }
    return made | _cache_control(call)


def _tool_result(message: Mapping[str, Any], where: str) -> Block:
    made: Block = {
        "type": "tool_result",
        "tool_use_id": _id(message.get("tool_call_id"), f"{where}.tool_call_id"),
    }
    content = message.get("content")
    if isinstance(content, str):
        made["content"] = content
    elif blocks := list(_blocks(content, f"{where}.content", allowed=("text", "image_url", "file"))):
        made["content"] = blocks
    if message.get("is_error") is True:
        made["is_error"] = True
    return made


def _id(given: Any, where: str) -> str:
    if not given:
        raise BadRequest(f"{where} is missing. Each tool call and its result need the same id.", param=where)
    return _NO_ID.sub("_", str(given))


def _blocks(content: Any, where: str, *, allowed: tuple[str, ...]) -> Iterator[Block]:
    """The blocks of a string or of a list of parts; empty texts, which Anthropic refuses, are left out."""
    if content is None or isinstance(content, str):
        content = [{"type": "text", "text": content}]
    for index, part in enumerate(content if isinstance(content, list) else [content]):
        at = f"{where}[{index}]"
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind not in allowed:
            raise unsupported(f"{at}.type", f"this type of content ({kind}) here")
        if kind in ("text", "refusal"):
            if text := part.get(kind):
                yield {"type": "text", "text": str(text)} | _cache_control(part)
        elif kind == "image_url":
            yield _image(part.get("image_url"), f"{at}.image_url") | _cache_control(part)
        else:
            yield _document(part.get("file"), f"{at}.file") | _cache_control(part)


def _cache_control(part: Mapping[str, Any]) -> Block:
    return {"cache_control": part["cache_control"]} if part.get("cache_control") else {}


def _image(given: Any, where: str) -> Block:
    url = given.get("url") if isinstance(given, Mapping) else given
    if isinstance(url, str) and url.startswith(("https://", "http://")):
        return {"type": "image", "source": {"type": "url", "url": url}}
    media_type, base64, data = _data_url(url)
    if not base64 or media_type not in _IMAGES:
        raise unsupported(where, "images other than JPEG, PNG, GIF and WebP, by URL or data:…;base64")
    return {
        "type": "image",
        "source": {"type": "base64", "media_type": _IMAGES[media_type], "data": data},
    }


def _document(given: Any, where: str) -> Block:
    file = given if isinstance(given, Mapping) else {}
    media_type, base64, data = _data_url(file.get("file_data"))
    if media_type == "application/pdf" and base64:
        source = {"type": "base64", "media_type": media_type, "data": data}
    elif media_type == "text/plain":
        source = {"type": "text", "media_type": media_type, "data": _text(data, base64, where)}
    else:
        raise unsupported(where, "files other than PDF and plain text in a data: URL")
    title = file.get("filename")
    return {"type": "document", "source": source} | ({"title": title} if title else {})


def _data_url(url: Any) -> tuple[str, bool, str]:
    """Media type, whether the data are base64, and the data; empty for what is no data: URL."""
    head, comma, data = url.partition(",") if isinstance(url, str) else ("", "", "")
    if not comma or not head.startswith("data:"):
        return "", False, ""
    media_type, *parameters = head.removeprefix("data:").lower().split(";")
    return media_type, "base64" in parameters, data


def _text(data: str, base64: bool, where: str) -> str:
    try:
        return (b64decode(data) if base64 else unquote_to_bytes(data)).decode()
    except ValueError:  # binascii.Error and UnicodeDecodeError are ValueErrors
        raise BadRequest(f"{where}.file_data is not text in UTF-8.", param=where) from None
