"""What K-9 itself writes for an answer of any dialect: complete and in order always, and by the schemas of
both APIs where the contracts are at hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from anthropic_answers import events, gathered
from conformance import emitted
from conformance.cases import ASKS, Answer, Exchange
from conformance.dialects import (
    STREAMS,
    TABLES,
    exchange,
    refusing,
    serving,
    stream,
    stream_path,
    streamed,
    taken,
    where,
    whole,
)
from contract_schemas import Check, checker
from k9_api.dialects.anthropic.surface import ANTHROPIC
from k9_api.dialects.openai.surface import OPENAI
from k9_broker.errors import BodyTooLarge, K9Error, StreamTruncated
from k9_broker.requests import Operation
from k9_broker.results import Chunk, Result, Usage

WHOLES = [
    (name, case)
    for name, table in TABLES.items()
    for case, row in table.exchanges.items()
    if isinstance(row, Exchange)
]
CHATS = [(name, case) for name, case in STREAMS if ASKS[case].operation is Operation.CHAT]
OPENAIS = {
    Operation.CHAT: ("CreateChatCompletionResponse", "CreateChatCompletionStreamResponse"),
    Operation.COMPLETIONS: ("CreateCompletionResponse", "CreateCompletionResponse"),
    Operation.EMBEDDINGS: ("CreateEmbeddingResponse", ""),
}
OPENAI_DOCUMENT = "openai.openapi.json"
ANTHROPIC_DOCUMENTS = [f"anthropic-{one}.derived.openapi.json" for one in ("2023-06-01", "2026-10-21")]


@pytest.fixture(scope="module")
def check(contracts: Path) -> Check:
    return checker(contracts)


async def result_of(dialect: str, case: str) -> Result:
    found = exchange(dialect, case)
    async with serving(dialect, {found.path: whole(found)}) as (_, caller):
        return await caller.call(ASKS[case])


async def chunks_of(dialect: str, case: str) -> list[Chunk]:
    found = exchange(dialect, case)
    async with serving(dialect, {stream_path(found): stream(found)}) as (_, caller):
        return await taken(caller, ASKS[case])


def content(answer: Answer) -> list[tuple[str, Any]]:
    """An answer as Anthropic's blocks, but for the ids of calls and the signatures."""
    thought = [("thinking", answer.reasoning)] if answer.reasoning else []
    said = [("text", answer.text)] if answer.text else []
    return [*thought, *said, *(("tool_use", call) for call in answer.calls)]


def told(message: dict[str, Any]) -> list[tuple[str, Any]]:
    read: dict[str, Callable[[dict[str, Any]], Any]] = {
        "thinking": lambda block: block["thinking"],
        "text": lambda block: block["text"],
        "tool_use": lambda block: (block["name"], block["input"]),
    }
    shown = [block for block in message["content"] if block["type"] != "redacted_thinking"]
    return [(block["type"], read[block["type"]](block)) for block in shown]


STOPS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


def used(usage: Usage) -> tuple[int, int]:
    return usage.prompt, usage.completion


def counted(usage: dict[str, Any]) -> tuple[int, int]:
    inputs = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    return sum(usage[name] for name in inputs), usage["output_tokens"]


@pytest.mark.parametrize(("dialect", "case"), WHOLES)
async def test_whole_answers_are_complete(dialect: str, case: str) -> None:
    ask, answer = ASKS[case], exchange(dialect, case).answer
    result = await result_of(dialect, case)
    body = emitted.whole(OPENAI, ask, result)
    assert body["usage"]["prompt_tokens"] == answer.usage.prompt
    if ask.operation is Operation.EMBEDDINGS:
        assert [tuple(one["embedding"]) for one in body["data"]] == list(answer.rows)
        return
    (choice,) = body["choices"]
    assert choice["finish_reason"] == answer.finish
    assert {"index", "logprobs"} <= choice.keys()
    if ask.operation is Operation.COMPLETIONS:
        assert choice["text"] == answer.text
        return
    assert {"role", "content", "refusal"} <= choice["message"].keys()
    assert (choice["message"]["content"] or "") == answer.text
    assert [call["function"]["name"] for call in choice["message"].get("tool_calls", ())] == [
        name for name, _ in answer.calls
    ]
    message = emitted.whole(ANTHROPIC, ask, result)
    assert told(message) == content(answer)
    assert message["stop_reason"] == STOPS[answer.finish]
    assert counted(message["usage"]) == used(answer.usage)


