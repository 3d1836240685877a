"""Reads Anthropic's requests, and refuses the bad ones as Anthropic does."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, NoReturn

from pydantic_core import to_json

from k9_broker.fake.answers import Question, Tool
from k9_broker.fake.anthropic_words import error, signature
from k9_broker.fake.script import Call, Refused

NEWEST = "2026-10-21"
VERSIONS = ("2023-06-01", NEWEST)
"""Of the API; the newer one knows no sampling parameters."""

_REMOVED = ("temperature", "top_p", "top_k")
_TYPES = ("image/jpeg", "image/png", "image/gif", "image/webp")
_LEAST_THOUGHT = 8
"""Tokens of thought of one who is asked to think, where the behaviour says nothing."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A question; in tokens what of it the cache has, takes (`written`) and does not take (`fresh`)."""

    question: Question
    read: int = 0
    written: int = 0
    fresh: int = 0
    marks: tuple[bytes, ...] = ()
    """Digests of the beginnings of the prompt that the cache has from now on."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of the prompt in its order; `mark` is where the request ends something to be cached."""

    text: str
    mark: bool


def refuse(message: str, status: int = 400, kind: str = "invalid_request_error") -> NoReturn:
    raise Refused(error(status, kind, message))


def model(call: Call) -> str:
    """The model's name as the caller wrote it. Raises `Refused`."""
    name = call.body.get("model")
    if not isinstance(name, str) or not name:
        refuse("model: Field required")
    if call.model is None:
        refuse(f"model: {name}", 404, "not_found_error")
    return name


def message(call: Call) -> Asked:
    """What a request to `/v1/messages` asks. Raises `Refused`."""
    body = call.body
    limit = body.get("max_tokens")
    if limit is None:
        refuse("max_tokens: Field required")
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
        refuse("max_tokens: Input should be greater than or equal to 1")
    _check_sampling(call)
    asked = counted(call)
    thinking = _thinking(call, limit)
    tools = read_tools(body)
    choice, parallel = _tool_choice(body, tools)
    if thinking and choice not in ("auto", "none"):
        refuse("Thinking may not be enabled when tool_choice forces tool use.")
    stops = body.get("stop_sequences") or []
    if not isinstance(stops, list) or not all(isinstance(stop, str) and stop for stop in stops):
        refuse("stop_sequences: Input should be a valid list of non-empty strings")
    last = body["messages"][-1]
    question = Question(
        said=asked.question.said,
        asked=_words(last["content"]) if last["role"] == "user" else "",
        max_tokens=limit,
        stop=tuple(stops),
        tools=tools,
        tool_choice=choice,
        parallel=parallel,
        schema=_schema(body),
        thinking=thinking,
    )
    context = call.behaviour.context_tokens
    if context and question.tokens > context:
        refuse(f"prompt is too long: {question.tokens} tokens > {context} maximum")
    return Asked(question, asked.read, asked.written, asked.fresh, asked.marks)


def counted(call: Call) -> Asked:
    """The prompt and its tokens, split by what is cached. Raises `Refused`."""
    pieces = list(_pieces(call))
    said, seen, marks = "", 0, []
    digest = sha256()
    read = written = 0
    for piece in pieces:
        digest.update(piece.text.encode(errors="replace") + b"\0")
        said += piece.text + "\n"
        seen += len(piece.text.split())
        if piece.mark:
            marks.append(digest.digest())
            read, written = (seen, seen) if marks[-1] in call.remembered else (read, seen)
    question = Question(said)
    return Asked(question, read, written - read, question.tokens - written, tuple(marks))


def read_tools(body: Mapping[str, Any]) -> tuple[Tool, ...]:
    """The caller's own tools; those that the service brings are passed over."""
    tools = body.get("tools") or []
    if not isinstance(tools, list):
        refuse("tools: Input should be a valid list")
    for at, tool in enumerate(tools):
        if not isinstance(tool, dict) or not tool.get("name"):
            refuse(f"tools.{at}.custom.name: Field required")
        if tool.get("type", "custom") == "custom" and not isinstance(tool.get("input_schema"), dict):
            refuse(f"tools.{at}.custom.input_schema: Field required")
    return tuple(Tool(tool["name"], tool["input_schema"]) for tool in tools if "input_schema" in tool)


def _check_sampling(call: Call) -> None:
    if call.version == NEWEST:
        for name in _REMOVED:
            if name in call.body:
                refuse(f"{name}: Extra inputs are not permitted")
    for name in ("temperature", "top_p"):
        value = call.body.get(name)
        if value is not None and not 0 <= value <= 1:
            refuse(f"{name}: range: 0..1")


def _thinking(call: Call, limit: int) -> int:
    """Tokens of thought, if it is asked for."""
    wanted = call.body.get("thinking")
    if wanted is None:
        return 0
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind == "disabled":
        return 0
    if kind not in ("enabled", "adaptive"):
        refuse(
            "thinking: Input tag does not match any of the expected tags: 'adaptive', 'disabled', 'enabled'"
        )
    if kind == "enabled":
        budget = wanted.get("budget_tokens")
        if not isinstance(budget, int) or budget < 1024:
            refuse("thinking.enabled.budget_tokens: Input should be greater than or equal to 1024")
        if budget >= limit:
            refuse("`max_tokens` must be greater than `thinking.budget_tokens`.")
    if call.body.get("temperature") not in (None, 1, 1.0):
        refuse("`temperature` may only be set to 1 when thinking is enabled.")
    return call.behaviour.reasoning_tokens or _LEAST_THOUGHT


