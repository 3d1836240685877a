"""One K-9 for all scenarios, with the wishes of several tenants in its `k9.toml`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from quartet import Quartet, quartet

CONFIG = """
[routing]
strategy = "task-type"

[models."llama3.1:8b"]
tags = ["small"]
quality = 0.47
context_window = 4096

[models."qwen2.5-coder:7b"]
tags = ["small", "code"]
quality = 0.45
context_window = 4096

[models."gpt-4o"]
tags = ["large"]
quality = 0.9
context_window = 128000
input_usd = 2.5
output_usd = 10

[models."gpt-4o-mini"]
tags = ["small"]
quality = 0.65
context_window = 128000
input_usd = 0.15
output_usd = 0.6

[aliases]
house = "llama3.1:8b"
code = ["qwen2.5-coder:7b", "gpt-4o-mini"]

# the agency: translations to the mini model, whatever else task-type says
[[strategies]]
name = "agency"
extends = "task-type"
rules = [{ when = { task_type = "translation" }, prefer = ["cloud small", "local"] }]

# strength for its price
[[strategies]]
name = "value"
weights = { quality = 2, cost = 1 }

[[rules]]
name = "tickets"
when = { tenant = "desk" }
then = { task_type = "extraction_classification" }

[[rules]]
name = "contracts"
when = { tenant = "lawyer", tokens_over = 30 }
then = { privacy = "local-only" }

[[rules]]
name = "to the coder"
when = { tenant = "lab", task_type = ["qa", "chat"], tokens_under = 200 }
then = { prefer = "local code" }

[privacy]
words = ["Project Larkspur"]

[tenants.thrift]
strategy = "cost-first"

[tenants.best]
strategy = "quality-first"

[tenants.clinic]
strategy = "quality-first"
privacy = "local-only"

[tenants.agency]
strategy = "agency"

[tenants.poor]
strategy = "quality-first"
budget_usd_per_day = 0.0004

[tenants.broke]
strategy = "quality-first"
budget_usd_per_day = 0
"""
TENANTS = ("plain", "thrift", "best", "clinic", "agency", "desk", "lawyer", "lab", "poor", "broke")


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Quartet]:
    started = quartet(tmp_path_factory.mktemp("quartet"), CONFIG, TENANTS)
    yield started
    started.stop()


@pytest.fixture
def k9(running: Quartet) -> Quartet:
    """The running K-9 with its backends as they were at the start."""
    running.reset()
    return running
