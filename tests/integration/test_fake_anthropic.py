"""The fake's Anthropic side, by the bytes on the wire."""

from __future__ import annotations

import http.client
import json
from typing import Any

import pytest

from fake_calls import ask
from k9_broker.testing import FakeServer

SAID = [{"role": "user", "content": "What is the capital of France?"}]
PATH = "/v1/messages"
BODY = {"model": "fake-chat", "max_tokens": 100, "messages": SAID}
VERSION = {"anthropic-version": "2023-06-01"}
NEWEST = {"anthropic-version": "2026-10-21"}
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [{"name": name, "input_schema": CITY} for name in ("get_weather", "get_traffic")]
THINK = {"max_tokens": 2000, "thinking": {"type": "enabled", "budget_tokens": 1024}}
PIXEL = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}


def told(
    fake: FakeServer, status: int = 200, headers: Any = VERSION, path: str = PATH, **changes: Any
) -> Any:
    got, _, data = ask(fake, (path, {**BODY, **changes}), **headers)
    assert got == status, data
    return json.loads(data)


def events(data: bytes) -> list[tuple[str, Any]]:
    """Name and data of every event; each has both lines, the data name it again."""
    assert data.endswith(b"\n\n")
    found = []
    for frame in data.removesuffix(b"\n\n").split(b"\n\n"):
        first, second = frame.split(b"\n")
        name, value = first.removeprefix(b"event: ").decode(), json.loads(second.removeprefix(b"data: "))
        assert value["type"] == name
        found.append((name, value))
    return found


def test_a_plain_answer_byte_for_byte(fake: FakeServer) -> None:
    status, headers, data = ask(fake, (PATH, {**BODY, "max_tokens": 1}), **VERSION)
    body = json.loads(data)
    text = body["content"][0]["text"]
    assert (status, headers["content-type"]) == (200, "application/json")
    assert headers["request-id"] == body["id"].replace("msg_", "req_")
    assert data.decode() == (
        f'{{"id":"{body["id"]}","type":"message","role":"assistant","model":"fake-chat","content":'
        f'[{{"type":"text","text":"{text}"}}],"stop_reason":"max_tokens","stop_sequence":null,"usage":'
        '{"input_tokens":7,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"cache_creation":'
        '{"ephemeral_5m_input_tokens":0,"ephemeral_1h_input_tokens":0},"output_tokens":1,'
        '"service_tier":"standard"}}'
    )


def test_the_events_of_a_stream_in_their_order(fake: FakeServer) -> None:
    _, headers, data = ask(fake, (PATH, {**BODY, "max_tokens": 2, "stream": True}), **VERSION)
    assert headers["content-type"] == "text/event-stream; charset=utf-8"
    names = [name for name, _ in events(data)]
    assert names == [
        "message_start", "content_block_start", "ping", "content_block_delta", "content_block_delta",
        "content_block_stop", "message_delta", "message_stop",
    ]  # fmt: skip
    by_name = dict(events(data))
    assert by_name["message_start"]["message"]["usage"]["input_tokens"] == 7
    assert by_name["message_start"]["message"]["content"] == []
    assert by_name["message_delta"]["delta"] == {"stop_reason": "max_tokens", "stop_sequence": None}
    assert by_name["message_delta"]["usage"]["output_tokens"] == 2
    assert b"[DONE]" not in data


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {**THINK, "temperature": 1},
        {"tools": TOOLS, "tool_choice": {"type": "any"}},
        {"tools": [{"name": "now", "input_schema": {"type": "object"}}], "tool_choice": {"type": "any"}},
        {"tools": TOOLS, "messages": [{"role": "user", "content": "use the tool get_traffic"}], **THINK},
    ],
    ids=["text", "thinking", "tools", "no arguments", "thinking, text and a tool"],
)
def test_a_stream_says_what_the_plain_answer_says(fake: FakeServer, changes: Any) -> None:
    whole = told(fake, **changes)
    blocks: list[dict[str, Any]] = []
    usage = stop = None
    _, _, data = ask(fake, (PATH, {**BODY, **changes, "stream": True}), **VERSION)
    for name, value in events(data):
        if name == "content_block_start":
            assert value["index"] == len(blocks)
            blocks.append({**value["content_block"], "json": ""})
        elif name == "content_block_delta":
            block, delta = blocks[value["index"]], value["delta"]
            kind = delta.pop("type")
            key = next(iter(delta))
            block["json" if kind == "input_json_delta" else key] += delta[key]
        elif name == "message_delta":
            usage, stop = value["usage"], value["delta"]["stop_reason"]
    for block in blocks:
        text = block.pop("json")
        if block["type"] == "tool_use":
            block["input"] = json.loads(text or "{}")
    assert blocks == whole["content"]
    assert stop == whole["stop_reason"]
    assert usage["output_tokens"] == whole["usage"]["output_tokens"]


