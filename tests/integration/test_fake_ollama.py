"""The fake's Ollama side, by the bytes on the wire."""

from __future__ import annotations

import http.client
import json
import math
from typing import Any

import pytest

from k9_broker.testing import FakeServer

ASKED = [{"role": "user", "content": "why is the sky blue?"}]
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
HEAD = '{"model":"fake-chat","created_at":"2023-11-14T22:13:20Z",'


def ask(fake: FakeServer, method: str, path: str, body: Any = None) -> tuple[int, str, bytes]:
    """Status, content type and the bytes of the body."""
    link = http.client.HTTPConnection("127.0.0.1", fake.port, timeout=10)
    link.request(method, path, body if body is None or isinstance(body, bytes) else json.dumps(body))
    answer = link.getresponse()
    data = answer.read()
    link.close()
    return answer.status, answer.getheader("content-type", ""), data


def told(fake: FakeServer, path: str, **body: Any) -> dict[str, Any]:
    status, kind, data = ask(fake, "POST", path, {"model": "fake-chat", "stream": False, **body})
    assert (status, kind) == (200, "application/json; charset=utf-8")
    value: dict[str, Any] = json.loads(data)
    return value


def lines(fake: FakeServer, path: str, **body: Any) -> list[dict[str, Any]]:
    status, kind, data = ask(fake, "POST", path, {"model": "fake-chat", **body})
    assert (status, kind) == (200, "application/x-ndjson")
    assert data.endswith(b"\n")
    return [json.loads(line) for line in data.removesuffix(b"\n").split(b"\n")]


def test_chat_streams_unless_told_not_to(fake: FakeServer) -> None:
    plain = told(fake, "/api/chat", messages=ASKED)
    *pieces, last = lines(fake, "/api/chat", messages=ASKED)
    assert "".join(piece["message"]["content"] for piece in pieces) == plain["message"]["content"]
    assert {piece["done"] for piece in pieces} == {False}
    assert {**last, "message": plain["message"]} == plain
    assert last["message"] == {"role": "assistant", "content": ""}


def test_the_lines_of_a_chat_byte_for_byte(fake: FakeServer) -> None:
    body = {"model": "fake-chat", "messages": ASKED, "options": {"num_predict": 1}}
    first, last, rest = ask(fake, "POST", "/api/chat", body)[2].decode().split("\n")
    word = json.loads(first)["message"]["content"]
    assert first == f'{HEAD}"message":{{"role":"assistant","content":"{word}"}},"done":false}}'
    assert last == (
        f'{HEAD}"message":{{"role":"assistant","content":""}},"done":true,"done_reason":"length",'
        '"total_duration":3000,"load_duration":1000,"prompt_eval_count":6,"prompt_eval_duration":1000,'
        '"eval_count":1,"eval_duration":1000}'
    )
    assert rest == ""


def test_generate(fake: FakeServer) -> None:
    plain = told(fake, "/api/generate", prompt="why?", options={"num_predict": 2})
    *pieces, last = lines(fake, "/api/generate", prompt="why?", options={"num_predict": 2})
    assert "".join(piece["response"] for piece in pieces) == plain["response"]
    assert (last["response"], last["done_reason"], last["eval_count"]) == ("", "length", 2)


def test_options_are_read(fake: FakeServer) -> None:
    whole = told(fake, "/api/chat", messages=ASKED)["message"]["content"]
    word = whole.split()[3]
    stopped = told(fake, "/api/chat", messages=ASKED, options={"stop": [word]})["message"]["content"]
    assert stopped == whole[: whole.index(word)]
    assert told(fake, "/api/chat", messages=ASKED, options={"seed": 7})["message"]["content"] != whole


def test_a_tool_call_is_an_object_in_one_line_and_ends_with_stop(fake: FakeServer) -> None:
    asked = [{"role": "user", "content": "use the tool get_weather"}]
    plain = told(fake, "/api/chat", messages=asked, tools=[TOOL])
    called, last = lines(fake, "/api/chat", messages=asked, tools=[TOOL])
    call = called["message"]["tool_calls"][0]
    assert isinstance(call["function"]["arguments"]["city"], str)
    assert call["function"]["name"] == "get_weather"
    assert (called["done"], last["done"], last["done_reason"]) == (False, True, "stop")
    assert plain["message"]["tool_calls"] == called["message"]["tool_calls"]
    assert "tool_calls" not in told(fake, "/api/chat", messages=ASKED, tools=[TOOL])["message"]


def test_json_answers(fake: FakeServer) -> None:
    schema = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
    shaped = told(fake, "/api/chat", messages=ASKED, format=schema)
    assert isinstance(json.loads(shaped["message"]["content"])["age"], int)
    assert isinstance(json.loads(told(fake, "/api/generate", prompt="x", format="json")["response"]), dict)


