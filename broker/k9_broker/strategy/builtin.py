"""The strategies K-9 comes with, written as an operator would write one in `k9.toml`."""

from __future__ import annotations

from collections.abc import Mapping

from k9_broker.errors import ConfigurationError
from k9_broker.policy import Policy, Preference, Strategy, When
from k9_broker.requests import TaskType

SHORT = {"cost": "cost-first", "quality": "quality-first", "latency": "latency-first", "task": "task-type"}
"""What `auto:cost` and its like are short for."""


def _table(strong_above: float) -> tuple[Preference, ...]:
    """Which places suit which task type, best first. Those that match nothing come last."""

    def prefer(*selectors: str, strong: bool = False, types: tuple[TaskType, ...] = ()) -> Preference:
        over = strong_above if strong else None
        return Preference(
            when=When(task_type=types, needs_strong_over=over),
            prefer=tuple(frozenset(words.split()) for words in selectors),
        )

    strongest = ("cloud large", "cloud", "local large", "local")
    return (
        prefer("local embedding", "local", "cloud", types=(TaskType.EMBEDDINGS,)),
        prefer("local code", "local", "cloud", types=(TaskType.CODE_COMPLETION,)),
        prefer("cloud large code", *strongest, types=(TaskType.CODE_REFACTOR_REVIEW,)),
        prefer("cloud", "local large", "local", types=(TaskType.CREATIVE_WRITING,)),
        prefer(*strongest, types=(TaskType.REASONING, TaskType.QA), strong=True),
        prefer("local code", "local large", "local", "cloud", types=(TaskType.CODE_GENERATION,)),
        prefer("local large", "local", "cloud small", "cloud", types=(TaskType.REASONING,)),
        prefer("local small", "local", "cloud small", "cloud"),
    )


def built_in(strong_above: float) -> tuple[Strategy, ...]:
    """`strong_above` is the `needs_strong` score from which questions go to a strong model."""
    return (
        # The table decides; between places it holds equal, the configuration's order.
        Strategy(name="task-type", weights={"preference": 1}, rules=_table(strong_above)),
        # An inadequate place loses at least half of `adequacy`, which no price makes up for.
        Strategy(name="cost-first", weights={"adequacy": 3, "cost": 1}),
        # The cloud before the machines here, and among the cloud's models the strongest.
        Strategy(
            name="quality-first",
            weights={"preference": 4, "quality": 2},
            rules=(Preference(prefer=(frozenset({"cloud"}),)),),
        ),
        # Near-equals share the work, or all would run to whoever was a little faster a second ago.
        Strategy(name="latency-first", weights={"latency": 1}, near=0.15),
    )


def strategies_of(policy: Policy) -> Mapping[str, Strategy]:
    """Every strategy by name, with what it extends worked in. Raises `ConfigurationError`."""
    own = {one.name: one for one in policy.strategies}
    if len(own) < len(policy.strategies):
        raise ConfigurationError("strategies: two have the same name; give each its own.")
    known = {one.name: one for one in built_in(policy.strong_above)}
    resolved = dict(known)

    def unknown(key: str, name: str) -> str:
        return f"{key}: there is no strategy {name!r}; there are {', '.join(sorted({*known, *own}))}."

    def resolve(name: str, path: tuple[str, ...]) -> Strategy:
        if name in path:
            raise ConfigurationError(
                f"strategies: {' → '.join((*path, name))} extend each other in a circle."
            )
        if name not in own:
            if name in known:
                return known[name]
            raise ConfigurationError(unknown(f"strategies.{path[-1]}.extends", name))
        one = own[name]
        # Its own name as what it extends means: the built-in one, changed.
        base = None
        if one.extends == name and name in known:
            base = known[name]
        elif one.extends:
            base = resolve(one.extends, (*path, name))
        if base is None:
            return one
        return Strategy(
            name=name,
            weights={**base.weights, **one.weights},
            rules=(*one.rules, *base.rules),
            near=base.near if one.near is None else one.near,
        )

    for name in own:
        resolved[name] = resolve(name, ())
        if not any(resolved[name].weights.values()):
            raise ConfigurationError(f"strategies: {name!r} weighs nothing; give it weights or `extends`.")
        if own[name].rules and not resolved[name].weights.get("preference"):
            raise ConfigurationError(f"strategies: {name!r} has rules; give `preference` a weight.")
    named = {"routing.strategy": policy.strategy}
    named |= {
        f"tenants.{who}.strategy": said.strategy for who, said in policy.tenants.items() if said.strategy
    }
    named |= {
        f"rules.{one.name}.then.strategy": one.then.strategy for one in policy.rules if one.then.strategy
    }
    for key, name in named.items():
        if named_fully(name, resolved) is None:
            raise ConfigurationError(unknown(key, name))
    return resolved


def named_fully(name: str, known: Mapping[str, Strategy]) -> str | None:
    """The strategy that `name` means, in full or short; `None` when there is none."""
    return name if name in known else SHORT.get(name)
