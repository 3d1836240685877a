"""How many tokens a call counts for towards a rate limit."""

from __future__ import annotations

from typing import Any

import pytest

from k9_broker.requests import InferenceRequest, Operation
from k9_workers.pacing import tokens_of

CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "x" * 400}]}


@pytest.mark.parametrize(
    ("operation", "body", "most", "tokens"),
    [
        ("chat", {**CHAT, "max_tokens": 50}, True, 104 + 50),
        ("chat", {**CHAT, "max_completion_tokens": 50, "max_tokens": 9}, True, 104 + 50),
        ("chat", {**CHAT, "max_tokens": 4000}, False, 104 + 80),
        ("chat", {**CHAT, "max_tokens": 20}, False, 104 + 20),
        ("chat", CHAT, True, 104 + 80),
        ("chat", {**CHAT, "max_tokens": 50, "n": 3}, True, 104 + 150),
        ("completions", {"prompt": ["a" * 40, "b" * 40], "max_tokens": 5}, True, 20 + 10),
        ("completions", {"prompt": [[1, 2, 3], [4, 5]], "max_tokens": 5}, True, 5 + 10),
        ("completions", {"prompt": [1, 2, 3], "max_tokens": 5}, True, 3 + 5),
        ("embeddings", {"input": ["a" * 400, "b" * 400]}, True, 200),
        ("embeddings", {"input": [[1, 2, 3], [4]]}, True, 4),
    ],
)
def test_a_call_counts_its_prompt_and_all_its_answers(
    operation: str, body: dict[str, Any], most: bool, tokens: int
) -> None:
    request = InferenceRequest(Operation(operation), "m", body)
    assert tokens_of(request, most=most) == pytest.approx(tokens, abs=1)


def test_a_known_prompt_is_not_estimated() -> None:
    request = InferenceRequest(Operation.CHAT, "m", {**CHAT, "max_tokens": 7})
    assert tokens_of(request, 1000) == 1007
