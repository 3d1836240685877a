"""Ollama's answers in OpenAI's words, whole and streamed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from k9_broker import errors
from k9_broker.dialects.ollama.dialect import Ollama
from k9_broker.requests import InferenceRequest, Operation
from k9_broker.results import Vectors

DIALECT = Ollama()


def chat(**body: Any) -> InferenceRequest:
    return InferenceRequest(Operation.CHAT, "m", {"messages": [], **body})


def text(**body: Any) -> InferenceRequest:
    return InferenceRequest(Operation.COMPLETIONS, "m", {"prompt": "p", **body})


def embed(given: Any, **body: Any) -> InferenceRequest:
    return InferenceRequest(Operation.EMBEDDINGS, "m", {"input": given, **body})


def replay(lines: list[Any], request: InferenceRequest | None = None) -> list[dict[str, Any]]:
    parser = DIALECT.parser(request or chat(stream=True))
    raw = "".join(json.dumps(line) + "\n" for line in lines).encode()
    return [dict(chunk) for chunk in [*parser.feed(raw), *parser.close()]]


def line(content: str = "", *, done: bool = False, **more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": content, **more.pop("message", {})}
    at = "2026-01-01T00:00:01.123456789Z"
    return {"model": "m", "created_at": at, "message": message, "done": done, **more}


# -- whole answers --------------------------------------------------------------------------------


def test_a_whole_chat() -> None:
    calls = [{"function": {"name": "f", "arguments": {"x": 1}}}, {"id": "c9", "function": {"name": "g"}}]
    answer = line(
        "", done=True, done_reason="stop", eval_count=5, message={"tool_calls": calls, "thinking": "t"}
    )
    result = DIALECT.parse(chat(), json.dumps(answer).encode())
    assert result.body is not None
    choice = result.body["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    message = choice["message"]
    assert (message["content"], message["reasoning"], message["role"]) == (None, "t", "assistant")
    made = message["tool_calls"]
    assert [c["function"] for c in made] == [
        {"name": "f", "arguments": '{"x":1}'},
        {"name": "g", "arguments": "{}"},
    ]
    assert made[0]["id"].startswith("call_")
    assert made[1]["id"] == "c9"
    assert (result.usage.prompt, result.usage.completion) == (0, 5)  # zero counters are left out
    assert (result.body["object"], result.body["created"]) == ("chat.completion", 1767225601)


def test_a_whole_completion() -> None:
    answer = {"model": "m", "response": "yes", "done": True, "done_reason": "length", "prompt_eval_count": 3}
    body = DIALECT.parse(text(), json.dumps(answer).encode()).body
    assert body is not None
    assert body["choices"] == [{"index": 0, "logprobs": None, "text": "yes", "finish_reason": "length"}]
    assert (body["object"], body["created"], body["usage"]["prompt_tokens"]) == ("text_completion", 0, 3)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ({"error": "model runner has unexpectedly stopped"}, errors.BackendError),
        (line("x"), errors.StreamTruncated),
        (line("", done=True, done_reason="load"), errors.BackendError),
        ([], errors.BackendError),
    ],
)
def test_a_success_that_is_none(answer: Any, kind: type[errors.K9Error]) -> None:
    with pytest.raises(errors.BackendError) as caught:
        DIALECT.parse(chat(), json.dumps(answer).encode())
    assert type(caught.value) is kind


def test_embeddings() -> None:
    rows = [[0.5, -1.0], [2.0, 0.25]]
    answer = json.dumps({"model": "m", "embeddings": rows, "prompt_eval_count": 6}).encode()
    result = DIALECT.parse(embed(["a", "b"]), answer)
    assert (result.vectors, result.usage.prompt) == (Vectors.from_floats(rows), 6)
    for broken in ({"embeddings": []}, {"embeddings": None}, {"embeddings": [[1.0]]}, {}):
        with pytest.raises(errors.BackendError):
            DIALECT.parse(embed(["a", "b"]), json.dumps(broken).encode())


# -- streams --------------------------------------------------------------------------------------


def test_a_chat_stream() -> None:
    counters = {"prompt_eval_count": 2, "eval_count": 3}
    lines = [line("", message={"thinking": "hm"}), line("Hi"), line("!"), line("", done=True, **counters)]
    *chunks, last = replay(lines)
    assert [chunk["choices"][0]["delta"] for chunk in chunks] == [
        {"role": "assistant", "content": "", "reasoning": "hm"},
        {"content": "Hi"},
        {"content": "!"},
        {},
    ]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, None, None, "stop"]
    assert (last["choices"], last["usage"]["total_tokens"]) == ([], 5)
    assert len({chunk["id"] for chunk in [*chunks, last]}) == 1


def test_calls_of_a_stream_stay_apart() -> None:
    calls = [{"function": {"name": "f", "arguments": {"x": i}}} for i in range(3)]
    lines = [
        line(message={"tool_calls": calls[:2]}),
        line(message={"tool_calls": calls[2:]}),
        line(done=True),
    ]
    chunks = replay(lines)
    pieces = [p for c in chunks[:-1] for p in c["choices"][0]["delta"].get("tool_calls", [])]
    assert [(p["index"], p["function"]["arguments"]) for p in pieces] == [
        (0, '{"x":0}'),
        (1, '{"x":1}'),
        (2, '{"x":2}'),
    ]
    assert len({p["id"] for p in pieces}) == 3
    assert chunks[-2]["choices"][0]["finish_reason"] == "tool_calls"


def test_a_completion_stream_whose_last_line_has_text() -> None:
    lines = [{"response": "a", "done": False}, {"response": "b", "done": True, "done_reason": "length"}]
    *chunks, last = replay(lines, text(stream=True))
    assert [(c["choices"][0]["text"], c["choices"][0]["finish_reason"]) for c in chunks] == [
        ("a", None),
        ("b", "length"),
    ]
    assert last["usage"]["total_tokens"] == 0


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b"", errors.StreamTruncated),
        (b'{"message":{"content":"a"},"done":false}\n', errors.StreamTruncated),
        (b'{"message":{"content":"a"},"done":false}\n{"mess', errors.StreamTruncated),
        (b'{"message":{"content":"a"}}\n{"error":"boom"}\n', errors.BackendError),
        (b'{"error":"model \'x\' not found"}', errors.BackendError),
        (b"oops\n", errors.BackendError),
        (b"[]\n", errors.BackendError),
        (b'{"done":true,"done_reason":"unload"}\n', errors.BackendError),
    ],
)
def test_broken_streams(raw: bytes, kind: type[errors.K9Error]) -> None:
    parser = DIALECT.parser(chat())
    with pytest.raises(errors.K9Error) as caught:
        [*parser.feed(raw), *parser.close()]
    assert type(caught.value) is kind


def test_models_also_go_by_their_bare_names() -> None:
    body = json.dumps({"models": [{"name": "a:latest"}, {"model": "b:7b"}, {"name": "a"}, {}, 3]}).encode()
    assert tuple(DIALECT.parse_models(body)) == ("a:latest", "a", "b:7b")