@pytest.mark.parametrize(
    ("headers", "changes", "status", "kind", "said"),
    [
        ({}, {}, 400, "invalid_request_error", "anthropic-version"),
        ({"anthropic-version": "1999-01-01"}, {}, 400, "invalid_request_error", "anthropic-version"),
        (VERSION, {"max_tokens": None}, 400, "invalid_request_error", "max_tokens: Field required"),
        (VERSION, {"model": "nope"}, 404, "not_found_error", "model: nope"),
        (VERSION, {"messages": []}, 400, "invalid_request_error", "messages"),
        (VERSION, {"temperature": 1.2}, 400, "invalid_request_error", "temperature"),
        (NEWEST, {"temperature": 1.0}, 400, "invalid_request_error", "temperature: Extra inputs"),
        (NEWEST, {"top_p": 1.0}, 400, "invalid_request_error", "top_p: Extra inputs"),
        (NEWEST, {"top_k": 5}, 400, "invalid_request_error", "top_k: Extra inputs"),
        (VERSION, {"thinking": {"type": "enabled", "budget_tokens": 9}}, 400, "invalid_request_error", "102"),
        (VERSION, {**THINK, "max_tokens": 9}, 400, "invalid_request_error", "max_tokens"),
        (VERSION, {"tool_choice": {"type": "tool", "name": "x"}}, 400, "invalid_request_error", "Tool 'x'"),
        (VERSION, {"tools": [{"name": "x"}]}, 400, "invalid_request_error", "input_schema: Field required"),
    ],
)  # fmt: skip
def test_refusals(fake: FakeServer, headers: Any, changes: Any, status: int, kind: str, said: str) -> None:
    body = told(fake, status, headers, **changes)
    assert body["type"] == "error"
    assert body["error"]["type"] == kind
    assert said in body["error"]["message"]
    assert body["request_id"].startswith("req_")


def test_the_older_version_takes_sampling_parameters(fake: FakeServer) -> None:
    told(fake, temperature=0.5, top_p=0.9, top_k=3)


@pytest.mark.parametrize(
    ("block", "role"),
    [
        (
            {"type": "document", "source": {"type": "text", "data": "x", "media_type": "text/plain"}},
            "assistant",
        ),
        ({"type": "text", "text": "x", "citations": [{"type": "char_location"}]}, "user"),
    ],
)
def test_what_only_the_older_version_takes(fake: FakeServer, block: Any, role: str) -> None:
    messages = [*SAID, {"role": role, "content": [block]}, *SAID]
    told(fake, 200, VERSION, messages=messages)
    told(fake, 400, NEWEST, messages=messages)


def test_a_prompt_that_is_too_long(fake: FakeServer) -> None:
    fake.behave(context_tokens=5)
    assert told(fake, 400)["error"]["message"] == "prompt is too long: 7 tokens > 5 maximum"


