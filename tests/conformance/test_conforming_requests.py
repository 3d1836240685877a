"""One request in OpenAI's words to every dialect: what its server gets, and what is refused by name instead.
Nothing is left out in silence."""

from __future__ import annotations

from typing import Any

import pytest

from conformance.cases import FORMAT, MODEL, tool
from conformance.dialects import STREAMS_ALL, TABLES, exchange, serving, stream, stream_path, taken, whole
from k9_broker.errors import UnsupportedParameter
from k9_broker.requests import InferenceRequest, Operation

WITHOUT_TOOLS: dict[str, Any] = {
    "model": "auto",  # what the caller named; the backend is sent the model that was chosen
    "messages": [{"role": "user", "content": "Wetter?"}],
    "temperature": 1.2,
    "stop": "END",
    "max_completion_tokens": 64,
    "response_format": FORMAT,
    "seed": 7,
    "user": "u-1",
}
WISHES = {
    "everything": {**WITHOUT_TOOLS, "tools": [tool("weather")], "tool_choice": "required"},
    "without tools": WITHOUT_TOOLS,
}
CACHED = {"cache_control": {"type": "ephemeral"}}


def chat(body: dict[str, Any]) -> InferenceRequest:
    return InferenceRequest(Operation.CHAT, MODEL, body)


@pytest.mark.parametrize("how", ["whole", "streamed"])
@pytest.mark.parametrize("wish", WISHES)
@pytest.mark.parametrize("dialect", TABLES)
async def test_what_goes_out(dialect: str, wish: str, how: str) -> None:
    found, wished = exchange(dialect, "text"), TABLES[dialect].wishes[wish]
    reply = whole(found) if how == "whole" else stream(found)
    body, refused = dict(WISHES[wish]), []
    async with serving(dialect, {stream_path(found): reply}) as (played, caller):
        while not played.seen:
            try:
                await (caller.call(chat(body)) if how == "whole" else taken(caller, chat(body)))
            except UnsupportedParameter as error:
                refused.append(error.param)
                body.pop(str(error.param))  # it is one that was asked for
    assert tuple(refused) == wished.refused
    (sent,) = played.seen
    expected = dict(wished.body)
    streams = how == "streamed" or dialect in STREAMS_ALL
    if streams:
        expected["stream"] = True
        if "stream_options" in sent.body:  # where usage must be asked for
            expected["stream_options"] = {"include_usage": True}
    assert sent.body == expected
    assert "expect" not in sent.headers
    assert ("stream_options" in sent.body) is (streams and dialect not in ("ollama", "anthropic"))


@pytest.mark.parametrize("dialect", TABLES)
async def test_what_bears_on_no_answer_is_left_out(dialect: str) -> None:
    """Marks for another provider's cache, null values, and thinking that another model has signed."""
    found = exchange(dialect, "text")
    spoken = {"role": "assistant", "content": "Ja.", "thinking_blocks": [], **CACHED}
    marked = {"type": "text", "text": "Und?", **CACHED}
    messages = [
        {"role": "user", "content": "Wetter?"},
        spoken,
        {"role": "user", "content": [marked]},
    ]
    body = {"messages": messages, "tools": [{**tool("weather"), **CACHED}], "top_p": None, "seed": None}
    async with serving(dialect, {found.path: whole(found)}) as (played, caller):
        await caller.call(chat(body))
    (sent,) = played.seen
    text = str(sent.body)
    assert ("cache_control" in text) is (dialect == "anthropic")  # whose word it is
    assert "thinking_blocks" not in text
    assert "None" not in text.replace("'content': None", "")


@pytest.mark.parametrize("dialect", TABLES)
async def test_a_conversation_with_tools_goes_back(dialect: str) -> None:
    """The calls of the last turn and their results, by the ids they have been given."""
    found = exchange(dialect, "text")
    calls = [
        {"id": f"call_{name}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for name, arguments in (("weather", '{"city":"Zürich"}'), ("clock", "{}"))
    ]
    messages = [
        {"role": "user", "content": "Wetter?"},
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "tool_call_id": "call_weather", "content": "18 °C"},
        {"role": "tool", "tool_call_id": "call_clock", "content": "12:00"},
    ]
    body = {"messages": messages, "tools": [tool("weather"), tool("clock")]}
    async with serving(dialect, {found.path: whole(found)}) as (played, caller):
        await caller.call(chat(body))
    (sent,) = played.seen
    turns = sent.body["messages"]
    if dialect == "anthropic":  # both results in one turn, right after the calls
        assert [turn["role"] for turn in turns] == ["user", "assistant", "user"]
        assert [block["id"] for block in turns[1]["content"]] == ["call_weather", "call_clock"]
        assert [block["input"] for block in turns[1]["content"]] == [{"city": "Zürich"}, {}]
        assert [block["tool_use_id"] for block in turns[2]["content"]] == ["call_weather", "call_clock"]
        return
    assert [turn["role"] for turn in turns] == ["user", "assistant", "tool", "tool"]
    assert [turn["tool_call_id"] for turn in turns[2:]] == ["call_weather", "call_clock"]
    assert [turn["content"] for turn in turns[2:]] == ["18 °C", "12:00"]
    functions = [call["function"] for call in turns[1]["tool_calls"]]
    assert [function["name"] for function in functions] == ["weather", "clock"]
    objects = dialect == "ollama"
    assert functions[0]["arguments"] == ({"city": "Zürich"} if objects else '{"city":"Zürich"}')


async def test_sampling_to_the_anthropic_that_has_none() -> None:
    """Its newer version refuses sampling parameters, even at their defaults."""
    found = exchange("anthropic", "text")
    options = {"version": "2026-10-21"}
    async with serving("anthropic", {found.path: whole(found)}, options=options) as (played, caller):
        with pytest.raises(UnsupportedParameter) as caught:
            await caller.call(chat({**WITHOUT_TOOLS, "temperature": 0.2, "seed": None}))
        assert caught.value.param == "temperature"
        await caller.call(chat({"messages": WITHOUT_TOOLS["messages"], "temperature": 1}))
    (sent,) = played.seen
    assert sent.headers["anthropic-version"] == "2026-10-21"
    assert "temperature" not in sent.body
    assert sent.body["max_tokens"] > 0


async def test_azures_other_surface_has_the_deployment_in_the_body() -> None:
    found = exchange("azure", "text")
    path = "/openai/v1/chat/completions"
    options = {"surface": "v1"}
    async with serving("azure", {path: whole(found)}, options=options) as (played, caller):
        await caller.call(chat({"messages": WITHOUT_TOOLS["messages"]}))
    assert played.seen[0].body["model"] == MODEL
