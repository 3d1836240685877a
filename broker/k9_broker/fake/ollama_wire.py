"""Writes Ollama's native answers byte for byte, with dates and durations that have no clock in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pydantic_core import to_json

from k9_broker.fake.answers import Answer, Question, answer
from k9_broker.fake.head import Head
from k9_broker.fake.ollama_models import CREATED, JSON, PATHS, TEXT, described, inventory
from k9_broker.fake.openai_asks import JSON_OBJECT, read_tools
from k9_broker.fake.script import Call, Refused, Reply, Script
from k9_broker.fake.vectors import embed
from k9_broker.fake.wire import Operation, State, Trouble, Wire
from k9_broker.results import unpack

_NDJSON = "application/x-ndjson"
_NS_PER_MS = 1_000_000
_FAILURES = {
    401: "unauthorized",
    429: "you have reached your rate limit, please try again later",
    503: "server busy, please try again.  maximum pending requests exceeded",
}
_BROKEN = to_json({"error": "an error was encountered while running the model"})

Piece = Callable[[str, str, list[dict[str, Any]] | None], Mapping[str, Any]]
"""The part of an object that holds text and thought: `message` of a chat, `response` of a generation."""


def error(status: int, message: str, headers: tuple[tuple[str, str], ...] = ()) -> Reply:
    return Reply(to_json({"error": message}), status, JSON, headers)


def chat(call: Call) -> Script:
    """`POST /api/chat`."""
    name = _model(call)
    messages = call.body.get("messages") or []
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise Refused(error(400, "json: cannot unmarshal messages into Go struct field ChatRequest.messages"))
    contents = [message.get("content") or "" for message in messages]
    if not all(isinstance(content, str) for content in contents):
        raise Refused(
            error(400, "json: cannot unmarshal array into Go struct field ChatRequest.messages.content")
        )
    said = "\n".join(f"{message.get('role')}: {message.get('content') or ''}" for message in messages)
    asked = contents[-1] if messages and messages[-1].get("role") == "user" else ""

    def piece(text: str, thought: str, calls: list[dict[str, Any]] | None) -> Mapping[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": text}
        if thought:
            message["thinking"] = thought
        return {"message": message | {"tool_calls": calls} if calls else message}

    return _told(call, name, bool(messages), said, asked, piece)


def generate(call: Call) -> Script:
    """`POST /api/generate`."""
    name = _model(call)
    prompt, system = call.body.get("prompt") or "", call.body.get("system") or ""
    if not isinstance(prompt, str) or not isinstance(system, str):
        raise Refused(error(400, "json: cannot unmarshal into Go struct field GenerateRequest.prompt"))

    def piece(text: str, thought: str, _: list[dict[str, Any]] | None) -> Mapping[str, Any]:
        return {"response": text, "thinking": thought} if thought else {"response": text}

    return _told(call, name, bool(prompt), f"{system}\n{prompt}", prompt, piece)


def embeddings(call: Call) -> Script:
    """`POST /api/embed`."""
    name, given = _model(call), call.body.get("input")
    texts = [given] if isinstance(given, str) and given else given or []
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise Refused(error(400, "invalid input type"))
    bad = call.behaviour.fail_inputs_containing
    if bad and any(bad in text for text in texts):
        raise Refused(error(400, "the input cannot be embedded"))
    counts = [len(text.split()) or 1 for text in texts]
    limit = call.behaviour.context_tokens
    if limit and call.body.get("truncate") is False and counts and max(counts) > limit:
        raise Refused(error(400, "the input length exceeds the context length"))
    dimensions = call.body.get("dimensions") or call.behaviour.dimensions
    if not isinstance(dimensions, int) or not 1 <= dimensions <= 8192:
        raise Refused(error(400, "invalid dimensions"))
    body: dict[str, Any] = {"model": name, "embeddings": [unpack(embed(text, dimensions)) for text in texts]}
    if texts:
        work = int(call.behaviour.per_input_ms * len(texts) * _NS_PER_MS)
        load = _load(call)
        body |= {"total_duration": load + work, "load_duration": load, "prompt_eval_count": sum(counts)}
    return Script(
        JSON, ((0, to_json(body)),), _BROKEN, inputs=len(texts), unload=_unloads(call), prompt=sum(counts)
    )


def show(call: Call) -> Reply:
    """`POST /api/show`."""
    _model(call)
    return described(call.behaviour)


class OllamaWire(Wire):
    """Ollama's own paths. A server on the spot takes no key; with one it is like the hosted service."""

    operations: Mapping[str, Operation] = {
        "/api/chat": chat,
        "/api/generate": generate,
        "/api/embed": embeddings,
    }
    descriptions: Mapping[str, Callable[[Call], Reply]] = {"/api/show": show}

    def inventory(self, head: Head, state: State) -> Reply | None:
        return inventory(head.path, state.behaviour, state.loaded)

    def failure(self, trouble: Trouble) -> Reply:
        """Like the real server, 503 has no `Retry-After` unless one is set."""
        after = trouble.retry_after
        headers = () if after is None else (("retry-after", f"{after:g}"),)
        message = _FAILURES.get(trouble.status, "model runner has unexpectedly stopped")
        return error(trouble.status, message, headers)

    def unreadable(self, body: bytes, why: str) -> Refused:
        if not body:
            return Refused(error(400, "missing request body"))
        return Refused(error(400, "unexpected EOF" if "EOF" in why else "invalid character in request body"))

    def no_route(self, head: Head) -> Reply:
        path = head.path
        if path in self.operations or path in self.descriptions or path in PATHS:
            return Reply(b"405 method not allowed", 405, TEXT)
        return Reply(b"404 page not found", 404, TEXT)