def test_results_must_follow_their_calls(fake: FakeServer) -> None:
    call = {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": "x"}}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "18 C", "is_error": True}
    called = [*SAID, {"role": "assistant", "content": [call]}]
    assert (
        "without `tool_result`" in told(fake, 400, messages=[*called, *SAID], tools=TOOLS)["error"]["message"]
    )
    stray = [{"role": "user", "content": [result]}]
    assert "unexpected `tool_use_id`" in told(fake, 400, messages=stray, tools=TOOLS)["error"]["message"]
    answered = [*called, {"role": "user", "content": [result, {"type": "text", "text": "so?"}]}]
    assert told(fake, messages=answered, tools=TOOLS)["stop_reason"] == "end_turn"


def test_a_signature_must_come_back_as_it_was(fake: FakeServer) -> None:
    fake.behave(reasoning_tokens=5)
    content = told(fake, **THINK)["content"]
    assert [block["type"] for block in content] == ["thinking", "text"]
    assert len(content[0]["thinking"].split()) == 4  # four words and a full stop
    again = [*SAID, {"role": "assistant", "content": content}, *SAID]
    told(fake, messages=again, **THINK)
    content[0]["thinking"] += " and more"
    message = told(fake, 400, messages=again, **THINK)["error"]["message"]
    assert message == "messages.1.content.0: Invalid `signature` in `thinking` block"


def test_it_thinks_only_when_asked(fake: FakeServer) -> None:
    fake.behave(reasoning_tokens=5)
    assert [block["type"] for block in told(fake)["content"]] == ["text"]
    assert told(fake, thinking={"type": "adaptive"})["content"][0]["type"] == "thinking"
    assert told(fake, thinking={"type": "disabled"})["content"][0]["type"] == "text"


def test_the_cache_is_written_and_then_read(fake: FakeServer) -> None:
    marked = [{"type": "text", "text": "one two three", "cache_control": {"type": "ephemeral"}}]
    counts = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    seen = [told(fake, system=marked)["usage"] for _ in range(2)]
    assert [[usage[name] for name in counts] for usage in seen] == [[7, 4, 0], [7, 0, 4]]
    longer = [{"role": "user", "content": [{**marked[0], "text": "more and more"}]}]
    usage = told(fake, system=marked, messages=longer)["usage"]
    assert [usage[name] for name in counts] == [0, 4, 4]
    assert usage["cache_creation"]["ephemeral_5m_input_tokens"] == 4
    fake.reset()
    assert told(fake, system=marked)["usage"]["cache_creation_input_tokens"] == 4


@pytest.mark.parametrize(
    ("source", "status"),
    [
        (PIXEL, 200),
        ({"type": "url", "url": "https://example.test/a.png"}, 200),
        ({"type": "base64", "data": "iVBORw0KGgo="}, 400),
        ({"type": "url", "url": "data:image/png;base64,iVBORw0KGgo="}, 400),
    ],
)
def test_images(fake: FakeServer, source: Any, status: int) -> None:
    content = [{"type": "text", "text": "what is it?"}, {"type": "image", "source": source}]
    told(fake, status, messages=[{"role": "user", "content": content}])


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (500, None, "api_error"),
        (529, None, "overloaded_error"),
        (429, None, "rate_limit_error"),
        (429, "spend_limit", "rate_limit_error"),
        (402, None, "billing_error"),
        (413, None, "request_too_large"),
    ],
)
def test_faults_in_its_envelope(fake: FakeServer, status: int, code: Any, kind: str) -> None:
    fake.behave(fail_next=1, error_status=status, error_code=code)
    got, headers, data = ask(fake, (PATH, BODY), **VERSION)
    error = json.loads(data)["error"]
    assert (got, error["type"]) == (status, kind)
    assert headers["request-id"]
    assert "retry-after" not in headers
    assert headers.get("x-should-retry") == ("true" if status == 529 else None)
    assert error.get("details") == ({"error_code": code} if code else None)


def test_an_answer_may_say_when_to_come_again(fake: FakeServer) -> None:
    fake.behave(retry_after=30)
    status, headers, _ = ask(fake, (PATH, BODY), **VERSION)
    assert (status, headers["retry-after"]) == (200, "30")


def test_an_error_inside_a_stream_is_the_last_event(fake: FakeServer) -> None:
    fake.behave(error_after_tokens=3)
    *_, (name, value) = events(ask(fake, (PATH, {**BODY, "stream": True}), **VERSION)[2])
    assert (name, value["error"]["type"]) == ("error", "overloaded_error")


def test_models_a_page_at_a_time(fake: FakeServer) -> None:
    fake.behave(models=["a", "org/b:c", "d"])
    link = http.client.HTTPConnection("127.0.0.1", fake.port, timeout=10)

    def get(path: str) -> Any:
        link.request("GET", path, headers=VERSION)
        return json.loads(link.getresponse().read())

    first = get("/v1/models?limit=2")
    assert ([each["id"] for each in first["data"]], first["has_more"]) == (["a", "org/b:c"], True)
    assert set(first["data"][0]) >= {"type", "id", "display_name", "created_at"}
    rest = get("/v1/models?limit=2&after_id=org/b:c")
    assert ([each["id"] for each in rest["data"]], rest["has_more"], rest["first_id"]) == (["d"], False, "d")
    before = get("/v1/models?limit=1&before_id=d")
    assert ([each["id"] for each in before["data"]], before["has_more"]) == (["org/b:c"], True)
    assert get("/v1/models/org%2Fb%3Ac")["id"] == "org/b:c"
    assert get("/v1/models/x")["error"]["type"] == "not_found_error"
    link.close()
