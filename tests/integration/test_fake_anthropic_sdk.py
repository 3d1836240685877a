"""The fake's Anthropic side, seen by the official SDK."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from k9_broker.testing import FakeServer

anthropic = pytest.importorskip("anthropic")

SAID = [{"role": "user", "content": "What is the capital of France?"}]
BODY = {"model": "fake-chat", "max_tokens": 100, "messages": SAID}
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [{"name": name, "input_schema": CITY} for name in ("get_weather", "get_traffic")]


@pytest.fixture(scope="module")
def sdk(fake_server: FakeServer) -> Iterator[Any]:
    with anthropic.Anthropic(base_url=fake_server.url, api_key="sk-ant-test", max_retries=0) as client:
        yield client


def test_plain_and_streamed(fake: FakeServer, sdk: Any) -> None:
    plain = sdk.messages.create(**BODY)
    assert plain.stop_reason == "end_turn"
    assert plain.usage.output_tokens == 16
    with sdk.messages.stream(**BODY) as stream:
        assert "".join(stream.text_stream) == plain.content[0].text
        assert stream.get_final_message().usage.output_tokens == 16
    seen = fake.requests()[-1]["headers"]
    assert seen["anthropic-version"] in ("2023-06-01", "2026-10-21")
    assert [seen.get(name) for name in ("authorization", "x-api-key")].count("***") == 1


def test_parallel_tools_and_their_results(fake: FakeServer, sdk: Any) -> None:
    asked: dict[str, Any] = {**BODY, "tools": TOOLS, "tool_choice": {"type": "any"}}
    with sdk.messages.stream(**asked) as stream:
        final = stream.get_final_message()
    assert final.stop_reason == "tool_use"
    assert [block.name for block in final.content] == ["get_weather", "get_traffic"]
    assert len({block.id for block in final.content}) == 2
    assert all(isinstance(block.input["city"], str) for block in final.content)
    one = {"type": "any", "disable_parallel_tool_use": True}
    assert len(sdk.messages.create(**{**asked, "tool_choice": one}).content) == 1
    results = [{"type": "tool_result", "tool_use_id": block.id, "content": "fine"} for block in final.content]
    messages = [*SAID, {"role": "assistant", "content": final.content}, {"role": "user", "content": results}]
    answer = sdk.messages.create(**{**BODY, "tools": TOOLS, "messages": messages})
    assert answer.stop_reason == "end_turn"


def test_text_goes_before_tools_that_are_not_forced(fake: FakeServer, sdk: Any) -> None:
    said = [{"role": "user", "content": "use the tool get_weather"}]
    with sdk.messages.stream(**{**BODY, "messages": said, "tools": TOOLS}) as stream:
        final = stream.get_final_message()
    assert [block.type for block in final.content] == ["text", "tool_use"]
    named = {"type": "tool", "name": "get_traffic"}
    called = sdk.messages.create(**BODY, tools=TOOLS, tool_choice=named)
    assert [block.type for block in called.content] == ["tool_use"]
    assert sdk.messages.create(**BODY, tools=TOOLS, tool_choice={"type": "none"}).stop_reason == "end_turn"


def test_stop_sequences_and_json(fake: FakeServer, sdk: Any) -> None:
    word = sdk.messages.create(**BODY).content[0].text.split()[3]
    stopped = sdk.messages.create(**BODY, stop_sequences=["zzz", word])
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", word)
    wanted = {"format": {"type": "json_schema", "schema": CITY}}
    answer = sdk.messages.create(**BODY, extra_body={"output_config": wanted})
    assert isinstance(json.loads(answer.content[0].text)["city"], str)


def test_counts_and_lists(fake: FakeServer, sdk: Any) -> None:
    assert sdk.messages.count_tokens(model="fake-chat", messages=SAID).input_tokens == 7
    assert [model.id for model in sdk.models.list(limit=1)] == ["fake-chat", "fake-embed"]
    assert sdk.models.retrieve("fake-chat").display_name == "fake-chat"


@pytest.mark.parametrize(
    ("status", "error"), [(429, "RateLimitError"), (529, "OverloadedError"), (500, "InternalServerError")]
)
def test_errors(fake: FakeServer, sdk: Any, status: int, error: str) -> None:
    fake.behave(fail_next=1, error_status=status)
    with pytest.raises(anthropic.APIStatusError) as caught:
        sdk.messages.create(**BODY)
    assert caught.value.status_code == status
    assert type(caught.value).__name__ == error


def test_an_error_in_a_stream_is_raised(fake: FakeServer, sdk: Any) -> None:
    fake.behave(error_after_tokens=3)
    with pytest.raises(anthropic.APIStatusError), sdk.messages.stream(**BODY) as stream:
        stream.get_final_message()
