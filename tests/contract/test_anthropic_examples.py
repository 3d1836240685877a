"""Every contract example of Anthropic's through its dialect, and its requests against Anthropic's schema."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from random import Random
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from anthropic_events import CHAT, DIALECT, folded
from contract_examples import WAITS, errors_of
from k9_broker import errors
from k9_broker.requests import InferenceRequest, Operation

pytestmark = pytest.mark.contracts

ERRORS = errors_of("anthropic")
BROKEN = "anthropic-stream-error-overloaded"

MESSAGES = {
    "anthropic-message": ("stop", 8, 21),
    "anthropic-message-cache-usage": ("stop", 1532, 33),
    "anthropic-message-parallel-tools": ("tool_calls", 423, 202),
    "anthropic-message-thinking": ("stop", 43, 321),
    "anthropic-message-tool-results": ("stop", 771, 77),
}
STREAMS = {
    "anthropic-message-stream-refusal": ("content_filter", 20, 0),
    "anthropic-message-stream-text": ("stop", 11, 6),
    "anthropic-message-stream-thinking": ("stop", 43, 282),
    "anthropic-message-stream-tool-use": ("tool_calls", 377, 65),
}
"""Finish reason, prompt tokens and completion tokens of every answer."""

Example = dict[str, Any]


@pytest.fixture(scope="session")
def examples(contracts: Path) -> dict[str, Example]:
    paths = sorted((contracts / "examples").glob("anthropic-*.json"))
    return {path.stem: json.loads(path.read_text("utf-8")) for path in paths}


def body_of(example: Example, contracts: Path) -> bytes:
    reply = example["response"]
    if "stream_file" in reply:
        return (contracts / "examples" / reply["stream_file"]).read_bytes()
    return json.dumps(reply["json"]).encode()


def cut(raw: bytes, random: Random) -> list[bytes]:
    """`raw` in pieces of any size."""
    places = sorted(random.choices(range(len(raw) + 1), k=random.randrange(60)))
    return [raw[start:stop] for start, stop in zip([0, *places], [*places, len(raw)], strict=True)]


def replay(pieces: list[bytes]) -> list[dict[str, Any]]:
    parser = DIALECT.parser(CHAT)
    return [*(dict(c) for piece in pieces for c in parser.feed(piece)), *map(dict, parser.close())]


def test_no_example_is_left_out(examples: dict[str, Example]) -> None:
    others = {name for name in examples if name.startswith(("anthropic-batch-", "anthropic-count-"))}
    assert set(examples) - others == {*ERRORS, BROKEN, *MESSAGES, *STREAMS, "anthropic-models"}


def test_every_error_gives_its_class(examples: dict[str, Example], contracts: Path) -> None:
    for name, kind in ERRORS.items():
        reply = examples[name]["response"]
        error = DIALECT.error(reply["status"], reply["headers"], body_of(examples[name], contracts))
        assert type(error) is kind, name
        assert error.message
        assert error.retry_after == WAITS.get(name)


def test_every_message_parses(examples: dict[str, Example], contracts: Path) -> None:
    for name, (finish, prompt, completion) in MESSAGES.items():
        made = DIALECT.parse(CHAT, body_of(examples[name], contracts))
        assert made.body is not None
        (choice,) = made.body["choices"]
        counts = (choice["finish_reason"], made.usage.prompt, made.usage.completion)
        assert counts == (finish, prompt, completion), name
        content = examples[name]["response"]["json"]["content"]
        texts = "".join(block["text"] for block in content if block["type"] == "text")
        assert choice["message"]["content"] == texts, name
        thinking = [block for block in content if block["type"] == "thinking"]
        assert choice["message"].get("thinking_blocks", []) == thinking, name
        calls = choice["message"].get("tool_calls", [])
        inputs = [block["input"] for block in content if block["type"] == "tool_use"]
        assert [json.loads(call["function"]["arguments"]) for call in calls] == inputs, name
        assert len({call["id"] for call in calls}) == len(calls), name


def test_cached_tokens_count_once(examples: dict[str, Example], contracts: Path) -> None:
    usage = DIALECT.parse(CHAT, body_of(examples["anthropic-message-cache-usage"], contracts)).usage
    assert (usage.prompt, usage.cached, usage.written) == (1532, 1111, 418)


@pytest.mark.parametrize("seed", range(12))
def test_every_stream_parses_however_it_is_cut(
    examples: dict[str, Example], contracts: Path, seed: int
) -> None:
    random = Random(seed)
    for name, (finish, prompt, completion) in STREAMS.items():
        raw = body_of(examples[name], contracts)
        whole = DIALECT.parse(CHAT, raw)
        if seed % 2:
            raw = raw.replace(b"\n", b"\r\n").replace(b"\r\n\r\n", b"\r\n\r\n: ping\r\n\r\n")
        chunks = replay(cut(raw, random))
        *pieces, last = chunks
        assert last["choices"] == [], name
        assert not any("usage" in chunk or not chunk["choices"] for chunk in pieces), name
        assert sum(chunk["choices"][0]["finish_reason"] is not None for chunk in pieces) == 1, name
        made = folded(chunks)
        usage = made["usage"]
        counts = (made["finish_reason"], usage["prompt_tokens"], usage["completion_tokens"])
        assert counts == (finish, prompt, completion), name
        assert whole.body is not None
        message = whole.body["choices"][0]["message"]
        assert whole.usage.openai() == usage, name
        assert message["content"] == made["message"]["content"], name
        assert message.get("reasoning", "") == made["message"]["reasoning"], name
        signatures = [block["signature"] for block in message.get("thinking_blocks", [])]
        assert [block["signature"] for block in made["message"]["thinking_blocks"]] == signatures, name
        calls = [json.loads(call[2]) for call in made["message"]["tool_calls"].values()]
        inputs = [json.loads(call["function"]["arguments"]) for call in message.get("tool_calls", [])]
        assert calls == inputs, name


def test_a_stream_that_breaks_is_no_answer(examples: dict[str, Example], contracts: Path) -> None:
    reads = (lambda raw: replay([raw]), lambda raw: DIALECT.parse(CHAT, raw))
    for read in reads:
        with pytest.raises(errors.BackendOverloaded):
            read(body_of(examples[BROKEN], contracts))
        for name in STREAMS:
            raw = body_of(examples[name], contracts)
            with pytest.raises(errors.StreamTruncated):
                read(raw[: len(raw) // 3])


def test_models_are_listed(examples: dict[str, Example], contracts: Path) -> None:
    found = DIALECT.parse_models(body_of(examples["anthropic-models"], contracts))
    assert list(found) == ["claude-sonnet-4-5-20250929", "claude-haiku-4-5-20251001"]


def test_limits_are_read(examples: dict[str, Example]) -> None:
    found = DIALECT.limits(examples["anthropic-error-429"]["response"]["headers"], 1_755_780_060.0)
    assert found is not None
    assert (found.requests.per_minute, found.requests.remaining) == (1000, 999)
    assert (found.tokens.per_minute, found.tokens.remaining, found.tokens.reset_seconds) == (96_000, 0, 20.0)


MARK = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {
    "type": "function",
    "function": {"name": "weather", "description": "Of a city.", "parameters": SCHEMA, "strict": True},
    **MARK,
}
TALK: list[dict[str, Any]] = [
    {"role": "system", "content": [{"type": "text", "text": "Be brief.", **MARK}]},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "Look:", **MARK},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}},
            {"type": "image_url", "image_url": {"url": "https://example.test/a.png"}},
            {"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBERg==", "filename": "a"}},
            {"type": "file", "file": {"file_data": "data:text/plain;base64,aGk="}},
        ],
    },
    {
        "role": "assistant",
        "content": "Wait.",
        "reasoning": "Hm.",
        "thinking_blocks": [
            {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"},
            {"type": "redacted_thinking", "data": "xyz"},
        ],
        "tool_calls": [
            {"id": "a", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Bern"}'}},
            {"id": "b", "type": "function", "function": {"name": "weather", "arguments": ""}},
        ],
    },
    {"role": "tool", "tool_call_id": "a", "content": "18 C"},
    {"role": "tool", "tool_call_id": "b", "content": [{"type": "text", "text": "no"}], "is_error": True},
    {"role": "user", "content": "And now?", **MARK},
]
PLAIN = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "hi"}]


@pytest.mark.parametrize("version", ["2023-06-01", "2026-10-21"])
@pytest.mark.parametrize(
    "body",
    [
        {"messages": PLAIN},
        {"messages": TALK, "tools": [WEATHER], "stream": True},
        {"messages": TALK, "tools": [WEATHER], "tool_choice": "none"},
        {"messages": PLAIN, "tools": [WEATHER], "tool_choice": "required", "parallel_tool_calls": False},
        {
            "messages": PLAIN,
            "tools": [WEATHER],
            "tool_choice": {"type": "function", "function": {"name": "weather"}},
        },
        {"messages": PLAIN, "temperature": 1.2, "max_completion_tokens": 64_000, "stop": "END"},
        {"messages": PLAIN, "user": "u", "service_tier": "default", **MARK},
        {"messages": PLAIN, "reasoning_effort": "xhigh"},
        {"messages": PLAIN, "reasoning_effort": "none"},
        {"messages": PLAIN, "thinking": {"type": "enabled", "budget_tokens": 2000}},
        {
            "messages": PLAIN,
            "reasoning_effort": "low",
            "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}},
        },
    ],
)
def test_requests_are_valid(contracts: Path, version: str, body: dict[str, Any]) -> None:
    schema = json.loads((contracts / f"anthropic-{version}.derived.openapi.json").read_text("utf-8"))
    request = InferenceRequest(Operation.CHAT, "claude-haiku-4-5", body)
    for options in ({"version": version}, {"version": version, "budget_models": ["claude-haiku-4-5"]}):
        sent = json.loads(DIALECT.build(request, options).body)
        schema["$ref"] = "#/components/schemas/K9_MessageCreateParams"
        Draft202012Validator(schema).validate(sent)
        known = schema["components"]["schemas"]["MessageCreateParamsStreaming"]["properties"]
        assert sent.keys() <= known.keys()
    assert DIALECT.build(request, {"version": version}).headers["anthropic-version"] == version


def test_a_recorded_request_is_made_again(examples: dict[str, Example]) -> None:
    """The same conversation in OpenAI's words gives what Anthropic was really sent."""
    recorded = deepcopy(examples["anthropic-message-tool-results"]["request"]["json"])
    calls = [
        {
            "id": block["id"],
            "type": "function",
            "function": {"name": block["name"], "arguments": json.dumps(block["input"])},
        }
        for block in recorded["messages"][1]["content"][1:]
    ]
    tool = recorded["tools"][0]
    function = {
        "name": tool["name"],
        "description": tool["description"],
        "parameters": tool["input_schema"],
    }
    messages = [
        {"role": "system", "content": recorded["system"]},
        {"role": "user", "content": recorded["messages"][0]["content"][0]["text"]},
        {
            "role": "assistant",
            "content": recorded["messages"][1]["content"][0]["text"],
            "tool_calls": calls,
        },
        *(
            {"role": "tool", "tool_call_id": block["tool_use_id"], "content": block["content"]}
            for block in recorded["messages"][2]["content"]
        ),
    ]
    body = {"messages": messages, "tools": [{"type": "function", "function": function}]}
    sent = json.loads(DIALECT.build(InferenceRequest(Operation.CHAT, recorded["model"], body), {}).body)
    for block in recorded["messages"][2]["content"]:
        assert block.pop("is_error") is False  # which is what leaving it out says
    assert recorded.pop("stream") is False
    assert recorded.pop("tool_choice") == {"type": "auto"}
    assert sent == recorded
