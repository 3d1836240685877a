"""Writes OpenAI's answers byte for byte as the real API does, with dates and ids that never change."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from pydantic_core import to_json

from k9_broker.fake import openai_asks as asks
from k9_broker.fake.answers import Answer, Question, ToolCall, answer
from k9_broker.fake.faults import Behaviour
from k9_broker.fake.script import EPOCH, Call, Refused, Reply, Script
from k9_broker.fake.vectors import embed
from k9_broker.results import Usage, unpack

_SYSTEM = "fp_k9fake"
_DONE = b"data: [DONE]\n\n"
_STREAM = "text/event-stream; charset=utf-8"
_BROKEN = asks.failure(500, None, None).body


def chat(call: Call) -> Script:
    """`POST /v1/chat/completions`."""
    name, question = asks.model(call), asks.chat_question(call)
    named = question.tool_choice.startswith("named:")
    answers = _answers(call, [question])
    base = {"id": f"chatcmpl-{question.fingerprint}", "object": "chat.completion.chunk", "created": EPOCH}
    base |= {"model": name, "service_tier": "default", "system_fingerprint": _SYSTEM}

    def finish(answer: Answer) -> str:
        return "stop" if named and answer.calls else answer.finish

    def deltas() -> Iterator[tuple[int, int, Mapping[str, Any], str | None]]:
        for index, each in enumerate(answers):
            for due, delta in _chat_deltas(each):
                yield due, index, delta, None
            yield each.tokens + 1, index, {}, finish(each)

    if call.body.get("stream") is True:
        choices = (
            (due, {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason})
            for due, index, delta, reason in deltas()
        )
        return _streamed(call, [question], answers, base, choices)
    body = {**base, "object": "chat.completion"}
    body["choices"] = [
        {"index": index, "message": _message(each), "logprobs": None, "finish_reason": finish(each)}
        for index, each in enumerate(answers)
    ]
    return _whole([question], answers, body)


def completions(call: Call) -> Script:
    """`POST /v1/completions`."""
    name, questions = asks.model(call), asks.prompt_questions(call)
    answers = _answers(call, questions)
    base: dict[str, Any] = {"id": f"cmpl-{questions[0].fingerprint}", "object": "text_completion"}
    base |= {"created": EPOCH, "model": name, "system_fingerprint": _SYSTEM}

    def choice(index: int, text: str, finish: str | None) -> dict[str, Any]:
        return {"text": text, "index": index, "logprobs": None, "finish_reason": finish}

    def pieces() -> Iterator[tuple[int, Mapping[str, Any]]]:
        for index, each in enumerate(answers):
            yield from ((at, choice(index, piece, None)) for at, piece in enumerate(each.pieces, 1))
            yield each.tokens + 1, choice(index, "", each.finish)

    if call.body.get("stream") is True:
        return _streamed(call, questions, answers, base, pieces())
    base["choices"] = [choice(index, each.text, each.finish) for index, each in enumerate(answers)]
    return _whole(questions, answers, base)


def embeddings(call: Call) -> Script:
    """`POST /v1/embeddings`."""
    name, limit = asks.model(call), call.behaviour.max_inputs
    if call.body.get("input") in (None, "", []):
        raise asks.refuse("'$.input' is invalid. It is missing or empty.", "input")
    texts = asks.texts(call.body["input"], "input")
    if len(texts) > limit:
        raise asks.refuse(f"Invalid 'input': at most {limit} inputs in one request.", "input")
    if "" in texts:
        raise asks.refuse("'$.input' is invalid. An input cannot be an empty string.", "input")
    bad = call.behaviour.fail_inputs_containing
    if bad and any(bad in text for text in texts):
        raise asks.refuse("'$.input' is invalid. One of the inputs cannot be embedded.", "input")
    counts = [len(text.split()) or 1 for text in texts]
    if call.behaviour.context_tokens and max(counts) > call.behaviour.context_tokens:
        raise asks.refuse(
            f"This model's maximum context length is {call.behaviour.context_tokens} tokens.",
            "input",
            "context_length_exceeded",
        )
    dimensions = asks.integer(call.body, "dimensions", 1) or call.behaviour.dimensions
    if dimensions > 8192:
        raise asks.refuse("Invalid 'dimensions': at most 8192.", "dimensions", "invalid_value")
    shape = call.body.get("encoding_format") or "float"
    if shape not in ("float", "base64"):
        raise asks.refuse("'encoding_format' is 'float' or 'base64'.", "encoding_format", "invalid_value")
    rows = [embed(text, dimensions) for text in texts]
    values: list[Any] = (
        [b64encode(row).decode() for row in rows] if shape == "base64" else list(map(unpack, rows))
    )
    body = {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": value} for index, value in enumerate(values)
        ],
        "model": name,
        "usage": {"prompt_tokens": sum(counts), "total_tokens": sum(counts)},
    }
    return Script("application/json", ((0, to_json(body)),), _BROKEN, inputs=len(texts))


OPERATIONS: Mapping[str, Callable[[Call], Script]] = {
    "/v1/chat/completions": chat,
    "/v1/completions": completions,
    "/v1/embeddings": embeddings,
}
"""What takes time and may fail."""

DESCRIPTIONS: Mapping[str, Callable[[Call], Reply]] = {}
"""What is asked with a body and answered at once: nothing here."""


def inventory(path: str, behaviour: Behaviour, loaded: Iterable[str]) -> Reply | None:
    """`GET /v1/models` and `/v1/models/{id}`; `None` for any other path."""
    if path == "/v1/models":
        models = [_model(name) for name in behaviour.models]
        return Reply(to_json({"object": "list", "data": models}))
    if path.startswith("/v1/models/"):
        name = unquote(path.removeprefix("/v1/models/"))
        return Reply(to_json(_model(name))) if name in behaviour.models else asks.unknown_model(name)
    return None


def failure(behaviour: Behaviour) -> Reply:
    return asks.failure(behaviour.error_status, behaviour.error_code, behaviour.retry_after)


def unreadable(body: bytes, why: str) -> Refused:
    """The body is not JSON, or not an object."""
    return asks.refuse("We could not parse the JSON body of your request. Send a JSON object.")


def no_route(method: str, path: str) -> Reply:
    if path in OPERATIONS or path == "/v1/models":
        return asks.error(405, f"Not allowed to {method} on {path}.", code="method_not_supported")
    return asks.error(404, f"Invalid URL ({method} {path})", code="unknown_url")


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": EPOCH, "owned_by": "k9-fake"}


def _answers(call: Call, questions: list[Question]) -> list[Answer]:
    count = asks.integer(call.body, "n", 1) or 1
    if count > 128:
        raise asks.refuse("Invalid 'n': at most 128.", "n", "integer_above_max_value")
    return [
        answer(question, call.behaviour.answer_tokens, choice)
        for question in questions
        for choice in range(count)
    ]


def _usage(questions: list[Question], answers: list[Answer]) -> dict[str, Any]:
    prompt = sum(question.tokens for question in questions)
    return Usage(prompt, sum(each.tokens for each in answers)).openai()


def _call(call: ToolCall, arguments: str) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def _message(answer: Answer) -> dict[str, Any]:
    message: dict[str, Any] = {
        "role": "assistant",
        "content": answer.text,
        "refusal": None,
        "annotations": [],
    }
    if answer.calls:
        calls = [_call(call, "".join(call.pieces)) for call in answer.calls]
        message |= {"content": None, "tool_calls": calls}
    return message


def _chat_deltas(answer: Answer) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The deltas of one choice, each with the number of tokens that exist by then."""
    if not answer.calls:
        yield 0, {"role": "assistant", "content": "", "refusal": None}
        for due, piece in enumerate(answer.pieces, 1):
            yield due, {"content": piece}
        return
    due = 0
    for index, call in enumerate(answer.calls):
        due += 1
        head = {"tool_calls": [{"index": index, **_call(call, "")}]}
        yield due, head if index else {"role": "assistant", "content": None, **head, "refusal": None}
        for piece in call.pieces:
            due += 1
            yield due, {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}


