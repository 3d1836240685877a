"""What K-9 is for: a knowledge base, a code assistant, agents; local models first, the cloud when needed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from quartet import CLOUD, SLOTS, Quartet

COMMON = (
    "How do I reset my password?",
    "What is a capacitor?",
    "What is the difference between RAM and ROM?",
    "Where can I find the invoice for my last order?",
    "¿Cuál es la capital de Australia?",
    "Was kostet der Versand nach Österreich?",
)
COMPLEX = (
    "Prove that the halting problem is undecidable and derive Rice's theorem from it step by step.",
    "Prove that for every prime p greater than 3 the number p^2 - 1 is divisible by 24, and determine "
    "for which "
    "composite numbers the statement also holds.",
    "Explain how the Raft consensus algorithm keeps a committed entry safe when leaders change, and "
    "derive why a "
    "leader may not commit entries of earlier terms by counting replicas alone.",
)


@pytest.mark.parametrize("tenant", ["plain", "thrift"])
@pytest.mark.parametrize("question", COMMON)
def test_common_questions_are_answered_here(k9: Quartet, tenant: str, question: str) -> None:
    answer = k9.chat(question, tenant=tenant)
    strategy = {"plain": "task-type:local small", "thrift": "cost-first:cheapest"}[tenant]
    assert answer.where == ("local-small", strategy)
    assert answer.headers["x-k9-task-type"] == "qa"
    assert float(answer.headers["x-k9-cost-usd"]) == 0
    assert k9.calls(*CLOUD) == 0


@pytest.mark.parametrize("tenant", ["plain", "thrift"])
@pytest.mark.parametrize("question", COMPLEX)
def test_complex_questions_go_to_the_large_model(k9: Quartet, tenant: str, question: str) -> None:
    answer = k9.chat(question, tenant=tenant)
    strategy = {"plain": "task-type:cloud large", "thrift": "cost-first:cheapest strong enough"}[tenant]
    assert answer.where == ("cloud-large", strategy)
    assert answer.headers["x-k9-model"] == "gpt-4o"
    assert k9.route(answer.job, tenant)["needs_strong"] > 0.5


def test_a_knowledge_base_saves_what_its_common_questions_would_have_cost(k9: Quartet) -> None:
    before = k9.get("/v1/usage", "thrift")["total"]
    for question in (*COMMON, *COMPLEX):
        assert k9.chat(question, tenant="thrift").status == 200
    after = k9.get("/v1/usage", "thrift")["total"]
    spent, there = (after[name] - before[name] for name in ("cost_usd", "cloud_cost_usd"))
    assert after["jobs"] - before["jobs"] == len(COMMON) + len(COMPLEX)
    assert 0 < spent < there
    assert after["saving_usd"] - before["saving_usd"] == pytest.approx(there - spent)


PREFIX = 'def median(values):\n    """Return the median of a list of numbers."""\n    ordered = '


def test_a_completion_goes_to_the_code_model_here(k9: Quartet) -> None:
    filled = k9.post(
        "/v1/completions",
        {"model": "auto", "prompt": PREFIX, "suffix": "\n    return ordered", "max_tokens": 8},
    )
    assert filled.where == ("local-code", "task-type:local code")
    assert k9.route(filled.job)["task_type_by"] == "parameters"
    continued = k9.post("/v1/completions", {"model": "auto", "prompt": PREFIX, "max_tokens": 8})
    assert continued.where == ("local-code", "task-type:local code")
    assert continued.headers["x-k9-task-type"] == "code_completion"


REFACTOR = (
    "Refactor this function so that it is easier to read:\n\n```python\ndef f(a, b):\n    r = []\n"
    "    for i in range(len(a)):\n        if a[i] in b:\n            r.append(a[i])\n    return r\n```"
)
REVIEW = (
    "Review this code for bugs and fix what you find:\n\n```python\nimport threading\n\nclass Counter:\n"
    "    def __init__(self):\n        self.n = 0\n    def add(self):\n        self.n = self.n + 1\n```"
)


@pytest.mark.parametrize("prompt", [REFACTOR, REVIEW], ids=["refactor", "review"])
def test_supplied_code_goes_to_the_large_model(k9: Quartet, prompt: str) -> None:
    answer = k9.chat(prompt)
    assert answer.where == ("cloud-large", "task-type:cloud large")
    assert answer.headers["x-k9-task-type"] == "code_refactor_review"


def test_code_from_words_goes_to_the_code_model_here_first(k9: Quartet) -> None:
    answer = k9.chat("Write a Python function that checks whether a string is a palindrome.")
    assert answer.where == ("local-code", "task-type:local code")
    candidates = [one["backend"] for one in k9.route(answer.job)["candidates"]]
    assert candidates[:2] == ["local-code", "local-small"]
    assert set(candidates[2:]) == set(CLOUD)


SUBTASKS = (
    "Classify this ticket as billing, technical or other: My invoice shows the wrong address.",
    "Extract all product names from this text: We bought the Aurora lamp and two Borealis chairs.",
    "Summarize in one sentence: The meeting was moved to Thursday because the large room is being painted.",
    "Classify the sentiment of this review as positive or negative: The room was cold and the staff were "
    "rude.",
)
PLAN = (
    "You coordinate five agents that migrate a banking system without downtime. Derive from the "
    "dependency graph "
    "which subtasks must precede which, compute the critical path step by step, and prove that no "
    "transfer can be "
    "lost or applied twice during the cutover."
)


def test_agents_fan_out_here_while_their_coordinator_thinks_in_the_cloud(k9: Quartet) -> None:
    small = k9.fakes["local-small"]
    small.behave(latency_ms=700)
    with ThreadPoolExecutor(len(SUBTASKS) + 1) as agents:
        plan = agents.submit(k9.chat, PLAN)
        parts = [agents.submit(k9.chat, text) for text in SUBTASKS]
        small.wait(lambda seen: seen["active"] > 1)
        assert plan.result().where == ("cloud-large", "task-type:cloud large")
        assert {part.result().where for part in parts} == {("local-small", "task-type:local small")}
    assert 1 < small.stats()["max_active"] <= SLOTS
    assert k9.calls("cloud-large") == 1
    assert k9.calls("local-small") == len(SUBTASKS)
