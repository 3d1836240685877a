"""OpenAI's messages as Anthropic's turns."""

from __future__ import annotations

from typing import Any

import pytest

from k9_broker import errors
from k9_broker.dialects.anthropic.messages import conversation

PNG = "data:image/png;base64,aGk="
PDF = "data:application/pdf;base64,JVBERg=="
MARK = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
SIGNED = {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}
REDACTED = {"type": "redacted_thinking", "data": "xyz"}


def text(words: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": words, **more}


def user(content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "user", "content": content, **more}


def call(call_id: str, arguments: Any = "{}", **more: Any) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": "f", "arguments": arguments}, **more}


def use(call_id: str, **given: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": call_id, "name": "f", "input": given}


def tool(call_id: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": content, **more}


def turns(*messages: dict[str, Any]) -> list[dict[str, Any]]:
    return conversation(list(messages))[1]


@pytest.mark.parametrize(
    ("before", "system"),
    [
        ([], None),
        ([{"role": "system", "content": "Be brief."}], "Be brief."),
        ([{"role": "developer", "content": [text("Be brief.")]}], "Be brief."),
        ([{"role": "system", "content": ""}], None),
        (
            [{"role": "system", "content": "A"}, {"role": "developer", "content": "B"}],
            [text("A"), text("B")],
        ),
        ([{"role": "system", "content": [text("A", **MARK)]}], [text("A", **MARK)]),
        ([{"role": "system", "content": "A", **MARK}], [text("A", **MARK)]),
    ],
)
def test_the_system_prompt_stands_apart(before: list[dict[str, Any]], system: Any) -> None:
    assert conversation([*before, user("hi")]) == (system, [user([text("hi")])])


def test_neighbours_of_one_role_are_one_turn() -> None:
    assert turns(
        user("a", name="Ann"),
        user([text("b"), text("")]),
        {"role": "assistant", "content": "c"},
        {"role": "assistant", "content": [text("d"), {"type": "refusal", "refusal": "No."}]},
        {"role": "assistant", "content": ""},
        user("e"),
    ) == [
        user([text("a"), text("b")]),
        {"role": "assistant", "content": [text("c"), text("d"), text("No.")]},
        user([text("e")]),
    ]


def test_results_of_parallel_calls_are_in_one_turn_before_any_text() -> None:
    assert turns(
        user("go"),
        {"role": "assistant", "content": None, "tool_calls": [call("a", '{"x": 1}'), call("b", {"y": 2})]},
        user("wait"),
        tool("a", "18 C"),
        tool("b", [text("no"), {"type": "image_url", "image_url": {"url": PNG}}], is_error=True),
        user("and?"),
    ) == [
        user([text("go")]),
        {"role": "assistant", "content": [use("a", x=1), use("b", y=2)]},
        user(
            [
                {"type": "tool_result", "tool_use_id": "a", "content": "18 C"},
                {
                    "type": "tool_result",
                    "tool_use_id": "b",
                    "content": [
                        text("no"),
                        {
                            "type": "image",
                            "source": {"type": "base64", "media_type": "image/png", "data": "aGk="},
                        },
                    ],
                    "is_error": True,
                },
                text("wait"),
                text("and?"),
            ]
        ),
    ]


def test_thinking_goes_back_first_and_unchanged() -> None:
    said = {
        "role": "assistant",
        "content": "Let me look.",
        "reasoning": "Hm.",
        "thinking_blocks": [SIGNED, REDACTED],
        "tool_calls": [call("a")],
        **MARK,
    }
    assert turns(user("go"), said)[1]["content"] == [
        SIGNED,
        REDACTED,
        text("Let me look."),
        {**use("a"), **MARK},
    ]
    unsigned = {"role": "assistant", "content": "x", "reasoning": "Hm."}
    assert turns(user("go"), unsigned)[1]["content"] == [text("x")]


def test_a_mark_never_stands_on_thinking() -> None:
    said = {"role": "assistant", "content": None, "thinking_blocks": [SIGNED], **MARK}
    assert turns(user("go"), said)[1]["content"] == [SIGNED]


@pytest.mark.parametrize("call_id", ["call_1-A", "functions.get:0", "a b"])
def test_ids_of_other_servers_pass_on_both_sides(call_id: str) -> None:
    _, said, result = turns(
        user("go"), {"role": "assistant", "content": "", "tool_calls": [call(call_id)]}, tool(call_id, "x")
    )
    made = said["content"][0]["id"]
    assert made == result["content"][0]["tool_use_id"]
    assert made.replace("_", "").replace("-", "").isalnum()


@pytest.mark.parametrize("arguments", ["", "  ", "{}", {}])
def test_no_arguments_are_an_empty_object(arguments: Any) -> None:
    said = {"role": "assistant", "content": None, "tool_calls": [call("a", arguments)]}
    assert turns(user("go"), said)[1]["content"] == [use("a")]


@pytest.mark.parametrize(
    ("part", "block"),
    [
        (
            {"type": "image_url", "image_url": {"url": "https://x.test/a.png", "detail": "low"}},
            {"type": "image", "source": {"type": "url", "url": "https://x.test/a.png"}},
        ),
        (
            {"type": "image_url", "image_url": {"url": "data:image/jpg;base64,aGk="}, **MARK},
            {
                "type": "image",
                "source": {"type": "base64", "media_type": "image/jpeg", "data": "aGk="},
                **MARK,
            },
        ),
        (
            {"type": "file", "file": {"file_data": PDF, "filename": "a.pdf"}},
            {
                "type": "document",
                "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="},
                "title": "a.pdf",
            },
        ),
        (
            {"type": "file", "file": {"file_data": "data:text/plain;charset=utf-8;base64,aMOk"}},
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "hä"}},
        ),
        (
            {"type": "file", "file": {"file_data": "data:text/plain,h%20i"}},
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "h i"}},
        ),
        (text("a", **MARK), text("a", **MARK)),
    ],
)
def test_parts(part: dict[str, Any], block: dict[str, Any]) -> None:
    assert turns(user([part])) == [user([block])]


