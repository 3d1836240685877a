"""What OpenAI's clients get to read: complete, whatever a backend left out."""

from __future__ import annotations

import json
from base64 import b64decode
from typing import Any

import pytest
from openai.types import Completion, CreateEmbeddingResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from k9_api import jobview
from k9_api.dialects.openai import egress
from k9_broker.dialects.openai.folding import fold
from k9_broker.errors import BackendError
from k9_broker.jobs import Job, JobState
from k9_broker.requests import Kind, Operation, Priority
from k9_broker.results import Result, Usage, Vectors, unpack

USAGE_KEYS = {
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "prompt_tokens_details",
    "completion_tokens_details",
}


def job(operation: Operation = Operation.CHAT, **changes: Any) -> Job:
    said = {
        "id": "job-0123456789abcdefghjkmnpqrs",
        "state": JobState.SUCCEEDED,
        "generation": 1,
        "operation": operation,
        "model": "asked",
        "tenant": "acme",
        "priority": Priority.INTERACTIVE,
        "backend": "fake",
        "kind": Kind.LOCAL,
        "reason": "order:first",
        "stream": False,
        "created_at": 1_763_850_000.75,
        "deadline_at": 1_763_850_600.75,
    }
    return Job(**{**said, **changes})


def chunks(operation: Operation = Operation.CHAT, *, include_usage: bool) -> egress.Chunks:
    return egress.Chunks(job(operation), include_usage=include_usage)


def written(writer: egress.Chunks, chunk: dict[str, Any]) -> dict[str, Any]:
    data = writer.write(chunk)
    assert data is not None
    return dict(json.loads(data))


def test_a_chat_answer_is_complete_though_the_backend_left_things_out() -> None:
    body = {
        "id": "other",
        "created": 1,
        "choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}],
        "system_fingerprint": "fp",
    }
    answer = json.loads(egress.answer(job(), Result("served", Usage(3, 4, 2, 1), body)))
    assert answer["id"] == "chatcmpl-0123456789abcdefghjkmnpqrs"
    assert (answer["object"], answer["created"], answer["model"]) == (
        "chat.completion",
        1_763_850_000,
        "served",
    )
    assert answer["choices"] == [
        {
            "index": 0,
            "logprobs": None,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": "hi", "refusal": None},
        }
    ]
    assert answer["usage"].keys() == USAGE_KEYS
    assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] == 2
    assert answer["system_fingerprint"] == "fp"
    ChatCompletion.model_validate(answer)


def test_a_text_completion_is_complete() -> None:
    body = {"choices": [{"text": "a", "finish_reason": "stop"}, {"text": "b", "finish_reason": "length"}]}
    answer = json.loads(egress.answer(job(Operation.COMPLETIONS), Result("m", Usage(1, 2), body)))
    assert answer["id"].startswith("cmpl-")
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]
    assert "message" not in answer["choices"][0]
    Completion.model_validate(answer)


@pytest.mark.parametrize("encoding_format", ["float", "base64"])
def test_vectors_leave_bit_for_bit(encoding_format: egress.EncodingFormat) -> None:
    vectors = Vectors.from_floats([[0.1, -2.5, 3e-20], [1, 0, -0.0]])
    raw = egress.answer(job(Operation.EMBEDDINGS), Result("m", Usage(5), vectors=vectors), encoding_format)
    answer = json.loads(raw)
    assert answer["usage"] == {"prompt_tokens": 5, "total_tokens": 5}
    assert [row["index"] for row in answer["data"]] == [0, 1]
    for index, row in enumerate(answer["data"]):
        floats = unpack(b64decode(row["embedding"])) if encoding_format == "base64" else row["embedding"]
        assert Vectors.from_floats([floats]).packed == vectors.row(index)
    if encoding_format == "float":
        CreateEmbeddingResponse.model_validate(answer)


def test_the_vector_of_an_input_that_failed_is_null_and_its_error_stands_beside() -> None:
    result = Result(
        "m",
        vectors=Vectors.from_floats([[1.0], [0.0]]),
        errors={1: {"code": "context_length_exceeded", "message": "too long"}},
    )
    said = json.loads(jobview.succeeded(job(Operation.EMBEDDINGS), result, "float"))
    assert [row["embedding"] for row in said["result"]["data"]] == [[1.0], None]
    assert said["errors"].keys() == {"1"}
    assert said["errors"]["1"]["code"] == "context_length_exceeded"
    assert said["state"] == "succeeded"


