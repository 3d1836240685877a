"""The routing tables of `k9.toml`: read whole, and refused with the key and the fix when wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from k9_broker.errors import ConfigurationError
from k9_broker.policy import Preference, When
from k9_broker.requests import Operation, Priority, Privacy, TaskType
from k9_broker.sensitive import Category
from k9_broker.settings import Settings, load_settings

Load = Callable[[str], Settings]

FILE = """
[routing]
strategy = "office"
strong_above = 0.6
strong_quality = 0.8
compare_with = { model = "gpt-4o", input_usd = 2.5, output_usd = 10 }

[models."llama3.1:8b"]
context_window = 8192
tags = ["small", "inside"]

[aliases]
small = "llama3.1:8b"
code = ["qwen2.5-coder:7b", "llama3.1:8b"]

[[strategies]]
name = "office"
extends = "task-type"
weights = { load = 0.2 }
near = 0.05

[[strategies.rules]]
when = { task_type = "translation", tokens_over = 2000 }
prefer = ["cloud large", "cloud"]

[[strategies.rules]]
when = { priority = "batch", needs_strong_under = 0.9 }
prefer = "local"

[[rules]]
name = "patients"
when = { tenant = ["clinic"], operation = ["chat", "completions"] }
then = { privacy = "local-only", task_type = "qa" }

[[rules]]
name = "long"
when = { model = "auto", tokens_over = 6000 }
then = { strategy = "quality", prefer = "model:gpt-4o" }

[privacy]
default = "any"
detect = ["email", "word"]
words = ["Project Larkspur"]

[tenants.clinic]
strategy = "cost-first"
privacy = "local-only"

