"""OpenAI's request in the words of one server of its family. What a server can do is data: `Server`.

Refused by name is what the server would refuse with less clear words, or ignore in silence. Left out is
what K-9 carries for other dialects: `thinking` where `reasoning_effort` says the same, `cache_control`,
`thinking_blocks`, `is_error`, and reasoning where the server has no word for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

from k9_broker.dialects.base import Options
from k9_broker.dialects.parameters import (
    BOOKKEEPING,
    HARMLESS,
    THINKING,
    asks_to_think,
    given,
    unsupported,
)
from k9_broker.requests import InferenceRequest, Operation

GUIDED: Mapping[str, str] = {
    "guided_json": "json",
    "guided_regex": "regex",
    "guided_choice": "choice",
    "guided_grammar": "grammar",
    "guided_whitespace_pattern": "whitespace_pattern",
}
"""Fields vLLM once had → where it has them now, in `structured_outputs`. No server of today reads them."""


@dataclass(frozen=True, slots=True)
class Server:
    """What servers of one dialect can do."""

    name: str
    """For people."""
    takes: Mapping[Operation, AbstractSet[str]] = field(default_factory=dict)
    """Every field it takes; an operation that is not here takes any."""
    refuses: AbstractSet[str] = frozenset(GUIDED)
    """Fields it would ignore although they bear on the answer."""
    renames: Mapping[str, str] = field(default_factory=dict)
    """Field of another server → its own."""
    most_tokens: str | None = "max_tokens"
    """Its word for the length of a chat's answer; `None` when it takes the old word and the new one."""
    efforts: Mapping[str, str] = field(default_factory=dict)
    """`reasoning_effort` → the nearest it has, for those it does not."""
    reasoning: str | None = "reasoning_content"
    """Its word for what an assistant thought in an earlier turn; `None` when it takes none back."""
    developer: bool = True
    """It knows the role; others are told `system`."""
    tool_files: bool = True
    """The result of a tool may have images."""
    fetches: bool = True
    """It may fetch URLs in messages; others would do it from inside the operator's network."""
    thinking: bool = False
    """It may have a `thinking` of its own, so that a lone one passes."""
    own_options: AbstractSet[str] = frozenset({"encoding_format", "stream_options", "image_urls", "load"})
    """Backend options for K-9; the rest are fields of text requests."""


_LEFT_OUT = frozenset({"thinking", "cache_control", "stream", "stream_options"})
"""Fields of K-9's own, and those that K-9 sets itself."""

_MESSAGE = frozenset({"cache_control", "thinking_blocks", "is_error", "reasoning", "reasoning_content"})
"""Keys of a message that no server gets as they are."""


def text_body(request: InferenceRequest, options: Options, server: Server) -> dict[str, Any]:
    """The JSON body of a chat or completions request. The operator's options are defaults.

    Raises `UnsupportedParameter`, naming the field.
    """
    body = _asked(request, server)
    _translate(body, request.operation, options, server)
    if options:
        defaults = {name: value for name, value in options.items() if name not in server.own_options}
        _translate(defaults, request.operation, options, server)
        body = defaults | body
    body["model"] = request.model
    if isinstance(body.get("stop"), str):  # TGI refuses a lone text; everybody takes a list
        body["stop"] = [body["stop"]]
    if request.stream:
        body["stream"] = True
        if options.get("stream_options") is not False:
            wished = request.body.get("stream_options") or {}
            body["stream_options"] = {**wished, "include_usage": True}
    return body


def embeddings_body(request: InferenceRequest, options: Options, server: Server) -> dict[str, Any]:
    """The JSON body of an embeddings request: base64, unless the operator says otherwise."""
    encoding = options.get("encoding_format", "base64")
    return {**_asked(request, server), "model": request.model, "encoding_format": encoding}


def _asked(request: InferenceRequest, server: Server) -> dict[str, Any]:
    """The caller's fields, as far as they are for the server and known to it."""
    asked = given(request.body)
    if not _LEFT_OUT.isdisjoint(asked):
        if not server.thinking and asks_to_think(asked):
            raise unsupported(server.name, "thinking", THINKING)
        own = server.thinking and _is_its_own(asked)
        asked = {n: value for n, value in asked.items() if n not in _LEFT_OUT or (own and n == "thinking")}
    takes = server.takes.get(request.operation)
    if not server.refuses.isdisjoint(asked) or (takes is not None and not asked.keys() <= takes):
        for name in [name for name in asked if name in server.refuses or (takes and name not in takes)]:
            if not (name in BOOKKEEPING or (name in HARMLESS and HARMLESS[name](asked[name]))):
                raise unsupported(server.name, name, name)
            del asked[name]
    return asked


