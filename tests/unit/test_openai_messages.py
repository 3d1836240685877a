"""Messages in the words of every server of OpenAI's family: thoughts, marks, results of tools, files."""

from __future__ import annotations

import json
from typing import Any

import pytest

from k9_broker import errors
from k9_broker.dialects.registry import dialect_named
from k9_broker.requests import InferenceRequest, Operation

FAMILY = ("openai", "azure", "vllm", "llama.cpp", "openai-compatible")
CLOUDS = ("openai", "azure")
LOCAL = ("vllm", "llama.cpp")
USER = {"role": "user", "content": "hi"}
PNG = "data:image/png;base64,iVBORw0KGgo="


def sent(dialect: str, body: dict[str, Any], options: dict[str, Any] | None = None) -> dict[str, Any]:
    request = InferenceRequest(Operation.CHAT, "m", body)
    made: dict[str, Any] = json.loads(dialect_named(dialect).build(request, options or {}).body)
    return made


def refused(dialect: str, body: dict[str, Any]) -> str:
    with pytest.raises(errors.UnsupportedParameter) as caught:
        sent(dialect, body)
    assert caught.value.param
    return caught.value.param


MARK = {"cache_control": {"type": "ephemeral"}}
THOUGHT = {
    "role": "assistant",
    "content": "a",
    "reasoning": "because",
    "thinking_blocks": [{"type": "thinking", "thinking": "because", "signature": "s"}],
}


@pytest.mark.parametrize("dialect", FAMILY)
def test_marks_of_a_cache_are_left_out(dialect: str) -> None:
    tool = {"type": "function", "function": {"name": "f"}}
    parts = [{"type": "text", "text": "t"}, {"type": "image_url", "image_url": {"url": PNG}}]
    marked = {
        "messages": [
            {**USER, **MARK},
            {"role": "user", "content": [{**part, **MARK} for part in parts]},
        ],
        "tools": [{**tool, **MARK}],
        **MARK,
    }
    made = sent(dialect, marked)
    assert made["messages"] == [USER, {"role": "user", "content": parts}]
    assert made["tools"] == [tool]
    assert "cache_control" not in json.dumps(made)


@pytest.mark.parametrize(
    ("dialect", "word"),
    [
        ("openai", None),
        ("azure", None),
        ("vllm", "reasoning"),
        ("llama.cpp", "reasoning_content"),
        ("openai-compatible", "reasoning_content"),
        ("fake", "reasoning_content"),
    ],
)
def test_what_an_assistant_thought(dialect: str, word: str | None) -> None:
    plain = {"role": "assistant", "content": "a"}
    for thought in (THOUGHT, {**plain, "reasoning_content": "because"}):
        (made,) = sent(dialect, {"messages": [thought]})["messages"]
        assert made == (plain | {word: "because"} if word else plain)
    (made,) = sent(dialect, {"messages": [{**plain, "reasoning": ""}]})["messages"]
    assert made == plain


@pytest.mark.parametrize("dialect", FAMILY)
def test_results_of_tools(dialect: str) -> None:
    result = {"role": "tool", "tool_call_id": "c", "is_error": True}
    texts = [{"type": "text", "text": "one", **MARK}, {"type": "text", "text": "two"}]
    (made,) = sent(dialect, {"messages": [{**result, "content": texts}]})["messages"]
    assert made == {"role": "tool", "tool_call_id": "c", "content": "one\ntwo"}
    (made,) = sent(dialect, {"messages": [{**result, "content": "plain"}]})["messages"]
    assert made == {"role": "tool", "tool_call_id": "c", "content": "plain"}


def test_images_in_results_of_tools() -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "image_url", "image_url": {"url": PNG}}]
    message = {"role": "tool", "tool_call_id": "c", "content": parts}
    for dialect in FAMILY[2:]:
        assert sent(dialect, {"messages": [USER, message]})["messages"] == [USER, message]
    for dialect in CLOUDS:
        assert refused(dialect, {"messages": [USER, message]}) == "messages[1].content"


def test_roles() -> None:
    messages = [{"role": "developer", "content": "be brief"}, USER]
    for dialect in FAMILY:
        roles = [message["role"] for message in sent(dialect, {"messages": messages})["messages"]]
        assert roles == ["system" if dialect == "vllm" else "developer", "user"]


REMOTE: list[dict[str, Any]] = [
    {"type": "image_url", "image_url": {"url": "http://10.0.0.1/latest/meta-data"}},
    {"type": "image_url", "image_url": {"url": "https://example.org/a.png", "detail": "low"}},
    {"type": "image_url", "image_url": "HTTPS://example.org/a.png"},
    {"image_url": " https://example.org/a.png"},
    {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}},
    {"type": "video_url", "video_url": {"url": "ftp://example.org/a.mp4"}},
    {"type": "input_audio", "input_audio": {"data": "http://example.org/a.wav", "format": "wav"}},
]


@pytest.mark.parametrize("part", REMOTE)
@pytest.mark.parametrize("role", ["user", "tool"])
def test_local_servers_are_not_made_to_fetch(part: dict[str, Any], role: str) -> None:
    messages = [USER, {"role": role, "content": [{"type": "text", "text": "see http://x"}, part]}]
    name = next(name for name in part if name != "type")
    for dialect in LOCAL:
        assert refused(dialect, {"messages": messages}) == f"messages[1].content[1].{name}"
        assert sent(dialect, {"messages": messages}, {"image_urls": True})["messages"] == messages
    assert sent("openai-compatible", {"messages": messages})["messages"] == messages
    if role == "user":
        for dialect in CLOUDS:
            assert sent(dialect, {"messages": messages})["messages"] == messages


@pytest.mark.parametrize("dialect", LOCAL)
def test_files_in_the_request_pass(dialect: str) -> None:
    parts = [
        {"type": "image_url", "image_url": {"url": PNG}},
        {"type": "image_url", "image_url": {"url": "DATA:image/png;base64,aHR0cDovL3g="}},
        {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
    ]
    messages = [{"role": "user", "content": parts}]
    assert sent(dialect, {"messages": messages}, {"image_urls": False})["messages"] == messages


@pytest.mark.parametrize("dialect", FAMILY)
def test_the_request_itself_is_left_alone(dialect: str) -> None:
    body = {
        "messages": [
            {**THOUGHT, **MARK},
            {"role": "user", "content": [{"type": "text", "text": "t", **MARK}]},
        ],
        "tools": [{"type": "function", "function": {"name": "f"}, **MARK}],
        "stop": "x",
        "max_tokens": 3,
        "thinking": {},
        "reasoning_effort": "none",
        "stream": True,
    }
    before = json.dumps(body)
    sent(dialect, body)
    assert json.dumps(body) == before


@pytest.mark.parametrize("dialect", FAMILY)
@pytest.mark.parametrize("messages", [[3], ["x"], [None], [{"role": "user", "content": [3]}], "x"])
def test_what_is_no_message_is_the_servers_to_refuse(dialect: str, messages: Any) -> None:
    assert sent(dialect, {"messages": messages})["messages"] == messages
