"""Tools, reasons to finish, structured output: what each server writes in its own way."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest

from k9_broker.dialects.finish_reasons import finish_reason
from k9_broker.dialects.openai.stream import OpenAIStream
from k9_broker.requests import InferenceRequest, Operation
from menagerie import CHATTING, CLIENT_KEY, HELLO, TOOLS, USE_BOTH, Menagerie, only

ONE_CALL = ("tgi",)
"""Servers that never call two tools at once."""
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
AS_SCHEMA = {"type": "json_schema", "json_schema": {"name": "City", "schema": SCHEMA, "strict": True}}
FIVE_WORDS = {"stop", "length", "tool_calls", "content_filter", "function_call"}


@pytest.mark.parametrize("name", CHATTING)
def test_trap_08_tool_call_deltas_are_merged_by_the_official_helper(k9: Menagerie, name: str) -> None:
    """It concatenates every string it finds under one index: a repeated id becomes "0000"."""
    ids: set[str] = set()
    asked: Any = {"model": only(name), "messages": USE_BOTH, "tools": TOOLS}
    with openai.OpenAI(base_url=f"{k9.url}/v1", api_key=CLIENT_KEY, max_retries=0) as client:
        for _ in range(2):
            with client.chat.completions.stream(**asked) as stream:
                choice = stream.get_final_completion().choices[0]
            calls = choice.message.tool_calls or []
            assert [call.function.name for call in calls] == (
                ["look"] if name in ONE_CALL else ["look", "wait"]
            )
            arguments = [json.loads(call.function.arguments) for call in calls]
            assert isinstance(arguments[0]["city"], str)
            assert arguments[1:] in ([], [{}])
            assert choice.finish_reason == "tool_calls"
            found = {call.id for call in calls}
            assert len(found) == len(calls)
            assert not any(one.isdigit() for one in found)
            ids |= found
            results = [{"role": "tool", "tool_call_id": one.id, "content": "18 C"} for one in calls]
            turn = choice.message.model_dump(exclude_none=True, exclude={"parsed"})
            for call in turn["tool_calls"]:
                call["function"].pop("parsed_arguments", None)
            after = client.chat.completions.create(**{**asked, "messages": [*USE_BOTH, turn, *results]})
            assert after.choices[0].finish_reason == "stop"
    said = json.dumps(k9.upstream(name)["body"])
    assert name == "tgi" or all(one in said for one in found)  # the ids K-9 gave are those of the next turn


DELTAS: dict[str, list[Any]] = {
    "no index": [
        {"id": "a", "function": {"name": "f", "arguments": '{"x":'}},
        {"function": {"arguments": "1}"}},
        {"id": "b", "function": {"name": "g", "arguments": "{}"}},
    ],
    "two calls with index 0": [
        {"index": 0, "id": "a", "function": {"name": "f", "arguments": '{"x":1}'}},
        {"index": 0, "id": "b", "function": {"name": "g", "arguments": "{}"}},
    ],
    "id and name repeated": [
        {"index": 0, "id": "a", "function": {"name": "f", "arguments": '{"x":'}},
        {"index": 0, "id": "a", "function": {"name": "f", "arguments": "1}"}},
        {"index": 1, "id": "b", "function": {"name": "g", "arguments": "{}"}},
    ],
    "whole calls, arguments as objects, no ids": [
        {"index": 0, "function": {"name": "f", "arguments": {"x": 1}}},
        {"index": 1, "function": {"name": "g", "arguments": {}}},
    ],
}


@pytest.mark.parametrize("way", DELTAS)
def test_trap_08_tool_call_deltas_of_any_kind(way: str) -> None:
    request = InferenceRequest(Operation.CHAT, "m", {"messages": HELLO, "stream": True})
    parser = OpenAIStream(request)
    made: dict[int, list[str]] = {}
    frames: list[Any] = [{"choices": [{"index": 0, "delta": {"tool_calls": [one]}}]} for one in DELTAS[way]]
    frames.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    raw = b"".join(b"data: " + json.dumps(frame).encode() + b"\n\n" for frame in frames) + b"data: [DONE]\n\n"
    for chunk in [*parser.feed(raw), *parser.close()]:
        for choice in chunk["choices"]:
            for piece in choice["delta"].get("tool_calls", ()):
                call = made.setdefault(piece["index"], ["", "", ""])
                said = piece["function"]
                for at, text in enumerate((piece.get("id"), said.get("name"), said["arguments"])):
                    call[at] += text or ""
    assert [call[1] for call in made.values()] == ["f", "g"]
    assert [json.loads(call[2]) for call in made.values()] == [{"x": 1}, {}]
    assert len({call[0] for call in made.values()}) == 2


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("name", CHATTING)
def test_trap_09_finish_reason_is_one_of_openais(k9: Menagerie, name: str, streamed: bool) -> None:
    asks: list[tuple[str, dict[str, Any]]] = [
        ("stop", {}),
        ("length", {"max_tokens": 3}),
        ("tool_calls", {"messages": USE_BOTH, "tools": TOOLS}),
    ]
    for expected, more in asks:
        if streamed:
            ends = [
                choice["finish_reason"]
                for one in k9.frames(only(name), **more)[:-1]
                for choice in one["choices"]
            ]
            assert [end for end in ends if end] == [expected]
            assert ends[-1] == expected
        else:
            assert k9.said(only(name), **more)["choices"][0]["finish_reason"] == expected


@pytest.mark.parametrize(
    ("name", "reason"), [("vllm", "tool_use"), ("tgi", "tool_use"), ("ollama", "tool_use")]
)
def test_trap_09_finish_reason_in_anthropics_words(k9: Menagerie, name: str, reason: str) -> None:
    tools = [
        {"name": one["function"]["name"], "input_schema": one["function"]["parameters"]} for one in TOOLS
    ]
    asked = {"model": only(name), "max_tokens": 500, "messages": USE_BOTH, "tools": tools}
    assert k9.http.post("/v1/messages", json=asked).json()["stop_reason"] == reason
    del asked["tools"]
    assert k9.http.post("/v1/messages", json=asked).json()["stop_reason"] == "end_turn"
    asked["max_tokens"] = 2
    assert k9.http.post("/v1/messages", json=asked).json()["stop_reason"] == "max_tokens"


@pytest.mark.parametrize(
    "said",
    ["stop_sequence", "eos_token", "end_turn", "refusal", "max_tokens", "model_length", "something new"],
)
def test_trap_09_finish_reason_whatever_a_server_says(said: str) -> None:
    assert finish_reason(said, tools=False) in FIVE_WORDS
    assert finish_reason("stop", tools=True) == "tool_calls"
    assert finish_reason("", tools=False) is finish_reason(None, tools=True) is None


def schema_sent(body: Any) -> Any:
    """The JSON schema in a request as the wire it was written for has it."""
    wanted = body.get("response_format") or {}
    return (
        body.get("format")
        or (body.get("output_config") or {}).get("format", {}).get("schema")
        or wanted.get("value")
        or wanted.get("json_schema", {}).get("schema")
    )


def limit_sent(body: Any) -> Any:
    words = ("max_completion_tokens", "max_tokens")
    return next((body[word] for word in words if word in body), body.get("options", {}).get("num_predict"))


def stops_sent(body: Any) -> Any:
    return body.get("stop_sequences") or body.get("stop") or body.get("options", {}).get("stop")


@pytest.mark.parametrize("name", CHATTING)
def test_trap_21_structured_output_reaches_every_server_in_its_words(k9: Menagerie, name: str) -> None:
    """Ollama's own OpenAI surface ignores half of this; TGI wants `value`, and a list for `stop`."""
    more = {"response_format": AS_SCHEMA, "stop": "END", "max_completion_tokens": 50}
    answer = k9.said(only(name), **more)
    body = k9.upstream(name)["body"]
    assert schema_sent(body) == SCHEMA
    assert stops_sent(body) == ["END"]
    assert limit_sent(body) == 50
    assert set(json.loads(answer["choices"][0]["message"]["content"])) == {"city"}


