"""Writes Ollama's native answers byte for byte, with dates and durations that have no clock in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import sha256
from typing import Any

from pydantic_core import to_json

from k9_broker.fake.answers import Answer, Question, answer
from k9_broker.fake.faults import Behaviour
from k9_broker.fake.openai_asks import JSON_OBJECT, read_tools
from k9_broker.fake.script import Call, Refused, Reply, Script
from k9_broker.fake.vectors import embed
from k9_broker.results import unpack

VERSION = "0.32.1"
"""The server whose wire format this is."""

_JSON = "application/json; charset=utf-8"
_NDJSON = "application/x-ndjson"
_TEXT = "text/plain; charset=utf-8"
_CREATED = "2023-11-14T22:13:20Z"
_LONG_AFTER = "2318-12-31T00:00:00Z"
_NS_PER_MS = 1_000_000
_SIZE = 2_019_393_189
_BUSY = "server busy, please try again.  maximum pending requests exceeded"
_BROKEN = to_json({"error": "an error was encountered while running the model"})

Piece = Callable[[str, list[dict[str, Any]] | None], Mapping[str, Any]]
"""The part of an object that holds text: `message` of a chat, `response` of a generation."""


def error(status: int, message: str, headers: tuple[tuple[str, str], ...] = ()) -> Reply:
    return Reply(to_json({"error": message}), status, _JSON, headers)


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

    def piece(text: str, calls: list[dict[str, Any]] | None) -> Mapping[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": text}
        return {"message": message | {"tool_calls": calls} if calls else message}

    return _told(call, name, bool(messages), said, asked, piece)


def generate(call: Call) -> Script:
    """`POST /api/generate`."""
    name = _model(call)
    prompt, system = call.body.get("prompt") or "", call.body.get("system") or ""
    if not isinstance(prompt, str) or not isinstance(system, str):
        raise Refused(error(400, "json: cannot unmarshal into Go struct field GenerateRequest.prompt"))
    return _told(call, name, bool(prompt), f"{system}\n{prompt}", prompt, lambda text, _: {"response": text})


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
    return Script(_JSON, ((0, to_json(body)),), _BROKEN, inputs=len(texts), unload=_unloads(call))


def show(call: Call) -> Reply:
    """`POST /api/show`."""
    _model(call)
    body = {
        "details": _details(),
        "model_info": {
            "general.architecture": "fake",
            "fake.context_length": call.behaviour.context_tokens or 131_072,
            "fake.embedding_length": call.behaviour.dimensions,
        },
        "capabilities": ["completion", "tools", "embedding"],
    }
    return Reply(to_json(body), content_type=_JSON)


OPERATIONS: Mapping[str, Callable[[Call], Script]] = {
    "/api/chat": chat,
    "/api/generate": generate,
    "/api/embed": embeddings,
}
"""What takes time and may fail."""

DESCRIPTIONS: Mapping[str, Callable[[Call], Reply]] = {"/api/show": show}
"""What is asked with a body and answered at once."""


def inventory(path: str, behaviour: Behaviour, loaded: Iterable[str]) -> Reply | None:
    """What `GET` finds at `/`, `/api/version`, `/api/tags` and `/api/ps`; `None` elsewhere."""
    match path:
        case "/":
            return Reply(b"Ollama is running", content_type=_TEXT)
        case "/api/version":
            return Reply(to_json({"version": VERSION}), content_type=_JSON)
        case "/api/tags":
            listed = [{**_listed(name), "modified_at": _CREATED} for name in behaviour.models]
            return Reply(to_json({"models": listed}), content_type=_JSON)
        case "/api/ps":
            extra = {"expires_at": _LONG_AFTER, "size_vram": _SIZE}
            extra["context_length"] = behaviour.context_tokens or 4096
            running = [{**_listed(name), **extra} for name in behaviour.models if name in set(loaded)]
            return Reply(to_json({"models": running}), content_type=_JSON)
    return None


def failure(behaviour: Behaviour) -> Reply:
    """The error a fault asks for. Like the real server, 503 has no `Retry-After` unless one is set."""
    after = behaviour.retry_after
    headers = () if after is None else (("retry-after", f"{after:g}"),)
    message = _BUSY if behaviour.error_status == 503 else "model runner has unexpectedly stopped"
    return error(behaviour.error_status, message, headers)


def unreadable(body: bytes, why: str) -> Refused:
    """The body is absent, not JSON, or not an object."""
    if not body:
        return Refused(error(400, "missing request body"))
    return Refused(error(400, "unexpected EOF" if "EOF" in why else "invalid character in request body"))


def no_route(method: str, path: str) -> Reply:
    wrong_method = (
        path in OPERATIONS or path in DESCRIPTIONS or path in ("/", "/api/version", "/api/tags", "/api/ps")
    )
    if wrong_method:
        return Reply(b"405 method not allowed", 405, _TEXT)
    return Reply(b"404 page not found", 404, _TEXT)


def _model(call: Call) -> str:
    name = call.body.get("model")
    if not isinstance(name, str) or not name:
        raise Refused(error(400, "model is required"))
    if call.model is None:
        raise Refused(error(404, f"model '{name}' not found"))
    if call.body.get("think"):
        raise Refused(error(400, f'"{name}" does not support thinking'))
    return name


def _told(call: Call, name: str, asks: bool, said: str, asked: str, piece: Piece) -> Script:
    """The answer in words or tool calls; without a question the model is only loaded or unloaded."""
    base = {"model": name, "created_at": _CREATED}
    streamed = call.body.get("stream") is not False
    if not asks:
        reason = "unload" if _unloads(call) else "load"
        body = {**base, **piece("", None), "done": True, "done_reason": reason}
        return Script(_JSON, ((0, to_json(body)),), _BROKEN, unload=_unloads(call))
    question = _question(call, said, asked)
    each = answer(question, call.behaviour.answer_tokens)
    calls = _calls(each)
    end = {
        "done": True,
        "done_reason": "stop" if each.calls else each.finish,
        **_counts(call, question, each),
    }
    if not streamed:
        body = {**base, **piece(each.text, calls), **end}
        whole = ((each.tokens, to_json(body)),)
        return Script(_JSON, whole, _BROKEN, tokens=each.tokens, unload=_unloads(call))

    def lines() -> Iterator[tuple[int, bytes]]:
        if calls:
            yield each.tokens, _line({**base, **piece("", calls), "done": False})
        for due, text in enumerate(each.pieces, 1):
            yield due, _line({**base, **piece(text, None), "done": False})
        yield each.tokens + 1, _line({**base, **piece("", None), **end})

    broken = _BROKEN + b"\n"
    return Script(_NDJSON, tuple(lines()), broken, True, each.tokens, unload=_unloads(call))


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


def _tagged(name: str) -> str:
    return name if ":" in name else f"{name}:latest"


def _details() -> dict[str, Any]:
    return {
        "parent_model": "",
        "format": "gguf",
        "family": "fake",
        "families": ["fake"],
        "parameter_size": "3.2B",
        "quantization_level": "Q4_K_M",
    }


def _listed(name: str) -> dict[str, Any]:
    tagged = _tagged(name)
    digest = sha256(tagged.encode()).hexdigest()
    return {"name": tagged, "model": tagged, "size": _SIZE, "digest": digest, "details": _details()}
