"""Strategies and rules of the operator's own: what they add, replace and decide."""

from __future__ import annotations

from typing import Any

import pytest

from fleets import EASY, HARD, LARGE, chat, decide, first, fleet, order
from k9_broker.policy import Consequence, Policy, Preference, Rule, Strategy, When
from k9_broker.requests import Privacy, TaskType
from k9_broker.strategy.engine import Router


def prefer(*selectors: str, **when: Any) -> Preference:
    return Preference(when=When(**when), prefer=selectors)


def test_an_own_strategy_weighs_what_it_says() -> None:
    own = Strategy(name="thrifty", weights={"cost": 1, "quality": 3})
    decision = decide(chat(model="auto:thrifty"), strategies=(own,), **EASY)
    best = decision.candidates[0]
    assert best.backend == "cloud-mini"
    assert best.scores.keys() == {"cost", "quality"}
    assert best.score == pytest.approx((best.scores["cost"] + 3 * best.scores["quality"]) / 4)


def test_a_place_no_selector_fits_is_not_called_preferred() -> None:
    own = Strategy(name="mine", weights={"preference": 1}, rules=(prefer("backend:nobody"),))
    assert first(decide(chat(model="auto:mine"), strategies=(own,))) == (
        "local-small",
        "mine:first of the rest",
    )


def test_an_own_strategy_may_extend_one_and_its_rules_come_first() -> None:
    own = Strategy(name="mine", extends="task-type", rules=(prefer("cloud small", task_type="translation"),))
    given: dict[str, Any] = {"strategies": (own,), "strategy": "mine", **EASY}
    assert first(decide(chat(task_type=TaskType.TRANSLATION), **given)) == ("cloud-mini", "mine:cloud small")
    assert first(decide(chat(task_type=TaskType.CHAT), **given)) == ("local-small", "mine:local small")


def test_extending_adds_weights_and_a_zero_takes_one_away() -> None:
    grandchild = (
        Strategy(name="child", extends="cost-first", weights={"load": 2}, near=0.1),
        Strategy(name="grandchild", extends="child", weights={"adequacy": 0}),
    )
    known = Router(Policy(strategies=grandchild)).strategies
    assert known["child"].weights == {"adequacy": 3, "cost": 1, "load": 2}
    assert known["grandchild"].weights == {"adequacy": 0, "cost": 1, "load": 2}
    assert known["grandchild"].near == 0.1
    assert first(decide(chat(model="auto:grandchild"), strategies=grandchild, **HARD))[0].startswith("local")


def test_a_built_in_strategy_may_be_changed_under_its_own_name() -> None:
    own = Strategy(name="cost-first", extends="cost-first", weights={"quality": 100})
    decision = decide(chat(model="auto:cost"), strategies=(own,), **EASY)
    assert first(decision)[0] == "cloud-large"


def test_an_own_strategy_may_spread_near_equals() -> None:
    own = Strategy(name="even", weights={"cost": 1}, near=0.01)
    router = Router(Policy(strategies=(own,), **EASY))
    taken = {
        router.decide(chat(f"number {number}", "auto:even"), fleet()).candidates[0].backend
        for number in range(64)
    }
    assert taken == {"local-small", "local-code"}


def rule(name: str, then: dict[str, Any], **when: Any) -> Rule:
    return Rule(name=name, when=When(**when), then=Consequence(**then))


@pytest.mark.parametrize(
    ("when", "holds"),
    [
        ({}, True),
        ({"task_type": "chat"}, True),
        ({"task_type": ["qa", "chat"]}, True),
        ({"task_type": "qa"}, False),
        ({"operation": "chat"}, True),
        ({"operation": "embeddings"}, False),
        ({"tenant": "default"}, True),
        ({"tenant": ["acme", "lab"]}, False),
        ({"model": "auto"}, True),
        ({"model": LARGE}, False),
        ({"priority": "interactive"}, True),
        ({"priority": "batch"}, False),
        ({"tokens_over": 1, "tokens_under": 50}, True),
        ({"tokens_over": 50}, False),
        ({"tokens_under": 2}, False),
        ({"needs_strong_under": 1.0}, True),
        ({"needs_strong_over": 1.0}, False),
        ({"task_type": "chat", "tokens_over": 5000}, False),
    ],
)
def test_a_rule_holds_when_all_its_conditions_do(when: dict[str, Any], holds: bool) -> None:
    rules = (rule("far", {"prefer": "cloud small"}, **when),)
    decision = decide(chat(task_type=TaskType.CHAT), rules=rules, **EASY)
    assert first(decision)[0] == ("cloud-mini" if holds else "local-small")


@pytest.mark.parametrize("strategy", ["task-type", "cost-first", "quality-first", "latency-first"])
@pytest.mark.parametrize(
    ("wish", "expected"),
    [
        (["cloud small"], ["cloud-mini"]),
        (["local code", "cloud large", "local small"], ["local-code", "cloud-large", "local-small"]),
    ],
)
def test_what_a_rule_prefers_comes_first_under_every_strategy(
    strategy: str, wish: list[str], expected: list[str]
) -> None:
    decision = decide(chat(model=f"auto:{strategy}"), rules=(rule("r", {"prefer": wish}),), **EASY)
    assert order(decision)[: len(expected)] == expected
    assert first(decision)[1] == f"{strategy}:{wish[0]}"
    assert decision.candidates[0].scores["preference"] == 1


def test_of_several_rules_the_first_with_a_word_on_a_matter_decides_it() -> None:
    rules = (
        rule("never", {"prefer": "cloud large"}, tenant="acme"),
        rule("one", {"strategy": "quality"}),
        rule("two", {"strategy": "cost", "prefer": "cloud small"}),
        rule("three", {"prefer": "local code"}),
    )
    decision = decide(chat(), rules=rules, **EASY)
    assert (decision.strategy, decision.strategy_by) == ("quality-first", "rule:one")
    assert first(decision) == ("cloud-mini", "quality-first:cloud small")


def test_rules_give_way_to_the_callers_strategy_but_not_to_his_wish_for_less_privacy() -> None:
    rules = (rule("inside", {"strategy": "quality", "privacy": "local-only"}),)
    decision = decide(chat(model="auto:cost", privacy=Privacy.ANY), rules=rules, **EASY)
    assert (decision.strategy, decision.privacy_by) == ("cost-first", ("rule:inside",))
    assert order(decision) == ["local-small", "local-code"]


@pytest.mark.parametrize(
    ("asked", "rules", "tenant", "expected"),
    [
        ({"strategy": "cost", "model": "auto:quality"}, "latency", "task", ("cost-first", "caller")),
        ({"model": "auto:quality"}, "latency", "task-type", ("quality-first", "caller")),
        ({}, "latency", "task-type", ("latency-first", "rule:r")),
        ({}, None, "latency-first", ("latency-first", "tenant")),
        ({}, None, None, ("cost-first", "default")),
    ],
)
def test_who_chooses_the_strategy(
    asked: dict[str, Any], rules: str | None, tenant: str | None, expected: tuple[str, str]
) -> None:
    policy = Policy.model_validate(
        {
            "strategy": "cost-first",
            "rules": [{"name": "r", "then": {"strategy": rules}}] if rules else [],
            "tenants": {"default": {"strategy": tenant}} if tenant else {},
        }
    )
    decision = Router(policy).decide(chat(**asked), fleet())
    assert (decision.strategy, decision.strategy_by) == expected