@pytest.mark.parametrize("name", CHATTING)
def test_trap_21_tool_choice_is_obeyed_or_refused(k9: Menagerie, name: str) -> None:
    """Never dropped: an agent that needs a call would wait for ever."""
    for choice in ("required", {"type": "function", "function": {"name": "wait"}}):
        before = k9.inferences(name)
        reply = k9.chat(only(name), tools=TOOLS, tool_choice=choice)
        if name == "ollama":
            assert reply.status_code == 400
            assert reply.json()["error"]["param"] == "tool_choice"
            assert k9.inferences(name) == before
            continue
        calls = reply.json()["choices"][0]["message"]["tool_calls"]
        assert calls
        assert choice == "required" or [call["function"]["name"] for call in calls] == ["wait"]


@pytest.mark.parametrize(
    ("name", "param", "value"),
    [
        ("ollama", "n", 2),
        ("ollama", "logit_bias", {"5": 1}),
        ("ollama", "parallel_tool_calls", False),
        ("anthropic", "n", 2),
        ("anthropic", "seed", 5),
        ("anthropic", "logprobs", True),
        ("tgi", "n", 2),
        ("tgi", "logit_bias", {"5": 1}),
        ("openai", "guided_json", SCHEMA),
        ("openai", "top_k", 5),
        ("llamacpp", "guided_json", SCHEMA),
        ("compatible", "guided_regex", "a+"),
    ],
)
def test_trap_21_what_a_server_would_ignore_is_refused_by_name(
    k9: Menagerie, name: str, param: str, value: Any
) -> None:
    before = k9.inferences(name)
    reply = k9.chat(only(name), **{param: value})
    assert reply.status_code == 400, reply.text
    error = reply.json()["error"]
    assert (error["param"], error["code"]) == (param, "unsupported_parameter")
    assert k9.inferences(name) == before


def test_trap_21_guided_json_is_translated_for_vllm(k9: Menagerie) -> None:
    """vLLM removed `guided_*` and ignores them: 200, and an answer that is bound to nothing."""
    k9.said(only("vllm"), guided_json=SCHEMA)
    body = k9.upstream("vllm")["body"]
    assert body["structured_outputs"] == {"json": SCHEMA}
    assert "guided_json" not in body