def test_all_chunks_of_an_answer_share_id_time_and_model() -> None:
    writer = chunks(include_usage=False)
    first = written(
        writer, {"id": "a", "model": "served", "created": 1, "choices": [{"delta": {"role": "assistant"}}]}
    )
    second = written(writer, {"id": "b", "model": "other", "choices": [{"delta": {"content": "y"}}]})
    third = written(writer, {"choices": [{"finish_reason": "stop"}]})
    for name in ("id", "created", "model", "object"):
        assert first[name] == second[name] == third[name]
    assert first["model"] == "served"
    assert first["object"] == "chat.completion.chunk"
    assert third["choices"] == [{"index": 0, "logprobs": None, "finish_reason": "stop", "delta": {}}]
    for chunk in (first, second, third):
        assert "usage" not in chunk
        ChatCompletionChunk.model_validate(chunk)


def test_usage_is_sent_once_and_only_to_whom_asked() -> None:
    text = {"choices": [{"index": 0, "delta": {"content": "y"}}], "usage": None, "obfuscation": "zzz"}
    last = {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}}
    asked, silent = chunks(include_usage=True), chunks(include_usage=False)
    assert written(asked, text)["usage"] is None
    assert "obfuscation" not in written(asked, text)
    final = written(asked, last)
    assert final["choices"] == []
    assert final["usage"].keys() == USAGE_KEYS
    assert final["usage"]["total_tokens"] == 3
    assert "usage" not in written(silent, text)
    assert silent.write(last) is None


def test_a_chunk_that_says_nothing_is_not_sent() -> None:
    assert chunks(include_usage=True).write({"choices": [], "prompt_filter_results": []}) is None


def test_text_chunks_keep_their_text() -> None:
    chunk = written(chunks(Operation.COMPLETIONS, include_usage=False), {"choices": [{"text": "a"}]})
    assert chunk["object"] == "text_completion"
    assert chunk["choices"] == [{"index": 0, "logprobs": None, "finish_reason": None, "text": "a"}]


def test_a_job_object_tells_its_error_in_full() -> None:
    said = jobview.job_object(job(state=JobState.FAILED, error=BackendError("it broke", retry_after=3)))
    assert said["error"] == {
        "message": "it broke",
        "type": "server_error",
        "param": None,
        "code": "backend_error",
    }
    assert said["queue_seconds"] is None


def test_a_stream_folds_into_what_it_would_have_been() -> None:
    def tool(**function: str) -> dict[str, Any]:
        return {"index": 0, "delta": {"tool_calls": [{"index": 1, "id": "c1", "function": function}]}}

    pieces: list[dict[str, Any]] = [
        {"model": "m", "choices": [{"index": 1, "delta": {"role": "assistant", "content": ""}}]},
        {
            "choices": [
                {"index": 0, "delta": {"content": "a", "reasoning": "r"}, "logprobs": {"content": [1]}}
            ]
        },
        {"choices": [{"index": 0, "delta": {"content": "b"}, "logprobs": {"content": [2]}}]},
        {"choices": [tool(name="f", arguments="")]},
        {"choices": [tool(arguments='{"x"'), {"index": 1, "delta": {"content": "z"}}]},
        {"choices": [tool(arguments=":1}")]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]},
        {"choices": [], "usage": {"prompt_tokens": 1}},
    ]
    body = fold(Operation.CHAT, pieces)
    assert body["model"] == "m"
    assert "usage" not in body
    first, second = body["choices"]
    assert (first["message"]["content"], first["message"]["reasoning"]) == ("ab", "r")
    assert first["message"]["tool_calls"] == [
        {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}}
    ]
    assert (first["finish_reason"], first["logprobs"]) == ("tool_calls", {"content": [1, 2]})
    assert (second["message"]["content"], second["finish_reason"]) == ("z", None)
    texts = [{"choices": [{"text": "a"}]}, {"choices": [{"text": "b", "finish_reason": "stop"}]}]
    assert fold(Operation.COMPLETIONS, texts)["choices"][0]["text"] == "ab"


def test_thinking_and_the_stop_string_survive_folding() -> None:
    redacted = {"type": "redacted_thinking", "data": "x"}

    def signature(text: str) -> dict[str, Any]:
        return {"thinking_blocks": [{"type": "thinking", "thinking": "", "signature": text}]}

    deltas = [{"reasoning": "h"}, {"reasoning": "m"}, signature("s1"), {"thinking_blocks": [redacted]}]
    deltas += [{"reasoning": "well"}, signature("s2"), {"content": "yes"}]
    end = {"index": 0, "delta": {}, "finish_reason": "stop", "stop_reason": "END"}
    pieces = [*({"choices": [{"index": 0, "delta": delta}]} for delta in deltas), {"choices": [end]}]
    [choice] = fold(Operation.CHAT, pieces)["choices"]
    assert choice["message"]["reasoning"] == "hmwell"
    assert choice["message"]["thinking_blocks"] == [
        {"type": "thinking", "thinking": "hm", "signature": "s1"},
        redacted,
        {"type": "thinking", "thinking": "well", "signature": "s2"},
    ]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", "END")