def _is_its_own(asked: Mapping[str, Any]) -> bool:
    """Whether `thinking` is a word of the server's: from Anthropic's callers an effort comes with it."""
    thinking = asked.get("thinking")
    adaptive = isinstance(thinking, Mapping) and thinking.get("type") == "adaptive"
    return thinking is not None and "reasoning_effort" not in asked and not adaptive


def _translate(asked: dict[str, Any], operation: Operation, options: Options, server: Server) -> None:
    """Put the fields of a text request into the server's words, in place."""
    if server.renames and not asked.keys().isdisjoint(server.renames):
        for name, word in server.renames.items():
            if name in asked:
                asked.setdefault(word, asked.pop(name))
    if operation is not Operation.CHAT:
        return
    if server.most_tokens and ("max_tokens" in asked or "max_completion_tokens" in asked):
        older = asked.pop("max_tokens", None)
        asked[server.most_tokens] = asked.pop("max_completion_tokens", older)
    if "reasoning_effort" in asked:
        effort = asked["reasoning_effort"]
        asked["reasoning_effort"] = server.efforts.get(effort, effort) if isinstance(effort, str) else effort
    if isinstance(asked.get("messages"), list):
        fetches = server.fetches or options.get("image_urls") is True
        asked["messages"] = [
            message if _is_plain(message, server) else _message(message, index, server, fetches)
            for index, message in enumerate(asked["messages"])
        ]
    if "tools" in asked and isinstance(asked["tools"], list):
        asked["tools"] = [_without_marks(tool) for tool in asked["tools"]]


def _is_plain(message: Any, server: Server) -> bool:
    """Whether a message goes as it is: nearly all do, and what is none is the server's to refuse."""
    if not isinstance(message, dict):
        return True
    return (
        isinstance(message.get("content"), str)
        and _MESSAGE.isdisjoint(message)
        and (server.developer or message.get("role") != "developer")
    )


def _message(message: Mapping[str, Any], index: int, server: Server, fetches: bool) -> dict[str, Any]:
    made = {name: value for name, value in message.items() if name not in _MESSAGE}
    role = made.get("role")
    if role == "developer" and not server.developer:
        made["role"] = "system"
    reasoning = message.get("reasoning") or message.get("reasoning_content")
    if role == "assistant" and server.reasoning and reasoning:
        made[server.reasoning] = reasoning
    parts = made.get("content")
    if isinstance(parts, list):
        where = f"messages[{index}].content"
        parts = [_part(part, f"{where}[{place}]", server, fetches) for place, part in enumerate(parts)]
        made["content"] = _tool_result(parts, where, server) if role == "tool" else parts
    return made


def _part(part: Any, where: str, server: Server, fetches: bool) -> Any:
    if not fetches and isinstance(part, Mapping) and part.get("type") != "text":
        for name, value in part.items():
            inner = (value.get("url"), value.get("data")) if isinstance(value, Mapping) else (value,)
            if any(isinstance(one, str) and _is_remote(one) for one in inner):
                raise unsupported(
                    server.name,
                    f"{where}.{name}",
                    "URLs to fetch, unless its operator allows them (option `image_urls`);"
                    " data:…;base64 URLs pass",
                )
    return _without_marks(part)


def _is_remote(text: str) -> bool:
    """Whether a server would fetch it. Base64 has no colon."""
    start = text[:32].lstrip().lower()
    return "://" in start and not start.startswith("data:")


def _tool_result(parts: list[Any], where: str, server: Server) -> Any:
    """One text where there is nothing but texts: every server and chat template takes that."""
    if all(isinstance(part, Mapping) and part.get("type") == "text" for part in parts):
        return "\n".join(str(part.get("text") or "") for part in parts)
    if not server.tool_files:
        raise unsupported(server.name, where, "anything but text in the result of a tool")
    return parts


def _without_marks(thing: Any) -> Any:
    """A part or tool without `cache_control`, which says what another provider shall cache."""
    if isinstance(thing, Mapping) and "cache_control" in thing:
        return {name: value for name, value in thing.items() if name != "cache_control"}
    return thing