[tenants.acme]
strategy = "office"
budget_usd_per_day = 2.5
"""


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    path = tmp_path / "k9.toml"
    monkeypatch.setenv("K9_CONFIG", str(path))

    def read(text: str) -> Settings:
        path.write_text(text)
        return load_settings()

    return read


def test_every_table_becomes_the_policy(load: Load) -> None:
    settings = load(FILE)
    policy = settings.policy
    assert (policy.strategy, policy.strong_above, policy.strong_quality) == ("office", 0.6, 0.8)
    assert policy.compare_with is not None
    assert policy.compare_with.output_usd == 10
    assert settings.models["llama3.1:8b"].tags == ("small", "inside")
    assert policy.aliases == {"small": ("llama3.1:8b",), "code": ("qwen2.5-coder:7b", "llama3.1:8b")}
    (office,) = policy.strategies
    assert (office.extends, office.weights, office.near) == ("task-type", {"load": 0.2}, 0.05)
    assert office.rules == (
        Preference(
            when=When(task_type=(TaskType.TRANSLATION,), tokens_over=2000),
            prefer=(frozenset({"cloud", "large"}), frozenset({"cloud"})),
        ),
        Preference(
            when=When(priority=Priority.BATCH, needs_strong_under=0.9), prefer=(frozenset({"local"}),)
        ),
    )
    patients, long = policy.rules
    assert patients.when.operation == (Operation.CHAT, Operation.COMPLETIONS)
    assert (patients.then.privacy, patients.then.task_type) == (Privacy.LOCAL_ONLY, TaskType.QA)
    assert (long.then.strategy, long.then.prefer) == ("quality", (frozenset({"model:gpt-4o"}),))
    assert policy.privacy.detect == (Category.EMAIL, Category.WORD)
    assert policy.privacy.words == ("Project Larkspur",)
    assert policy.tenant("clinic").privacy is Privacy.LOCAL_ONLY
    assert policy.tenant("acme").budget_usd_per_day == 2.5
    assert policy.tenant("nobody").strategy is None


def test_nothing_configured_is_a_whole_policy(load: Load) -> None:
    policy = load("").policy
    assert policy.strategy == "task-type"
    assert policy.privacy.detect == tuple(Category)
    assert policy.privacy.default is Privacy.ANY


def test_the_environment_wins_here_too(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K9_ROUTING__STRATEGY", "cost-first")
    monkeypatch.setenv("K9_PRIVACY__DEFAULT", "local-only")
    policy = load(FILE).policy
    assert policy.strategy == "cost-first"
    assert policy.privacy.default is Privacy.LOCAL_ONLY


STRATEGY = '[[strategies]]\nname = "mine"\n'
RULE = '[[rules]]\nname = "r"\n'


@pytest.mark.parametrize(
    ("text", "key", "fix"),
    [
        # names of strategies
        ('[routing]\nstrategy = "best"', "routing.strategy", "there are cost-first, latency-first"),
        ('[routing]\nstrategy = "Cost First"', "routing.strategy", "should match"),
        ('[tenants.acme]\nstrategy = "best"', "tenants.acme.strategy", "there are cost-first"),
        (RULE + 'then = { strategy = "best" }', "rules.r.then.strategy", "there are cost-first"),
        (STRATEGY + 'extends = "best"', "strategies.mine.extends", "there are cost-first"),
        (
            STRATEGY + 'extends = "other"\n[[strategies]]\nname = "other"\nextends = "mine"',
            "strategies",
            "mine → other → mine extend each other in a circle",
        ),
        (STRATEGY + 'extends = "mine"', "strategies", "mine → mine extend each other"),
        (2 * (STRATEGY + 'extends = "cost-first"\n'), "strategies", "give each its own"),
        # weights and rules
        (STRATEGY, "strategies", "'mine' weighs nothing; give it weights or `extends`"),
        (STRATEGY + "weights = { cost = 0 }", "strategies", "weighs nothing"),
        (
            STRATEGY + 'extends = "cost-first"\nrules = [{ prefer = "local" }]',
            "strategies",
            "'mine' has rules; give `preference` a weight",
        ),
        (STRATEGY + "weights = { price = 1 }", "strategies.0.weights", "use preference, adequacy, cost"),
        (STRATEGY + "weights = { cost = -1 }", "strategies.0.weights.cost", "greater than or equal to 0"),
        (STRATEGY + "weights = { cost = inf }", "strategies.0.weights.cost", "less than"),
        (STRATEGY + "near = 2", "strategies.0.near", "less than or equal to 1"),
        (STRATEGY + 'rules = [{ prefer = "" }]', "strategies.0.rules.0.prefer.0", "such as `local small`"),
        (STRATEGY + "rules = [{ prefer = [[]] }]", "strategies.0.rules.0.prefer.0", "such as `local small`"),
        (STRATEGY + "rules = [{ prefer = [1] }]", "strategies.0.rules.0.prefer.0", "such as `local small`"),
        (STRATEGY + "rules = [{ prefer = [{}] }]", "strategies.0.rules.0.prefer.0", "such as `local small`"),
        (STRATEGY + "rules = [{ prefer = 1 }]", "strategies.0.rules.0.prefer", "should be a list"),
        (STRATEGY + "rules = [{ prefer = [] }]", "strategies.0.rules.0.prefer", "at least 1"),
        (STRATEGY + 'rules = [{ when = { hour = 3 }, prefer = "local" }]', "when.hour", "no such setting"),
        (RULE + 'then = { prefer = "  " }', "rules.0.then.prefer.0", "such as `local small`"),
        (RULE + "then = {}", "rules.0.then", "say what follows"),
        (RULE, "rules.0.then", "required"),
        (RULE + 'then = { task_type = "poem" }', "rules.0.then.task_type", "'creative_writing'"),
        (RULE + 'when = { task_type = "poem" }\nthen = { privacy = "any" }', "when.task_type.0", "'qa'"),
        (RULE + 'then = { task_type = "embeddings" }', "rules.0.then", "known by their endpoint"),
        (RULE + 'then = { privacy = "secret" }', "rules.0.then.privacy", "'local-only'"),
        # aliases
        ('[aliases]\nauto = "m"', "aliases", "'auto' is K-9's own word"),
        ('[aliases]\n"auto:best" = "m"', "aliases", "'auto:best' is K-9's own word"),
        ("[aliases]\nsmall = []", "aliases.small", "at least 1"),
        ('[aliases]\nsmall = [""]', "aliases.small.0", "at least 1"),
        ('[aliases]\n"" = "m"', "aliases", "at least 1"),
        ('[aliases]\na = "b"\nb = "m"', "aliases", "'a' stands for 'b', which is an alias itself"),
        (
            RULE + 'when = { tokens_over = 9, tokens_under = 9 }\nthen = { privacy = "any" }',
            "rules.0.when",
            "tokens_over must be less than tokens_under",
        ),
        ('[models.m]\ntags = ["cloud"]', "models.m.tags.0", "'cloud' says where a backend is"),
        # the rest
        ('[privacy]\ndetect = ["emails"]', "privacy.detect.0", "'email'"),
        ('[privacy]\nwords = ["x"]', "privacy.words.0", "at least 2"),
        ('[privacy]\ndefault = "cloud"', "privacy.default", "'local-only'"),
        ("[tenants.acme]\nbudget_usd_per_day = -1", "tenants.acme.budget_usd_per_day", "equal to 0"),
        ("[tenants.acme]\nbudget = 1", "tenants.acme.budget", "no such setting"),
        ("[routing]\nstrong_above = 7", "routing.strong_above", "less than or equal to 1"),
        ('[routing]\ncompare_with = { model = "m" }', "routing.compare_with.input_usd", "required"),
        ("[models.m]\nquality = 5", "models.m.quality", "less than or equal to 1"),
        ("[models.llama3.1]\nquality = 0.5", "models.llama3.1", "a name with a dot in it needs quotes"),
        ('[models.m]\ntags = "small"', "models.m.tags", "should be a list"),
        ('[privacy]\nwords = "Larkspur"', "privacy.words", "should be a list"),
    ],
)
def test_what_is_wrong_is_refused_with_its_key_and_the_fix(load: Load, text: str, key: str, fix: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        load(text)
    assert key in refused.value.message
    assert fix in refused.value.message
    assert "Value error" not in refused.value.message


def test_short_names_of_strategies_are_names(load: Load) -> None:
    policy = load('[routing]\nstrategy = "cost"\n[tenants.a]\nstrategy = "latency"').policy
    assert policy.strategy == "cost"


def test_tenants_that_no_key_names_are_told_of(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        '[tenants.acme]\nprivacy = "local-only"\n[tenants.leagl]\nprivacy = "local-only"\n'
        + RULE
        + 'when = { tenant = ["acme", "labb"] }\nthen = { privacy = "local-only" }'
    )
    assert load(text).unknown_tenants == []
    monkeypatch.setenv("K9_API_KEYS", "acme:one,legal:two")
    assert load(text).unknown_tenants == ["labb", "leagl"]
