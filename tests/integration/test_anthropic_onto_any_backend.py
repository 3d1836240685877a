"""Anthropic's SDK through K-9's API onto every dialect: the strictest reader of streams over every wire."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic

from direct import Direct
from k9_api.app import create_app
from k9_broker.backends import Backend
from k9_broker.settings import JobSettings, Settings
from k9_broker.testing import FakeServer
from serving import Served

PLACES = {
    "openai": "openai",
    "azure": "openai",
    "anthropic": "plain",
    "ollama": "plain",
    "openai-compatible": "plain",
    "vllm": "vllm",
    "llama.cpp": "llamacpp",
    "tgi": "tgi",
}
"""The dialects, each with the flavour of the fake it speaks to."""
SHOW_THINKING = {"anthropic", "ollama", "vllm", "llama.cpp"}
ONE_CALL_ONLY = {"tgi"}

HELLO: list[Any] = [{"role": "user", "content": "hello"}]
LOOK: dict[str, Any] = {
    "name": "look",
    "description": "Looks.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
WAIT: dict[str, Any] = {"name": "wait", "input_schema": {"type": "object", "properties": {}}}


@pytest.fixture(scope="module")
def fakes() -> Iterator[dict[str, FakeServer]]:
    models = [name.replace(".", "") for name in PLACES]
    with ExitStack() as stack:
        flavours = sorted(set(PLACES.values()))
        yield {
            flavour: stack.enter_context(FakeServer(flavour=flavour, models=models, reasoning_tokens=4))
            for flavour in flavours
        }


@pytest.fixture(scope="module")
def broker(fakes: dict[str, FakeServer]) -> Direct:
    def backend(dialect: str) -> Backend:
        name = dialect.replace(".", "")
        return Backend(name=name, dialect=dialect, url=fakes[PLACES[dialect]].url, models=(name,))

    return Direct(backends=tuple(map(backend, PLACES)))


@pytest.fixture(scope="module")
def sdk(broker: Direct) -> Iterator[Anthropic]:
    async def opener(url: str, jobs: JobSettings) -> Direct:
        return broker.open()

    with (
        Served(create_app(Settings(), "redis://127.0.0.1:1/0", opener=opener)) as api,
        Anthropic(base_url=api.url, api_key="any", max_retries=0, timeout=20) as client,
    ):
        yield client


def ask(dialect: str, **more: Any) -> dict[str, Any]:
    return {"model": dialect.replace(".", ""), "max_tokens": 2000, "messages": HELLO, **more}


def both(sdk: Anthropic, **request: Any) -> tuple[Any, Any]:
    """The answer whole, and streamed."""
    whole = sdk.messages.create(**request)
    with sdk.messages.stream(**request) as stream:
        return whole, stream.get_final_message()


def plain(content: Any) -> list[Any]:
    """The blocks without the ids of calls, which some servers make up anew each time."""
    return [{name: value for name, value in block.to_dict().items() if name != "id"} for block in content]


@pytest.mark.parametrize("dialect", PLACES)
def test_text(sdk: Anthropic, dialect: str) -> None:
    whole, streamed = both(sdk, **ask(dialect, system="Be brief."))
    assert plain(streamed.content) == plain(whole.content)
    assert whole.content[-1].text
    assert whole.stop_reason == streamed.stop_reason == "end_turn"
    assert streamed.usage == whole.usage
    assert whole.usage.input_tokens > 0
    assert whole.usage.output_tokens > 0


@pytest.mark.parametrize("dialect", PLACES)
def test_an_answer_cut_off(sdk: Anthropic, dialect: str) -> None:
    whole, streamed = both(sdk, **ask(dialect, max_tokens=6))
    assert whole.stop_reason == streamed.stop_reason == "max_tokens"


@pytest.mark.parametrize("dialect", PLACES)
def test_tools_and_the_turn_after(sdk: Anthropic, dialect: str) -> None:
    said: Any = [{"role": "user", "content": "Please use the tool look, then use the tool wait."}]
    request = ask(dialect, messages=said, tools=[LOOK, WAIT])
    for answer in both(sdk, **request):
        calls = [block for block in answer.content if block.type == "tool_use"]
        wanted = ["look"] if dialect in ONE_CALL_ONLY else ["look", "wait"]
        assert [call.name for call in calls] == wanted
        assert isinstance(calls[0].input["city"], str)
        assert [call.input for call in calls[1:]] == [{}] * len(calls[1:])
        assert len({call.id for call in calls}) == len(calls)
        assert answer.stop_reason == "tool_use"
        results = [{"type": "tool_result", "tool_use_id": call.id, "content": "18 C"} for call in calls]
        after = [*said, answer.to_param(), {"role": "user", "content": results}]
        final = sdk.messages.create(**{**request, "messages": after})
        assert final.stop_reason == "end_turn"


@pytest.mark.parametrize("dialect", sorted(SHOW_THINKING))
def test_thinking_and_its_way_back(sdk: Anthropic, dialect: str) -> None:
    request = ask(dialect, thinking={"type": "enabled", "budget_tokens": 1024})
    for answer in both(sdk, **request):
        first, *_, last = answer.content
        assert (first.type, last.type) == ("thinking", "text")
        assert first.thinking
        assert bool(first.signature) is (dialect == "anthropic")
        after = [*HELLO, answer.to_param(), {"role": "user", "content": "and?"}]
        assert sdk.messages.create(**{**request, "messages": after}).content[-1].type == "text"


@pytest.mark.parametrize("dialect", PLACES)
def test_thinking_switched_off_is_not_shown(sdk: Anthropic, dialect: str) -> None:
    for answer in both(sdk, **ask(dialect, thinking={"type": "disabled"})):
        assert [block.type for block in answer.content] == ["text"]


@pytest.mark.parametrize("dialect", PLACES)
def test_a_schema(sdk: Anthropic, dialect: str) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    }
    config: Any = {"format": {"type": "json_schema", "schema": schema}}
    answer: Any = sdk.messages.create(**ask(dialect, output_config=config))
    assert '"city"' in answer.content[-1].text


@pytest.mark.parametrize("dialect", PLACES)
def test_a_stop_sequence_ends_the_answer(sdk: Anthropic, dialect: str) -> None:
    first: Any = sdk.messages.create(**ask(dialect))
    words = first.content[-1].text.split()
    whole, streamed = both(sdk, **ask(dialect, stop_sequences=[words[5]]))
    for answer in (whole, streamed):
        assert answer.content[-1].text.split() == words[:5]
        assert answer.stop_reason in ("end_turn", "stop_sequence")
        if dialect in ("anthropic", "vllm"):
            assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", words[5])


FAULTS: dict[str, dict[str, Any]] = {
    "an error amid it": {"error_after_tokens": 8},
    "an end amid it": {"cut_after_tokens": 8},
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("dialect", PLACES)
def test_a_stream_that_breaks_raises(
    sdk: Anthropic, broker: Direct, fakes: dict[str, FakeServer], dialect: str, fault: str
) -> None:
    fake = fakes[PLACES[dialect]]
    broker.callers[dialect.replace(".", "")].reset()  # the circuit that the last fault has opened
    fake.behave(**FAULTS[fault])
    try:
        with sdk.messages.stream(**ask(dialect)) as stream, pytest.raises(anthropic.APIStatusError):
            stream.get_final_message()
    finally:
        fake.reset()


@pytest.mark.parametrize("dialect", PLACES)
def test_an_error_before_a_stream_has_its_own_status(
    sdk: Anthropic, broker: Direct, fakes: dict[str, FakeServer], dialect: str
) -> None:
    fake = fakes[PLACES[dialect]]
    broker.callers[dialect.replace(".", "")].reset()
    fake.behave(fail_next=2, error_status=500)
    try:
        with pytest.raises(anthropic.InternalServerError):
            sdk.messages.create(**ask(dialect))
        with pytest.raises(anthropic.InternalServerError), sdk.messages.stream(**ask(dialect)) as stream:
            stream.get_final_message()
    finally:
        fake.reset()