def _tool_choice(body: Mapping[str, Any], tools: tuple[Tool, ...]) -> tuple[str, bool]:
    """The choice in the answer's words, and whether several tools may be called at once."""
    choice = body.get("tool_choice") or {"type": "auto"}
    if not isinstance(choice, dict):
        refuse("tool_choice: Input should be an object")
    parallel = choice.get("disable_parallel_tool_use") is not True
    match choice.get("type"):
        case "any" if tools:
            return "every", parallel
        case "tool" if choice.get("name") in [tool.name for tool in tools]:
            return f"named:{choice['name']}", parallel
        case "tool":
            refuse(f"Tool '{choice.get('name')}' not found in provided tools")
        case "auto" | "none":
            return str(choice["type"]), parallel
    refuse("tool_choice: Input should be 'auto', 'any', 'tool' or 'none', with tools to choose from")


def _schema(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    match body.get("output_config"):
        case {"format": {"type": "json_schema", "schema": dict(schema)}}:
            return schema
        case {"format": {}}:
            refuse("output_config.format: Input should be a JSON schema")
    return None


# -- the prompt, piece by piece, in the order in which it is cached ------------------------------------


def _pieces(call: Call) -> Iterator[Piece]:
    body = call.body
    messages = body.get("messages")
    if messages is None:
        refuse("messages: Field required")
    if not isinstance(messages, list) or not messages:
        refuse("messages: at least one message is required")
    for tool in body.get("tools") or ():
        if isinstance(tool, dict):
            yield Piece(to_json({**tool, "cache_control": None}).decode(), "cache_control" in tool)
    for at, block in enumerate(_blocks(body.get("system") or "", "system")):
        if block.get("type") != "text":
            refuse(f"system.{at}.type: Input should be 'text'")
        yield Piece("system: " + str(block.get("text")), "cache_control" in block)
    called: set[str] = set()
    for at, each in enumerate(messages):
        called = yield from _message(call, each, at, called)
    if called:
        _unanswered(called, len(messages) - 1)
    yield Piece("", "cache_control" in body)


def _message(call: Call, each: Any, at: int, called: set[str]) -> Generator[Piece, None, set[str]]:
    """The pieces of one message; returns the ids of the tools it calls, which the next must answer."""
    where = f"messages.{at}"
    if not isinstance(each, dict) or each.get("role") not in ("user", "assistant", "system"):
        refuse(f"{where}.role: Input should be 'user' or 'assistant'")
    if each.get("content") in (None, ""):
        refuse(f"{where}.content: Field required")
    calls: set[str] = set()
    results: set[str] = set()
    for number, block in enumerate(_blocks(each["content"], f"{where}.content")):
        spot, kind = f"{where}.content.{number}", block.get("type")
        _check_block(call, each["role"], block, spot)
        if kind == "tool_use":
            calls.add(str(block.get("id")))
        elif kind == "tool_result":
            results.add(str(block.get("tool_use_id")))
        yield Piece(f"{each['role']}: {_read(block)}", "cache_control" in block)
    if results - called:
        names = ", ".join(sorted(results - called))
        refuse(f"{where}.content.0: unexpected `tool_use_id` found in `tool_result` blocks: {names}.")
    if called - results:
        _unanswered(called - results, at - 1)
    return calls


def _unanswered(called: set[str], at: int) -> NoReturn:
    names = ", ".join(sorted(called))
    refuse(
        f"messages.{at}: `tool_use` ids were found without `tool_result` blocks immediately after: {names}."
    )


def _check_block(call: Call, role: str, block: Mapping[str, Any], spot: str) -> None:
    kind = block.get("type")
    if call.version == NEWEST and kind == "document" and role == "assistant":
        refuse(f"{spot}: `document` blocks are not permitted in assistant messages")
    if call.version == NEWEST and kind == "text" and role == "user" and block.get("citations"):
        refuse(f"{spot}.text.citations: Extra inputs are not permitted")
    if kind == "text" and not block.get("text"):
        refuse(f"{spot}: text content blocks must be non-empty")
    if kind == "image":
        _check_source(block.get("source"), spot)
    if kind == "thinking" and block.get("signature") != signature(str(block.get("thinking"))):
        refuse(f"{spot}: Invalid `signature` in `thinking` block")
    if kind == "tool_use" and not isinstance(block.get("input"), dict):
        refuse(f"{spot}.tool_use.input: Input should be an object")


def _check_source(source: Any, spot: str) -> None:
    match source:
        case {"type": "base64", "media_type": str(kind), "data": str()} if kind in _TYPES:
            return
        case {"type": "url", "url": str(url)} if url.startswith(("http://", "https://")):
            return
        case {"type": "file", "file_id": str()}:
            return
    refuse(f"{spot}.image.source: Input should be base64 data with its media_type, or a url")


def _blocks(content: Any, where: str) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    if not isinstance(content, list) or not all(isinstance(block, dict) for block in content):
        refuse(f"{where}: Input should be a valid string or list of blocks")
    return content


def _read(block: Mapping[str, Any]) -> str:
    """A block as text: pictures and the like by their digest, so that the answer depends on them."""
    match block.get("type"):
        case "text":
            return str(block["text"])
        case "tool_result":
            return _words(block.get("content") or "")
    plain = {name: value for name, value in block.items() if name != "cache_control"}
    return f"[{block.get('type')} {sha256(to_json(plain)).hexdigest()[:16]}]"


def _words(content: Any) -> str:
    """The text in a message; what comes back from a tool is not what the user says."""
    if isinstance(content, str):
        return content
    return " ".join(str(block.get("text")) for block in content if block.get("type") == "text")