@pytest.mark.parametrize(
    ("content", "param"),
    [
        ([{"type": "input_audio", "input_audio": {}}], "messages[0].content[0].type"),
        ([text("a"), {"type": "video_url"}], "messages[0].content[1].type"),
        ([5], "messages[0].content[0].type"),
        (
            [{"type": "image_url", "image_url": {"url": "data:image/tiff;base64,aGk="}}],
            "messages[0].content[0].image_url",
        ),
        (
            [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}],
            "messages[0].content[0].image_url",
        ),
        ([{"type": "file", "file": {"file_id": "f"}}], "messages[0].content[0].file"),
        (
            [{"type": "file", "file": {"file_data": "data:text/plain;base64,/w=="}}],
            "messages[0].content[0].file",
        ),
    ],
)
def test_parts_that_are_refused(content: Any, param: str) -> None:
    with pytest.raises(errors.BadRequest) as caught:
        turns(user(content))
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("said", "param"),
    [
        ({"tool_calls": [call("a", "oops")]}, "messages[1].tool_calls[0].function.arguments"),
        ({"tool_calls": [call("a", "[1]")]}, "messages[1].tool_calls[0].function.arguments"),
        ({"tool_calls": [{"id": "a"}]}, "messages[1].tool_calls[0]"),
        ({"tool_calls": [call("")]}, "messages[1].tool_calls[0].id"),
        ({"thinking_blocks": [text("x")]}, "messages[1].thinking_blocks"),
        ({"content": [{"type": "image_url", "image_url": {"url": PNG}}]}, "messages[1].content[0].type"),
    ],
)
def test_what_an_assistant_cannot_have_said(said: dict[str, Any], param: str) -> None:
    with pytest.raises(errors.BadRequest) as caught:
        turns(user("go"), {"role": "assistant", **said})
    assert caught.value.param == param
    assert "oops" not in caught.value.message