def _model(call: Call) -> str:
    name = call.body.get("model")
    if not isinstance(name, str) or not name:
        raise Refused(error(400, "model is required"))
    if call.model is None:
        raise Refused(error(404, f"model '{name}' not found"))
    if call.body.get("think") and not call.behaviour.reasoning_tokens:
        raise Refused(error(400, f'"{name}" does not support thinking'))
    return name


def _told(call: Call, name: str, asks: bool, said: str, asked: str, piece: Piece) -> Script:
    """The answer in words or tool calls; without a question the model is only loaded or unloaded."""
    base = {"model": name, "created_at": CREATED}
    streamed = call.body.get("stream") is not False
    if not asks:
        reason = "unload" if _unloads(call) else "load"
        body = {**base, **piece("", "", None), "done": True, "done_reason": reason}
        return Script(JSON, ((0, to_json(body)),), _BROKEN, unload=_unloads(call))
    question = _question(call, said, asked)
    each = answer(question, call.behaviour.answer_tokens)
    calls = _calls(each)
    end = {
        "done": True,
        "done_reason": "stop" if each.calls else each.finish,
        **_counts(call, question, each),
    }
    sizes: dict[str, Any] = {"tokens": each.tokens, "unload": _unloads(call)}
    sizes |= {"prompt": question.tokens, "generated": each.tokens}
    if not streamed:
        body = {**base, **piece(each.text, "".join(each.thoughts), calls), **end}
        whole = ((each.tokens, to_json(body)),)
        return Script(JSON, whole, _BROKEN, **sizes)

    def lines() -> Iterator[tuple[int, bytes]]:
        for due, thought in enumerate(each.thoughts, 1):
            yield due, _line({**base, **piece("", thought, None), "done": False})
        if calls:
            yield each.tokens, _line({**base, **piece("", "", calls), "done": False})
        for due, text in enumerate(each.pieces, 1 + len(each.thoughts)):
            yield due, _line({**base, **piece(text, "", None), "done": False})
        yield each.tokens + 1, _line({**base, **piece("", "", None), **end})

    return Script(_NDJSON, tuple(lines()), _BROKEN + b"\n", True, **sizes)


def _question(call: Call, said: str, asked: str) -> Question:
    options = call.body.get("options") or {}
    if not isinstance(options, dict):
        raise Refused(error(400, "json: cannot unmarshal options into Go struct field"))
    limit, wanted = options.get("num_predict"), call.body.get("format")
    tools = read_tools(call.body.get("tools") or [])
    question = Question(
        said=said,
        asked=asked,
        seed=int(options.get("seed") or 0),
        max_tokens=limit if isinstance(limit, int) and limit > 0 else None,
        stop=tuple(str(stop) for stop in options.get("stop") or ()),
        tools=tools,
        tool_choice="auto" if tools else "none",
        schema=wanted if isinstance(wanted, dict) else JSON_OBJECT if wanted == "json" else None,
        thinking=0 if call.body.get("think") is False else call.behaviour.reasoning_tokens,
    )
    context = call.behaviour.context_tokens
    if context and call.body.get("truncate") is False and question.tokens > context:
        raise Refused(
            error(400, "the prompt is longer than the context length currently available to the model")
        )
    return question


def _calls(answer: Answer) -> list[dict[str, Any]] | None:
    """Tool calls with their arguments as objects, as Ollama has them."""
    return [
        {"id": call.id, "function": {"index": index, "name": call.name, "arguments": call.arguments}}
        for index, call in enumerate(answer.calls)
    ] or None


def _counts(call: Call, question: Question, answer: Answer) -> dict[str, int]:
    """Durations in nanoseconds, from the behaviour and not from a clock; counters of 0 are left out."""
    rate = call.behaviour.tokens_per_second or 1_000_000
    prompt = int(call.behaviour.first_token_ms * _NS_PER_MS) or 1000
    evaluation, load = int(answer.tokens / rate * 1e9), _load(call)
    counts = {
        "total_duration": load + prompt + evaluation,
        "load_duration": load,
        "prompt_eval_count": question.tokens,
        "prompt_eval_duration": prompt,
        "eval_count": answer.tokens,
        "eval_duration": evaluation,
    }
    return {name: count for name, count in counts.items() if count}


def _load(call: Call) -> int:
    return (int(call.behaviour.cold_load_ms * _NS_PER_MS) if call.cold else 0) or 1000


def _unloads(call: Call) -> bool:
    return call.body.get("keep_alive") in (0, "0", "0s")


def _line(value: Mapping[str, Any]) -> bytes:
    return to_json(value) + b"\n"
