"""Messages requests in OpenAI's words: every field translated."""

from __future__ import annotations

import json
from typing import Any

import pytest

from k9_api.dialects.anthropic import ingress
from k9_broker.errors import UnsupportedParameter
from k9_broker.requests import InferenceRequest, Kind, Operation, Priority, Privacy

OLD = "2023-06-01"
HELLO = [{"role": "user", "content": "hello"}]
ASK: dict[str, Any] = {"model": "m", "max_tokens": 64, "messages": HELLO}
TOOL = {"name": "look", "description": "Looks.", "input_schema": {"type": "object", "properties": {}}}
PIXEL = {"type": "base64", "media_type": "image/png", "data": "aGk="}
MARK = {"type": "ephemeral", "ttl": "1h"}


def parse(body: Any, version: str = OLD, **headers: str) -> InferenceRequest:
    pairs = [(b"anthropic-version", version.encode())]
    pairs += [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return ingress.parse(json.dumps(body).encode(), pairs, "acme")


def body_of(**fields: Any) -> dict[str, Any]:
    return dict(parse(ASK | fields).body)


def messages_of(*turns: Any, **fields: Any) -> list[Any]:
    return list(body_of(messages=list(turns), **fields)["messages"])


def user(*blocks: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(blocks)}


def assistant(*blocks: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": list(blocks)}


def text(said: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": said, **more}


def test_the_least_request_becomes_a_chat_of_the_tenant() -> None:
    request = parse(ASK)
    assert (request.operation, request.model, request.tenant) == (Operation.CHAT, "m", "acme")
    assert request.body == {"model": "m", "max_completion_tokens": 64, "messages": HELLO}
    assert not request.stream
    assert parse(ASK | {"stream": True}).stream
    assert InferenceRequest.load(request.dump()) == request


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"stop_sequences": ["a", "b"]}, {"stop": ["a", "b"]}),
        ({"stop_sequences": []}, {}),
        ({"temperature": 0.5, "top_p": 0.9, "top_k": 40}, {"temperature": 0.5, "top_p": 0.9, "top_k": 40}),
        ({"temperature": None, "system": None, "tools": None, "thinking": None, "metadata": None}, {}),
        ({"metadata": {"user_id": "u"}}, {"user": "u"}),
        ({"metadata": {}}, {}),
        ({"service_tier": "auto"}, {"service_tier": "auto"}),
        ({"service_tier": "standard_only"}, {"service_tier": "default"}),
        ({"speed": "standard", "container": None, "mcp_servers": [], "diagnostics": {"a": 1}}, {}),
        ({"min_p": 0.1, "seed": 7}, {"min_p": 0.1, "seed": 7}),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 1024}},
            {"thinking": {"type": "enabled", "budget_tokens": 1024}, "reasoning_effort": "low"},
        ),
        (
            {"thinking": {"type": "adaptive", "display": "summarized"}},
            {"thinking": {"type": "adaptive", "display": "summarized"}},
        ),
        ({"thinking": {"type": "disabled"}}, {"thinking": {"type": "disabled"}, "reasoning_effort": "none"}),
        ({"output_config": {"effort": "max"}}, {"reasoning_effort": "max"}),
        (
            {"thinking": {"type": "adaptive"}, "output_config": {"effort": "xhigh"}},
            {"thinking": {"type": "adaptive"}, "reasoning_effort": "xhigh"},
        ),
    ],
)
def test_options_are_said_in_openais_words(fields: Any, said: Any) -> None:
    assert body_of(**fields) == {"model": "m", "max_completion_tokens": 64, "messages": HELLO, **said}


@pytest.mark.parametrize(
    ("budget", "effort"),
    [(1024, "low"), (4096, "low"), (4097, "medium"), (16_384, "medium"), (16_385, "high"), (60_000, "high")],
)
def test_a_budget_of_thinking_is_an_effort(budget: int, effort: str) -> None:
    told = body_of(thinking={"type": "enabled", "budget_tokens": budget})
    assert told["reasoning_effort"] == effort


@pytest.mark.parametrize("place", ["output_config", "output_format"])
def test_a_schema_of_the_answer_is_strict(place: str) -> None:
    wanted = {"type": "json_schema", "schema": {"type": "object"}}
    told = body_of(**{place: wanted if place == "output_format" else {"format": wanted}})
    schema = {"name": "answer", "schema": {"type": "object"}, "strict": True}
    assert told["response_format"] == {"type": "json_schema", "json_schema": schema}


def test_tools_are_functions() -> None:
    told = body_of(tools=[TOOL | {"strict": True, "cache_control": MARK, "type": "custom"}, TOOL])
    function = {"name": "look", "description": "Looks.", "parameters": TOOL["input_schema"]}
    assert told["tools"] == [
        {"type": "function", "function": {**function, "strict": True}, "cache_control": MARK},
        {"type": "function", "function": function},
    ]
    assert "tool_choice" not in told


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ({"type": "auto"}, {"tool_choice": "auto"}),
        ({"type": "any"}, {"tool_choice": "required"}),
        ({"type": "none"}, {"tool_choice": "none"}),
        (
            {"type": "tool", "name": "look"},
            {"tool_choice": {"type": "function", "function": {"name": "look"}}},
        ),
        (
            {"type": "any", "disable_parallel_tool_use": True},
            {"tool_choice": "required", "parallel_tool_calls": False},
        ),
        ({"type": "auto", "disable_parallel_tool_use": False}, {"tool_choice": "auto"}),
    ],
)
def test_a_tool_choice_is_translated(choice: Any, said: Any) -> None:
    told = body_of(tools=[TOOL], tool_choice=choice)
    assert {name: told[name] for name in told if name in ("tool_choice", "parallel_tool_calls")} == said