def test_without_a_question_the_model_is_loaded_or_unloaded(fake: FakeServer) -> None:
    fake.behave(cold_load_ms=1)
    assert json.loads(ask(fake, "GET", "/api/ps")[2]) == {"models": []}
    assert told(fake, "/api/chat", messages=[]) == {
        "model": "fake-chat",
        "created_at": "2023-11-14T22:13:20Z",
        "message": {"role": "assistant", "content": ""},
        "done": True,
        "done_reason": "load",
    }
    running = json.loads(ask(fake, "GET", "/api/ps")[2])["models"]
    assert [model["name"] for model in running] == ["fake-chat:latest"]
    assert told(fake, "/api/generate", keep_alive=0)["done_reason"] == "unload"
    assert json.loads(ask(fake, "GET", "/api/ps")[2]) == {"models": []}


def test_a_cold_model_says_how_long_it_took(fake: FakeServer) -> None:
    fake.behave(cold_load_ms=30)
    assert told(fake, "/api/chat", messages=ASKED)["load_duration"] == 30_000_000
    assert told(fake, "/api/chat", messages=ASKED)["load_duration"] == 1000


def test_embed(fake: FakeServer) -> None:
    one = told(fake, "/api/embed", input="hello world")
    two = told(fake, "/api/embed", input=["hello world", "other"], dimensions=64)
    assert one["embeddings"] == two["embeddings"][:1]
    assert math.isclose(math.hypot(*one["embeddings"][0]), 1, abs_tol=1e-6)
    assert (one["prompt_eval_count"], two["prompt_eval_count"]) == (2, 3)
    assert told(fake, "/api/embed", input="") == {"model": "fake-chat", "embeddings": []}
    assert told(fake, "/api/embed", input=[]) == {"model": "fake-chat", "embeddings": []}


def test_both_wires_give_the_same_vectors_and_words(fake: FakeServer) -> None:
    other = json.loads(ask(fake, "POST", "/v1/embeddings", {"model": "fake-chat", "input": "hello"})[2])
    assert other["data"][0]["embedding"] == told(fake, "/api/embed", input="hello")["embeddings"][0]
    chat = json.loads(ask(fake, "POST", "/v1/chat/completions", {"model": "fake-chat", "messages": ASKED})[2])
    native = told(fake, "/api/chat", messages=ASKED)
    assert chat["choices"][0]["message"]["content"] == native["message"]["content"]


def test_inventory(fake: FakeServer) -> None:
    fake.behave(models=["llama3.2", "qwen:7b"])
    assert ask(fake, "GET", "/") == (200, "text/plain; charset=utf-8", b"Ollama is running")
    assert json.loads(ask(fake, "GET", "/api/version")[2]) == {"version": "0.32.1"}
    tags = json.loads(ask(fake, "GET", "/api/tags")[2])["models"]
    assert [tag["name"] for tag in tags] == ["llama3.2:latest", "qwen:7b"]
    assert tags[0]["details"]["format"] == "gguf"
    assert told(fake, "/api/chat", model="llama3.2:latest", messages=ASKED)["model"] == "llama3.2:latest"
    assert "completion" in told(fake, "/api/show", model="llama3.2")["capabilities"]


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/api/chat", None, 400, "missing request body"),
        ("/api/chat", b"{", 400, "unexpected EOF"),
        ("/api/chat", b"{]", 400, "invalid character in request body"),
        ("/api/chat", {"messages": ASKED}, 400, "model is required"),
        ("/api/chat", {"model": "nope", "messages": ASKED}, 404, "model 'nope' not found"),
        ("/api/generate", {"model": "nope", "prompt": "x"}, 404, "model 'nope' not found"),
        ("/api/embed", {"model": "nope", "input": "x"}, 404, "model 'nope' not found"),
        ("/api/embed", {"model": "fake-embed", "input": [[1, 2]]}, 400, "invalid input type"),
        ("/api/chat", {"model": "fake-chat", "messages": ASKED, "think": True}, 400,
         '"fake-chat" does not support thinking'),
        ("/api/chat", {"model": "fake-chat", "messages": [{"role": "user", "content": [{"text": "x"}]}]}, 400,
         "json: cannot unmarshal array into Go struct field ChatRequest.messages.content"),
    ],
)  # fmt: skip
def test_errors(fake: FakeServer, path: str, body: Any, status: int, message: str) -> None:
    got, kind, data = ask(fake, "POST", path, body)
    assert (got, kind) == (status, "application/json; charset=utf-8")
    assert json.loads(data) == {"error": message}


def test_routes_that_are_not_there(fake: FakeServer) -> None:
    assert ask(fake, "GET", "/api/nothing")[0] == 404
    assert ask(fake, "GET", "/api/chat")[0] == 405
