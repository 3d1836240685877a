"""TGI's habits on the paths it shares with OpenAI."""

from __future__ import annotations

import json
from typing import Any

from fake_calls import ask, call, chunks, get
from k9_broker.testing import FakeServer

TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}}
    for name in ("act", "rest")
]
BOTH = [{"role": "user", "content": "use the tool act, then use the tool rest"}]


def test_tgi_repeats_itself(fake: FakeServer) -> None:
    fake.behave(flavour="tgi")
    body = json.loads(ask(fake)[2])
    assert (body["id"], body["usage"]["completion_tokens"]) == ("", 17)
    *told, _ = chunks(fake, stream_options={"include_usage": True})
    assert all(chunk["choices"][0]["delta"]["role"] == "assistant" for chunk in told[:-1])
    assert all(chunk["usage"] is None for chunk in told[:-1])
    assert {chunk["id"] for chunk in told} == {""}


def test_tgi_calls_one_tool_again_and_again(fake: FakeServer) -> None:
    fake.behave(flavour="tgi")
    asked: dict[str, Any] = {"messages": BOTH, "tools": TOOLS}
    choice = json.loads(ask(fake, call(**asked))[2])["choices"][0]
    assert [each["id"] for each in choice["message"]["tool_calls"]] == ["0"]
    assert choice["finish_reason"] == "stop"
    *told, done = chunks(fake, **asked)
    deltas = [chunk["choices"][0]["delta"]["tool_calls"][0] for chunk in told]
    assert {(each["id"], each["type"]) for each in deltas} == {("0", "function")}
    assert deltas[0]["function"]["name"] == "act"
    assert {chunk["choices"][0]["finish_reason"] for chunk in told} == {None}
    assert done == "[DONE]"


def test_tgi_takes_lists_and_values(fake: FakeServer) -> None:
    fake.behave(flavour="tgi")
    status, headers, data = ask(fake, call(stop="###"))
    assert (status, headers["content-type"]) == (422, "text/plain; charset=utf-8")
    assert b'stop: invalid type: string "###"' in data
    word = json.loads(ask(fake)[2])["choices"][0]["message"]["content"].split()[3]
    assert json.loads(ask(fake, call(stop=[word]))[2])["choices"][0]["finish_reason"] == "stop_sequence"
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    openai = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    assert ask(fake, call(response_format=openai))[0] == 422
    own = {"type": "json_schema", "value": {"name": "x", "schema": schema}}
    content = json.loads(ask(fake, call(response_format=own))[2])["choices"][0]["message"]["content"]
    assert isinstance(json.loads(content)["a"], int)
    both = ask(fake, call(response_format=own, tools=TOOLS))
    assert (both[0], json.loads(both[2])["error_type"]) == (422, "tool_error")


def test_tgi_takes_two_megabytes(fake: FakeServer) -> None:
    fake.behave(flavour="tgi")
    status, headers, data = ask(fake, call(user="x" * 2_000_000))
    assert (status, headers["content-type"]) == (413, "text/plain; charset=utf-8")
    assert data == b"Failed to buffer the request body: length limit exceeded"


def test_tgi_knows_no_names(fake: FakeServer) -> None:
    fake.behave(flavour="tgi")
    assert json.loads(ask(fake, call(model="anything"))[2])["model"] == "anything"
    assert json.loads(ask(fake, call(model="tgi"))[2])["model"] == "fake-chat"
    assert len(json.loads(get(fake, "/v1/models")[2])["data"]) == 1
    assert json.loads(get(fake, "/info")[2])["max_concurrent_requests"] == 128
    assert get(fake, "/health") == (200, "", b"")


def test_tgi_is_too_busy_with_status_200(fake: FakeServer) -> None:
    fake.behave(flavour="tgi", fail_next=2, error_status=429)
    status, _, data = ask(fake)
    assert (status, json.loads(data)) == (429, {"error": "Model is overloaded", "error_type": "overloaded"})
    told, done = chunks(fake)
    assert (told["error"], done) == ({"message": "Model is overloaded", "http_status_code": 422}, "[DONE]")
    fake.behave(context_tokens=5)
    assert b"must be <= 5" in ask(fake, call(max_tokens=100))[2]


def test_tgi_completions_end_with_a_reason_and_have_none_before(fake: FakeServer) -> None:
    fake.behave(flavour="tgi")
    body = {"model": "tgi", "prompt": "x", "stream": True, "max_tokens": 3}
    frames = ask(fake, ("/v1/completions", body))[2].split(b"\n\n")[:-2]
    reasons = [json.loads(frame[6:])["choices"][0]["finish_reason"] for frame in frames]
    assert reasons == ["", "", "", "length"]
