"""The routing demo's tables, as terminals show them."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from k9_api.demo.prompts import PROMPTS
from k9_api.demo.routing_table import Routed, Run, show

TOTAL = {
    "prompt_tokens": 49_600,
    "completion_tokens": 22_800,
    "cost_usd": 0.033870,
    "cloud_cost_usd": 0.035217,
    "saving_usd": 0.001347,
}


def shown(width: int, cost: float | None = 0.000632) -> str:
    headers = {
        "x-k9-task-type": "extraction_classification",
        "x-k9-backend": "cloud-large",
        "x-k9-kind": "cloud",
        "x-k9-reason": "s:cloud large",
        "x-k9-strategy": "s",
    }
    route = {"needs_strong": 0.6612, "cost_usd": cost, "privacy_by": []}
    routed = [Routed(prompt, headers, route) for prompt in PROMPTS[:2]]
    usage = {"total": TOTAL, "by_model": [{"kind": "local", "jobs": 33}, {"kind": "cloud", "jobs": 12}]}
    names = ("task-type", "cost-first", "quality-first", "latency-first")
    out = StringIO()
    show(
        [Run(name, routed, usage) for name in names],
        Console(file=out, width=width, force_terminal=True, color_system=None),
    )
    return out.getvalue()


@pytest.mark.parametrize("width", [80, 120, 200])
def test_a_common_terminal_shows_every_number(width: int) -> None:
    lines = shown(width).splitlines()
    assert max(map(len, lines)) <= width
    totals = [line.split() for line in lines if line.endswith("4%")]
    numbers = ["33", "12", "49600", "22800", "0.033870", "0.035217", "0.001347", "4%"]
    assert [words[1:] for words in totals] == 4 * [numbers]
    assert totals[2][0] == "quality-first"
    text = "\n".join(lines)
    assert text.count(" 0.66 ") == 2
    assert text.count("cloud-large") == text.count("632") == 8


def test_a_cost_nobody_knows_is_no_number() -> None:
    assert shown(120, cost=None).count("?") >= 8
