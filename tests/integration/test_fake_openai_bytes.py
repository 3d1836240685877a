"""The fake's OpenAI side, by the bytes on the wire."""

from __future__ import annotations

import base64
import http.client
import json
import struct
from typing import Any

import pytest

from k9_broker.testing import FakeServer

CAPITAL = [{"role": "user", "content": "What is the capital of France?"}]
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CHAT = {"model": "fake-chat", "messages": CAPITAL}
EMBED = {"model": "fake-embed", "input": "a"}
CALLED = {**CHAT, "tools": [TOOL], "tool_choice": "required"}


def post(fake: FakeServer, path: str, body: Any) -> tuple[int, str, bytes]:
    """Status, content type and the bytes of the body."""
    link = http.client.HTTPConnection("127.0.0.1", fake.port, timeout=10)
    link.request("POST", path, body if isinstance(body, bytes) else json.dumps(body))
    answer = link.getresponse()
    data = answer.read()
    link.close()
    return answer.status, answer.getheader("content-type", ""), data


def frames(data: bytes) -> list[bytes]:
    """The events of a stream: `data: `, one line, a blank line, for every one of them."""
    assert data.endswith(b"\n\n")
    assert b"\r" not in data
    events = data.removesuffix(b"\n\n").split(b"\n\n")
    assert all(event.startswith(b"data: ") and b"\n" not in event for event in events)
    return [event.removeprefix(b"data: ") for event in events]


BASE = '"created":1700000000,"model":"fake-chat","service_tier":"default","system_fingerprint":"fp_k9fake",'


def test_the_frames_of_a_stream_byte_for_byte(fake: FakeServer) -> None:
    body = {"model": "fake-chat", "messages": CAPITAL, "max_tokens": 1, "stream": True}
    status, kind, data = post(
        fake, "/v1/chat/completions", {**body, "stream_options": {"include_usage": True}}
    )
    assert (status, kind) == (200, "text/event-stream; charset=utf-8")
    first, word, last, usage, done = frames(data)
    name, text = json.loads(first)["id"], json.loads(word)["choices"][0]["delta"]["content"]
    head = f'{{"id":"{name}","object":"chat.completion.chunk",{BASE}"choices":['

    def frame(delta: str, finish: str = "null") -> bytes:
        choice = f'{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":{finish}}}'
        return f'{head}{choice}],"usage":null}}'.encode()

    assert first == frame('{"role":"assistant","content":"","refusal":null}')
    assert word == frame(f'{{"content":"{text}"}}')
    assert last == frame("{}", '"length"')
    assert usage.startswith(f'{head}],"usage":{{"prompt_tokens":7,"completion_tokens":1,'.encode())
    assert done == b"[DONE]"
    assert b'"usage"' not in post(fake, "/v1/chat/completions", body)[2]


def test_the_frames_of_a_tool_call(fake: FakeServer) -> None:
    *chunks, done = frames(post(fake, "/v1/chat/completions", {**CALLED, "stream": True})[2])
    assert done == b"[DONE]"
    first, *rest, last = [json.loads(chunk)["choices"][0] for chunk in chunks]
    head = first["delta"]["tool_calls"][0]
    assert first["delta"]["content"] is None
    assert list(head) == ["index", "id", "type", "function"]
    assert head["function"] == {"name": "get_weather", "arguments": ""}
    assert all(list(each["delta"]["tool_calls"][0]) == ["index", "function"] for each in rest)
    assert (last["delta"], last["finish_reason"]) == ({}, "tool_calls")


def test_a_plain_answer_byte_for_byte(fake: FakeServer) -> None:
    status, kind, data = post(
        fake, "/v1/chat/completions", {"model": "fake-chat", "messages": CAPITAL, "max_tokens": 1}
    )
    body = json.loads(data)
    text = body["choices"][0]["message"]["content"]
    message = f'{{"role":"assistant","content":"{text}","refusal":null,"annotations":[]}}'
    assert (status, kind) == (200, "application/json")
    assert data.decode() == (
        f'{{"id":"{body["id"]}","object":"chat.completion",{BASE}"choices":[{{"index":0,"message":{message},'
        '"logprobs":null,"finish_reason":"length"}],"usage":{"prompt_tokens":7,"completion_tokens":1,'
        '"total_tokens":8,"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0},'
        '"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0,'
        '"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}}'
    )


