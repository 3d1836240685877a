"""Every hazard of Celery on Redis that was found by measurement has a test."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

HAZARDS = 17


def test_every_hazard_has_a_test() -> None:
    found: Counter[int] = Counter()
    for path in Path(__file__).parent.glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                if number := re.match(r"test_hazard_(\d\d)_\w+$", node.name):
                    found[int(number[1])] += 1
                else:
                    assert not node.name.startswith("test_hazard_")
    assert sorted(found) == list(range(1, HAZARDS + 1))
