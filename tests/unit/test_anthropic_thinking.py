"""`reasoning_effort` and a caller's own `thinking`, as Anthropic's models take them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from anthropic_events import DIALECT
from k9_broker import errors
from k9_broker.requests import InferenceRequest, Operation


def chat(**body: Any) -> InferenceRequest:
    messages = [{"role": "user", "content": "hi"}]
    return InferenceRequest(Operation.CHAT, "claude", {"messages": messages, **body})


def asked(options: dict[str, Any], **body: Any) -> dict[str, Any]:
    """What a request says of thinking, and of tokens where it differs from the default."""
    made = json.loads(DIALECT.build(chat(**body), options).body)
    names = ("thinking", "output_config", "max_tokens")
    return {name: made[name] for name in names if name in made and made[name] != 4096}


ADAPTIVE = {"type": "adaptive"}


@pytest.mark.parametrize(
    ("body", "budgets", "made"),
    [
        ({"reasoning_effort": "none"}, False, {"thinking": {"type": "disabled"}}),
        (
            {"reasoning_effort": "minimal"},
            False,
            {"thinking": ADAPTIVE, "output_config": {"effort": "low"}, "max_tokens": 5120},
        ),
        (
            {"reasoning_effort": "high", "max_tokens": 2000},
            False,
            {"thinking": ADAPTIVE, "output_config": {"effort": "high"}, "max_tokens": 2000},
        ),
        (
            {"reasoning_effort": "max", "max_tokens": 2000},
            False,
            {"thinking": ADAPTIVE, "output_config": {"effort": "max"}, "max_tokens": 2000},
        ),
        (
            {"reasoning_effort": "low"},
            True,
            {"thinking": {"type": "enabled", "budget_tokens": 2048}, "max_tokens": 4096 + 2048},
        ),
        (
            {"reasoning_effort": "high", "max_tokens": 8000},
            True,
            {"thinking": {"type": "enabled", "budget_tokens": 6000}, "max_tokens": 8000},
        ),
        (
            {"reasoning_effort": "high", "max_tokens": 1025},
            True,
            {"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 1025},
        ),
        (
            {"reasoning_effort": "low", "thinking": {"type": "enabled", "budget_tokens": 5000}},
            False,
            {"thinking": {"type": "enabled", "budget_tokens": 5000}, "max_tokens": 9096},
        ),
        (
            {"reasoning_effort": "xhigh", "thinking": {**ADAPTIVE, "display": "omitted"}, "max_tokens": 9},
            True,
            {
                "thinking": {**ADAPTIVE, "display": "omitted"},
                "output_config": {"effort": "xhigh"},
                "max_tokens": 9,
            },
        ),
        (
            {"thinking": {"type": "disabled"}, "reasoning_effort": "none"},
            True,
            {"thinking": {"type": "disabled"}},
        ),
    ],
)
def test_thinking(body: dict[str, Any], budgets: bool, made: dict[str, Any]) -> None:
    options = {"budget_models": ["claude"]} if budgets else {}
    assert asked(options, **body) == made


def test_a_budget_needs_room() -> None:
    with pytest.raises(errors.UnsupportedParameter) as caught:
        DIALECT.build(chat(reasoning_effort="low", max_tokens=1024), {"budget_models": ["claude"]})
    assert caught.value.param == "reasoning_effort"


def test_effort_and_schema_share_their_place() -> None:
    form = {"type": "json_object", "schema": {"type": "object"}}
    made = asked({}, reasoning_effort="low", response_format=form, max_tokens=9)
    assert made["output_config"].keys() == {"effort", "format"}