def _headers(question: Question) -> tuple[tuple[str, str], ...]:
    return (("x-request-id", f"req_{question.fingerprint}"), ("openai-version", "2020-10-01"))


def _whole(questions: list[Question], answers: list[Answer], body: Mapping[str, Any]) -> Script:
    tokens = max(each.tokens for each in answers)
    frames = ((tokens, to_json({**body, "usage": _usage(questions, answers)})),)
    headers = _headers(questions[0])
    return Script("application/json", frames, _BROKEN, tokens=tokens, headers=headers)


def _streamed(
    call: Call,
    questions: list[Question],
    answers: list[Answer],
    base: Mapping[str, Any],
    choices: Iterable[tuple[int, Mapping[str, Any]]],
) -> Script:
    """Frames of all choices in the order of their tokens; with `include_usage` one more at the end."""
    options = call.body.get("stream_options")
    counted = isinstance(options, dict) and options.get("include_usage") is True
    rest = {"usage": None} if counted else {}
    frames = [(due, _frame({**base, "choices": [choice], **rest})) for due, choice in choices]
    frames.sort(key=lambda frame: frame[0])
    tokens = max(each.tokens for each in answers)
    if counted:
        frames.append((tokens + 1, _frame({**base, "choices": [], "usage": _usage(questions, answers)})))
    frames.append((tokens + 1, _DONE))
    return Script(_STREAM, frames, _frame(_BROKEN), True, tokens, headers=_headers(questions[0]))


def _frame(chunk: Mapping[str, Any] | bytes) -> bytes:
    """One server-sent event: `data: `, JSON, and a blank line."""
    return b"data: " + (chunk if isinstance(chunk, bytes) else to_json(chunk)) + b"\n\n"
