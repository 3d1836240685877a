"""Token estimates: near what tokenizers count, and never fooled by images or lists of ids."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleets import chat, embeddings
from k9_broker import tokens
from k9_broker.requests import InferenceRequest, Operation, TaskType

ENGLISH = (
    "The committee met on Tuesday to discuss the repairs of the old bridge, which had been closed to "
    "lorries since the floods in spring. Nobody could say how long the work would take, nor who would pay."
)
PYTHON = """def merge(left, right):
    out, i, j = [], 0, 0
    while i < len(left) and j < len(right):
        if left[i] <= right[j]:
            out.append(left[i]); i += 1
        else:
            out.append(right[j]); j += 1
    return out + left[i:] + right[j:]
"""
CHINESE = "请把下面这段文字翻译成英文，并用一句话说明它的主要意思。"
RUSSIAN = "Переведите, пожалуйста, следующий абзац на английский язык."
GERMAN = "Bitte übersetze den folgenden Absatz ins Englische und fasse ihn in einem Satz zusammen."


@pytest.mark.parametrize(
    ("text", "counted"),
    [(ENGLISH, 40), (PYTHON, 89), (CHINESE, 25), (RUSSIAN, 21), (GERMAN, 22)],
    ids=["english", "python", "chinese", "russian", "german"],
)
def test_estimates_are_near_what_a_tokenizer_counts(text: str, counted: int) -> None:
    """`counted`: by hand, from the pieces common byte-pair vocabularies have."""
    estimate = tokens.estimate_text(text)
    assert estimate.least <= counted
    assert counted / 1.7 <= estimate.likely <= counted * 1.7


@given(st.text(max_size=2000))
def test_the_least_is_never_more_than_the_likely(text: str) -> None:
    estimate = tokens.estimate_text(text)
    assert 0 <= estimate.least <= estimate.likely


@given(st.text(max_size=500), st.text(max_size=500))
def test_more_text_is_not_fewer_tokens(text: str, more: str) -> None:
    assert tokens.estimate_text(text + more).likely >= tokens.estimate_text(text).likely - 1


def test_lone_surrogates_do_no_harm() -> None:
    assert tokens.estimate_text("\ud800 text").likely > 0


def count(body: dict[str, Any], operation: Operation = Operation.CHAT) -> int:
    return tokens.prompt_tokens(InferenceRequest(operation, "m", body)).likely


def test_a_conversation_counts_its_turns_tools_and_images() -> None:
    turn = {"role": "user", "content": ENGLISH}
    alone = count({"messages": [turn]})
    assert count({"messages": [turn, turn]}) == pytest.approx(2 * alone, rel=0.1)
    tools = [{"type": "function", "function": {"name": "look_up", "description": ENGLISH}}]
    assert count({"messages": [turn], "tools": tools}) > 1.7 * alone
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 400_000}}
    seen = count({"messages": [{"role": "user", "content": [{"type": "text", "text": ENGLISH}, picture]}]})
    assert alone + 700 <= seen <= alone + 1000


def test_sound_is_not_text() -> None:
    sound = {"type": "input_audio", "input_audio": {"data": "A" * 100_000, "format": "wav"}}
    assert count({"messages": [{"role": "user", "content": [sound]}]}) < 50


@pytest.mark.parametrize(
    ("operation", "body", "expected"),
    [
        (Operation.COMPLETIONS, {"prompt": list(range(300))}, 300),
        (Operation.COMPLETIONS, {"prompt": [[1, 2, 3], [4, 5]]}, 5),
        (Operation.EMBEDDINGS, {"input": [1, 2, 3]}, 3),
        (Operation.EMBEDDINGS, {"input": [[1, 2, 3], [4]]}, 4),
        (Operation.CHAT, {"messages": []}, 0),
    ],
)
def test_token_ids_are_counted_as_they_are(operation: Operation, body: dict[str, Any], expected: int) -> None:
    assert count(body, operation) == expected


def test_a_suffix_counts() -> None:
    alone = count({"prompt": PYTHON}, Operation.COMPLETIONS)
    assert count({"prompt": PYTHON, "suffix": PYTHON}, Operation.COMPLETIONS) == pytest.approx(
        2 * alone, abs=2
    )


@pytest.mark.parametrize(
    ("given_", "longest"), [("one two", 2), (["a", ENGLISH, "b"], 50), ([1, 2, 3], 3), ([[1], [1, 2]], 2)]
)
def test_the_longest_input_is_what_must_fit(given_: Any, longest: int) -> None:
    request = embeddings(given_)
    assert tokens.longest_input(request, tokens.prompt_tokens(request)).likely == pytest.approx(
        longest, abs=2
    )


def test_the_longest_is_what_has_most_tokens() -> None:
    chinese = CHINESE * 10
    request = embeddings(["x" * (len(chinese) + 1), chinese])
    estimate = tokens.longest_input(request, tokens.prompt_tokens(request))
    assert estimate == tokens.estimate_text(chinese)


def test_each_of_several_prompts_is_answered() -> None:
    request = InferenceRequest(Operation.COMPLETIONS, "m", {"prompt": ["one", "two"], "n": 3})
    assert tokens.expected_output(request, TaskType.QA) == 6 * 250


def test_texts_of_a_deep_nest_come_in_order() -> None:
    nest: Any = ["b", ["c"]]
    for _ in range(5000):
        nest = [nest]
    assert list(tokens.strings({"x": "a", "y": nest, "z": {"w": "d"}})) == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("body", "asked", "expected"),
    [
        ({}, None, 250),
        ({"max_tokens": 40}, 40, 40),
        ({"max_completion_tokens": 4000, "max_tokens": 10}, 4000, 250),
        ({"n": 3}, None, 750),
        ({"n": 3, "max_tokens": 100}, 100, 300),
        ({"max_tokens": 0}, None, 250),
        ({"max_completion_tokens": [9], "max_tokens": 10}, 10, 10),  # completions do not know the first
    ],
)
def test_what_an_answer_will_have(body: dict[str, Any], asked: int | None, expected: int) -> None:
    request = chat(body=body)
    assert tokens.asked_output(request) == asked
    assert tokens.expected_output(request, TaskType.QA) == expected


def test_every_task_type_has_a_usual_answer() -> None:
    assert all(tokens.expected_output(chat(), one) >= 0 for one in TaskType)