@pytest.mark.parametrize(("dialect", "case"), STREAMS)
async def test_streams_are_in_order(dialect: str, case: str) -> None:
    answer, chunks = exchange(dialect, case).answer, await chunks_of(dialect, case)
    for usage in (False, True):
        raw = emitted.written(OPENAI, emitted.wish(case, usage=usage), chunks)
        emitted.check_frames(emitted.frames(raw), usage=usage)
    if ASKS[case].operation is Operation.CHAT:
        raw = emitted.written(ANTHROPIC, streamed(ASKS[case]), chunks)
        message = gathered(events(raw))
        assert told(message) == content(answer)
        assert message["stop_reason"] == STOPS[answer.finish]
        assert counted(message["usage"]) == used(answer.usage)
        seals = [block.get("signature") or block.get("data") for block in message["content"]]
        assert tuple(seal for seal in seals if seal) == answer.sealed


@pytest.mark.parametrize("dialect", TABLES)
async def test_an_answer_that_breaks_off_ends_with_an_error(dialect: str) -> None:
    """Never as if it were whole: no `[DONE]` and no `message_stop` after it."""
    chunks = (await chunks_of(dialect, "text"))[:2]
    ask = streamed(ASKS["text"])
    last = emitted.broken(OPENAI, ask, chunks, StreamTruncated()).decode().split("\n\n")[-2]
    assert json.loads(last.removeprefix("data: "))["error"].keys() == {"message", "type", "param", "code"}
    found = events(emitted.broken(ANTHROPIC, ask, chunks, StreamTruncated()))
    assert found[-1]["type"] == "error"
    assert "message_stop" not in {event["type"] for event in found}


async def failures(dialect: str) -> list[K9Error]:
    found = []
    async with serving(dialect, {}) as (played, caller):
        for one in TABLES[dialect].refusals.values():
            ask, path, _ = where(dialect, one)
            played.routes[("POST", path)] = refusing(one)
            with pytest.raises(K9Error) as caught:
                await caller.call(ask)
            caller.reset()
            found.append(caught.value)
    return found


@pytest.mark.parametrize("dialect", TABLES)
async def test_errors_have_all_their_keys(dialect: str) -> None:
    for error in await failures(dialect):
        told = emitted.error_body(OPENAI, error)
        assert told["error"].keys() == {"message", "type", "param", "code"}
        assert told["error"]["code"] == error.code
        envelope = emitted.error_body(ANTHROPIC, error)
        assert envelope.keys() == {"type", "error", "request_id"}
        assert {"type", "message"} <= envelope["error"].keys()


@pytest.mark.contracts
@pytest.mark.parametrize("dialect", TABLES)
async def test_whole_answers_fit_the_schemas(dialect: str, check: Check) -> None:
    for case in [case for name, case in WHOLES if name == dialect]:
        ask, result = ASKS[case], await result_of(dialect, case)
        check(OPENAI_DOCUMENT, OPENAIS[ask.operation][0], emitted.whole(OPENAI, ask, result))
        if ask.operation is Operation.CHAT:
            for document in ANTHROPIC_DOCUMENTS:
                check(
                    document,
                    "Message",
                    emitted.whole(ANTHROPIC, ask, result),
                )


@pytest.mark.contracts
@pytest.mark.parametrize("dialect", TABLES)
async def test_streams_fit_the_schemas(dialect: str, check: Check) -> None:
    for case in [case for name, case in STREAMS if name == dialect]:
        ask, chunks = streamed(ASKS[case]), await chunks_of(dialect, case)
        for usage in (False, True):
            for frame in emitted.frames(emitted.written(OPENAI, emitted.wish(case, usage=usage), chunks)):
                check(OPENAI_DOCUMENT, OPENAIS[ask.operation][1], emitted.as_documented(frame))
        if ask.operation is Operation.CHAT:
            for event in events(emitted.written(ANTHROPIC, ask, chunks)):
                for document in ANTHROPIC_DOCUMENTS:
                    check(document, "K9_RawMessageStreamEvent", event)


@pytest.mark.contracts
@pytest.mark.parametrize("dialect", TABLES)
async def test_errors_fit_the_schemas(dialect: str, check: Check) -> None:
    for error in await failures(dialect):
        check(OPENAI_DOCUMENT, "ErrorResponse", emitted.error_body(OPENAI, error))
        if isinstance(error, BodyTooLarge):
            continue  # `request_too_large`, which Anthropic sends and its types do not have
        for document in ANTHROPIC_DOCUMENTS:
            check(
                document,
                "ErrorResponse",
                emitted.error_body(ANTHROPIC, error),
            )
