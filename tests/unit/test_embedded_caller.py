"""The embedded model as a caller: what it answers, what it refuses, and that calls take turns."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from k9_broker.dialects import embedded
from k9_broker.dialects.embedded import EmbeddedCaller
from k9_broker.errors import BadRequest, ConfigurationError, ModelNotFound, UnsupportedParameter
from k9_broker.minilm import DIMENSIONS, MODEL_NAME
from k9_broker.minilm.model import MiniLM
from k9_broker.minilm.wordpiece import MARKERS, WordPiece
from k9_broker.requests import InferenceRequest, Operation
from k9_broker.results import Result

LETTERS = "abcdefgh"


class FirstToken:
    """A runner whose vectors hold the second token's id, and which works only when it is let."""

    name = "numpy"
    padded = False
    tokens_at_once = 3

    def __init__(self) -> None:
        self.gate = threading.Semaphore(0)
        self.begun = threading.Semaphore(0)
        self.seen: list[int] = []

    def run(self, rows: Sequence[Sequence[int]]) -> Any:
        self.begun.release()
        assert self.gate.acquire(timeout=10)
        self.seen += [row[1] for row in rows]
        return np.full((len(rows), DIMENSIONS), [[row[1]] for row in rows], np.float32)


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> FirstToken:
    runner = FirstToken()
    model = MiniLM(WordPiece([*MARKERS, *LETTERS]), runner)
    monkeypatch.setattr(embedded.MiniLM, "load", lambda folder, name: model)
    return runner


@pytest.fixture
async def caller(runner: FirstToken) -> AsyncIterator[EmbeddedCaller]:
    caller = EmbeddedCaller(Path("nowhere"), threads=1)
    yield caller
    runner.gate.release(1000)
    await caller.close()


def request(given: object, partial: bool = False, **body: object) -> InferenceRequest:
    body = {"model": MODEL_NAME, "input": given, **body}
    return InferenceRequest(Operation.EMBEDDINGS, MODEL_NAME, body, partial=partial)


def letters(result: Result) -> str:
    """Which letter each vector stands for; a dot where it is zero."""
    assert result.vectors is not None
    ids = [int(result.vectors.row_floats(index)[-1]) for index in range(result.vectors.count)]
    return "".join(LETTERS[number - len(MARKERS)] if number else "." for number in ids)


@pytest.mark.parametrize(
    ("given", "expected"), [("a", "a"), (["a"], "a"), (["c", "b c", "a"], "cba"), (["a"] * 9, "a" * 9)]
)
async def test_a_text_or_a_list_of_texts_is_answered_in_order(
    caller: EmbeddedCaller, runner: FirstToken, given: object, expected: str
) -> None:
    runner.gate.release(100)
    result = await caller.call(
        request(given, encoding_format="base64", user="u", dimensions=384, stream=False)
    )
    assert letters(result) == expected
    assert (result.model, result.errors, result.usage.completion) == (MODEL_NAME, {}, 0)
    assert result.usage.prompt == sum(len(text.split()) + 2 for text in given)
    assert Result.load(result.dump()).vectors == result.vectors


async def test_it_has_one_model(caller: EmbeddedCaller) -> None:
    assert list(await caller.models()) == [MODEL_NAME]


@pytest.mark.parametrize(
    ("given", "error", "complaint", "param"),
    [
        ([], BadRequest, "empty list", "input"),
        ("", BadRequest, "empty", "input"),
        (None, BadRequest, "not a string", "input"),
        ({"text": "a"}, BadRequest, "not a string", "input"),
        (["a", ""], BadRequest, "empty", "input[1]"),
        (["a", 1.5], BadRequest, "not a string", "input[1]"),
        ([1, 2], UnsupportedParameter, "token ids", "input[0]"),
        ([[1, 2], [3]], UnsupportedParameter, "token ids", "input[0]"),
    ],
)
async def test_other_inputs_are_refused_by_name(
    caller: EmbeddedCaller, given: object, error: type[BadRequest], complaint: str, param: str
) -> None:
    with pytest.raises(error, match=complaint) as raised:
        await caller.call(request(given))
    assert raised.value.param == param


async def test_with_partial_a_failed_input_has_its_error_and_zeros(
    caller: EmbeddedCaller, runner: FirstToken
) -> None:
    runner.gate.release(100)
    result = await caller.call(request(["", "b", None, [7], "a", 3], partial=True))
    assert letters(result) == ".b..a."
    assert {index: error["code"] for index, error in result.errors.items()} == {
        0: "invalid_request",
        2: "invalid_request",
        3: "unsupported_parameter",
        5: "unsupported_parameter",
    }
    assert result.usage.prompt == 6
    assert letters(await caller.call(request([""], partial=True))) == "."


@pytest.mark.parametrize(
    ("body", "param"), [({"dimensions": 128}, "dimensions"), ({"task": "query"}, "task")], ids=str
)
async def test_unknown_parameters_are_refused_by_name(
    caller: EmbeddedCaller, body: dict[str, object], param: str
) -> None:
    with pytest.raises(UnsupportedParameter, match=param) as raised:
        await caller.call(request("a", **body))
    assert raised.value.param == param


async def test_it_only_embeds_and_only_with_its_model(caller: EmbeddedCaller) -> None:
    chat = InferenceRequest(Operation.CHAT, MODEL_NAME, {"messages": []})
    with pytest.raises(BadRequest, match="only makes embeddings"):
        await caller.call(chat)
    with pytest.raises(UnsupportedParameter):
        caller.stream(chat)
    with pytest.raises(ModelNotFound, match=MODEL_NAME):
        await caller.call(InferenceRequest(Operation.EMBEDDINGS, "other", {"input": "a"}))


async def until(event: threading.Semaphore) -> None:
    assert await asyncio.to_thread(event.acquire, timeout=10)


async def test_a_short_call_does_not_wait_for_a_long_one(caller: EmbeddedCaller, runner: FirstToken) -> None:
    long = asyncio.create_task(caller.call(request(list("aaaa"))))
    await until(runner.begun)
    short = asyncio.create_task(caller.call(request("b")))
    for _ in range(5):
        runner.gate.release()
    await asyncio.gather(long, short)
    assert 0 < runner.seen.index(LETTERS.index("b") + len(MARKERS)) < len(runner.seen) - 1


async def test_a_cancelled_call_stops_after_its_batch(caller: EmbeddedCaller, runner: FirstToken) -> None:
    long = asyncio.create_task(caller.call(request(list("aaaa"))))
    await until(runner.begun)
    long.cancel()
    with pytest.raises(asyncio.CancelledError):
        await long
    runner.gate.release(100)
    await caller.call(request("b"))
    assert len(runner.seen) == 2


async def test_several_threads_share_a_call(runner: FirstToken) -> None:
    caller = EmbeddedCaller(Path("nowhere"), threads=2)
    call = asyncio.create_task(caller.call(request(list("abcd"))))
    await until(runner.begun)
    await until(runner.begun)  # the second batch began although the first has not ended
    runner.gate.release(100)
    assert letters(await call) == "abcd"
    await caller.close()


async def test_a_missing_folder_is_named_and_may_be_filled_later(tmp_path: Path) -> None:
    caller = EmbeddedCaller(tmp_path)
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="k9 model fetch minilm"):
            await caller.models()
    await caller.close()