def test_base64_is_little_endian_float32(fake: FakeServer) -> None:
    body = {"model": "fake-embed", "input": "hello world", "dimensions": 4}
    packed = json.loads(post(fake, "/v1/embeddings", {**body, "encoding_format": "base64"})[2])
    floats = json.loads(post(fake, "/v1/embeddings", body)[2])
    assert (
        list(struct.unpack("<4f", base64.b64decode(packed["data"][0]["embedding"])))
        == (floats["data"][0]["embedding"])
    )
    assert floats["usage"] == {"prompt_tokens": 2, "total_tokens": 2}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"model": "fake-chat", "messages": CAPITAL, "n": 2}),
        ("/v1/chat/completions", {"model": "fake-chat", "messages": CAPITAL, "stream": True}),
        ("/v1/chat/completions", CALLED),
        ("/v1/completions", {"model": "fake-chat", "prompt": "once", "stream": True}),
        ("/v1/embeddings", {"model": "fake-embed", "input": ["a", "b"]}),
    ],
)  # fmt: skip
def test_the_same_request_gets_the_same_bytes_from_every_server(
    fake: FakeServer, path: str, body: Any
) -> None:
    with FakeServer() as other:
        assert post(fake, path, body) == post(fake, path, body) == post(other, path, body)


# -- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        ("chat/completions", b"{", 400, None),
        ("chat/completions", b"", 400, None),
        ("chat/completions", b"[]", 400, None),
        ("chat/completions", b'{"model": "\xff"}', 400, None),
        ("chat/completions", {"messages": CAPITAL}, 400, "model"),
        ("chat/completions", {"model": "fake-chat"}, 400, "messages"),
        ("chat/completions", {"model": "fake-chat", "messages": []}, 400, "messages"),
        ("chat/completions", {"model": "fake-chat", "messages": "hi"}, 400, "messages"),
        ("chat/completions", {"model": "fake-chat", "messages": [{}]}, 400, "messages[0].role"),
        ("chat/completions", {**CHAT, "max_tokens": 0}, 400, "max_tokens"),
        ("chat/completions", {**CHAT, "max_tokens": "9"}, 400, "max_tokens"),
        ("chat/completions", {**CHAT, "n": 0}, 400, "n"),
        ("chat/completions", {**CHAT, "stop": list("abcde")}, 400, "stop"),
        ("completions", {"model": "fake-chat", "prompt": []}, 400, "prompt"),
        ("completions", {"model": "fake-chat", "prompt": {"a": 1}}, 400, "prompt"),
        ("embeddings", {"model": "fake-embed"}, 400, "input"),
        ("embeddings", {"model": "fake-embed", "input": ""}, 400, "input"),
        ("embeddings", {"model": "fake-embed", "input": []}, 400, "input"),
        ("embeddings", {"model": "fake-embed", "input": ["a", ""]}, 400, "input"),
        ("embeddings", {"model": "fake-embed", "input": ["a", 1]}, 400, "input"),
        ("embeddings", {"model": "fake-embed", "input": ["a"] * 2049}, 400, "input"),
        ("embeddings", {**EMBED, "encoding_format": "hex"}, 400, "encoding_format"),
        ("embeddings", {**EMBED, "dimensions": 0}, 400, "dimensions"),
        ("nothing", {}, 404, None),
    ],
)  # fmt: skip
def test_bad_requests(fake: FakeServer, path: str, body: Any, status: int, param: str | None) -> None:
    got, kind, data = post(fake, f"/v1/{path}", body)
    assert (got, kind) == (status, "application/json")
    error = json.loads(data)["error"]
    assert list(error) == ["message", "type", "param", "code"]
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