def test_the_choice_among_no_tools_is_none() -> None:
    assert "tool_choice" not in body_of(tools=[], tool_choice={"type": "auto"})


# -- messages --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("system", "content"),
    [
        ("Be brief.", "Be brief."),
        ([text("Be brief.")], "Be brief."),
        ([text("Be brief.", cache_control=MARK)], [text("Be brief.", cache_control=MARK)]),
        ([text("a"), text("b", cache_control=None)], [text("a"), text("b")]),
    ],
)
def test_the_system_prompt_is_the_first_message(system: Any, content: Any) -> None:
    assert messages_of(*HELLO, system=system) == [{"role": "system", "content": content}, *HELLO]


def test_no_system_prompt_is_no_message() -> None:
    assert messages_of(*HELLO, system="") == messages_of(*HELLO, system=[]) == HELLO


def test_a_system_turn_stays_where_it_is() -> None:
    turns = [*HELLO, {"role": "system", "content": [text("now in French")]}]
    assert messages_of(*turns) == [*HELLO, {"role": "system", "content": "now in French"}]


def test_what_a_user_shows_becomes_parts() -> None:
    pdf = {"type": "base64", "media_type": "application/pdf", "data": "aGk="}
    notes = {"type": "text", "media_type": "text/plain", "data": "the notes"}
    inner = {"type": "content", "content": [text("inside"), {"type": "image", "source": PIXEL}]}
    [message] = messages_of(
        user(
            text("look", citations=None),
            {"type": "image", "source": PIXEL, "cache_control": MARK},
            {"type": "image", "source": {"type": "url", "url": "https://x.test/a.png"}},
            {"type": "document", "source": pdf, "title": "a.pdf", "citations": {"enabled": False}},
            {"type": "document", "source": notes, "title": "Notes", "context": "of May"},
            {"type": "document", "source": inner},
        )
    )
    pixel = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}
    assert message == user(
        text("look"),
        {**pixel, "cache_control": MARK},
        {"type": "image_url", "image_url": {"url": "https://x.test/a.png"}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,aGk=", "filename": "a.pdf"}},
        text("Notes\n\nof May\n\nthe notes"),
        text("inside"),
        pixel,
    )


def test_a_turn_with_tools_goes_through() -> None:
    asked = assistant(
        text("Let me "),
        text("look."),
        {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"at": "é"}},
        {"type": "tool_use", "id": "toolu_2", "name": "look", "input": {}},
    )
    told = user(
        {"type": "tool_result", "tool_use_id": "toolu_1", "content": "18 C"},
        {
            "type": "tool_result",
            "tool_use_id": "toolu_2",
            "content": [text("it broke"), {"type": "image", "source": PIXEL}],
            "is_error": True,
            "cache_control": MARK,
        },
        text("And now?"),
    )
    call = {"type": "function", "function": {"name": "look", "arguments": '{"at":"é"}'}}
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}
    assert messages_of(*HELLO, asked, told) == [
        *HELLO,
        {
            "role": "assistant",
            "content": "Let me look.",
            "tool_calls": [
                {"id": "toolu_1", **call},
                {"id": "toolu_2", **call, "function": {"name": "look", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "toolu_1", "content": "18 C"},
        {
            "role": "tool",
            "tool_call_id": "toolu_2",
            "content": [text("it broke"), image],
            "is_error": True,
            "cache_control": MARK,
        },
        {"role": "user", "content": "And now?"},
    ]


def test_a_result_without_content_is_empty() -> None:
    result = {"type": "tool_result", "tool_use_id": "t"}
    assert messages_of(user(result)) == [{"role": "tool", "tool_call_id": "t", "content": ""}]


def test_signed_thinking_goes_back_unchanged_and_its_text_beside_it() -> None:
    signed = {"type": "thinking", "thinking": "hm", "signature": "c2ln"}
    redacted = {"type": "redacted_thinking", "data": "b3BhcXVl"}
    unsigned = {"type": "thinking", "thinking": "well", "signature": ""}
    [_, message] = messages_of(*HELLO, assistant(signed, redacted, unsigned, text("yes")))
    assert message == {
        "role": "assistant",
        "content": "yes",
        "reasoning": "hm\n\nwell",
        "thinking_blocks": [signed, redacted],
    }


def test_an_assistant_may_have_said_nothing() -> None:
    call = {"type": "tool_use", "id": "t", "name": "look", "input": {}}
    assert messages_of(*HELLO, assistant())[1] == {"role": "assistant", "content": ""}
    assert messages_of(*HELLO, assistant(call))[1]["content"] is None


def test_texts_marked_for_a_cache_stay_apart() -> None:
    marked = text("b", cache_control=MARK)
    assert messages_of(*HELLO, assistant(text("a"), marked))[1]["content"] == [text("a"), marked]
    assert messages_of(*HELLO, cache_control=MARK)[0] == {**HELLO[0], "cache_control": MARK}


# -- K-9's controls --------------------------------------------------------------------------------


def test_controls_are_taken_from_headers_and_from_the_body() -> None:
    request = parse(
        ASK | {"k9": {"privacy": "any", "kind": "local"}}, x_k9_privacy="local-only", x_k9_priority="batch"
    )
    assert (request.privacy, request.kind) == (Privacy.LOCAL_ONLY, Kind.LOCAL)
    assert request.priority is Priority.BATCH
    assert "k9" not in request.body
    with pytest.raises(UnsupportedParameter):
        parse(ASK, x_k9_nonsense="1")


def test_counting_needs_no_limit_of_the_answer() -> None:
    body = {name: value for name, value in ASK.items() if name != "max_tokens"}
    request = ingress.parse_count(json.dumps(body).encode(), [], "acme")
    assert request.body == {"model": "m", "messages": HELLO}
