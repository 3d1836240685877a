"""Random fleets, policies and requests, for what must hold in every world.

Everything is drawn from a `random.Random`, so a seed tells which world it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

from k9_broker.backends import Announcement
from k9_broker.models import Latency, ModelCard
from k9_broker.policy import (
    CloudModel,
    Consequence,
    Policy,
    Preference,
    PrivacyPolicy,
    Rule,
    Strategy,
    TenantPolicy,
    When,
)
from k9_broker.requests import InferenceRequest, Kind, Operation, Priority, Privacy, TaskType
from k9_broker.sensitive import Category

MODELS = ("tiny", "coder", "big", "embed", 'org/"odd" 模型')
TENANTS = ("acme", "umbrella", "default")
ALIASES = {"small": ("tiny",), "code": ("coder", "big"), "vectors": ("embed", "tiny"), "void": ("nowhere",)}
AUTO = ("auto", "auto:cost", "auto:quality", "auto:latency", "auto:task")
STRATEGIES = ("task-type", "cost-first", "quality-first", "latency-first", "own", "own-too")
SELECTORS = ("local", "cloud", "local small", "cloud large", "code", "model:big", "large embedding")
TYPES = tuple(one for one in TaskType if one is not TaskType.EMBEDDINGS)
WORDS = ("Project Falcon", "隼計画")

HARMLESS = (
    "hello",
    "Why is the sky blue?",
    "def add(a, b):\n    return a + b  # refactor this",
    "Translate to French: the cat sat on the mat.",
    "Prove that there are infinitely many primes, and design a proof assistant that checks it.",
    "word " * 30,
)
SENSITIVE = {
    Category.EMAIL: "Write to jane.doe@northwind-trading.com today.",
    Category.PAYMENT_CARD: "It was paid by card 4539 1488 0343 6467 last week.",
    Category.IBAN: "Send it to DE89 3704 0044 0532 0130 00, please.",
    Category.API_KEY: "The key is " + "sk-" + "proj-" + "a8F3kQ9zLm2XvB7nR4tW" + "c6Yp1HsD0eGj5UiO",
    Category.PRIVATE_KEY: "-----BEGIN " + "RSA PRIVATE KEY-----\n" + "MIIEowIBAAKCAQEA7bqW3k9Zx0" * 6,
    Category.NATIONAL_ID: "My social security number is 536-90-4399.",
    Category.WORD: "What do we know of project  falcon?",
}  # fmt: skip
"""One sure case of each category; finding them at all is what other tests are about."""


@dataclass(frozen=True, slots=True)
class Asked:
    request: InferenceRequest
    holds: frozenset[Category]
    """What was put into its text."""


def maybe(rng: Random, chance: float, *values: Any) -> Any:
    """One of the values, or `None`."""
    return rng.choice(values) if rng.random() < chance else None


def some(rng: Random, values: tuple[Any, ...], least: int = 0) -> tuple[Any, ...]:
    return tuple(rng.sample(values, rng.randint(least, len(values))))


def announcements(rng: Random, prefix: str = "", most: int = 6) -> list[Announcement]:
    """What the workers of one to six backends say, one or two workers each."""
    said = []
    for number in range(rng.randint(1, most)):
        one = announcement(rng, f"{prefix}b{number}", f"{prefix}n{number}")
        said.append(one)
        if rng.random() < 0.2:
            said.append(one.model_copy(update={"node": f"{one.node}-too", "slots": rng.randint(1, 4)}))
    return said


def announcement(rng: Random, backend: str, node: str) -> Announcement:
    models = some(rng, MODELS, least=1)
    return Announcement(
        node=node,
        backend=backend,
        kind=rng.choice(tuple(Kind)),
        dialect="fake",
        models=models,
        cards={model: card(rng) for model in models if rng.random() < 0.8},
        latencies={model: Latency(ttft=rng.random(), tpot=rng.random() / 50) for model in some(rng, models)},
        gpu_usd_per_hour=maybe(rng, 0.3, 0.5, 4.0),
        operations=some(rng, tuple(Operation), least=1) if rng.random() < 0.3 else tuple(Operation),
        order=rng.randint(0, 3),
        slots=rng.randint(1, 4),
        max_waiting=rng.randint(0, 5),
        max_waiting_batch=rng.randint(0, 3),
        overflow_at=maybe(rng, 0.5, 1, 2, 4),
        overflow_wait=maybe(rng, 0.6, 0.1, 3.0, 10.0),
        service_seconds=rng.choice((0.0, 0.2, 3.0, 40.0)),
    )


def card(rng: Random) -> ModelCard:
    return ModelCard(
        operations=some(rng, tuple(Operation)) if rng.random() < 0.2 else (),
        context_window=maybe(rng, 0.3, 20, 400, 8000),
        max_output=maybe(rng, 0.2, 16, 4000),
        tools=maybe(rng, 0.3, True, False),
        vision=maybe(rng, 0.3, True, False),
        streaming=maybe(rng, 0.2, True, False),
        quality=maybe(rng, 0.7, 0.3, 0.5, 0.9),
        tags=some(rng, ("small", "large", "code", "embedding")),
        input_usd=maybe(rng, 0.7, 0.0, 0.15, 3.0),
        output_usd=maybe(rng, 0.7, 0.0, 0.6, 15.0),
    )


def policy(
    rng: Random, *, local: float = 0.2, budget: float = 0.4, tenants: tuple[str, ...] = TENANTS
) -> Policy:
    """`local`: how likely each of the default, a tenant, a rule wants everything local."""
    return Policy(
        strategy=rng.choice(STRATEGIES),
        strategies=(
            Strategy(
                name="own",
                weights={"cost": rng.random() + 0.1, "latency": rng.random(), "load": rng.random()},
                near=maybe(rng, 0.5, 0.0, 0.2, 1.0),
            ),
            Strategy(
                name="own-too",
                extends=rng.choice(STRATEGIES[:5]),
                rules=(Preference(when=when(rng, tenants), prefer=some(rng, SELECTORS, 1)),),
                weights={"preference": 1.0},
            ),
        ),
        rules=tuple(rule(rng, number, local, tenants) for number in range(rng.randint(0, 3))),
        aliases=ALIASES,
        privacy=PrivacyPolicy(
            default=privacy(rng, local / 2),
            detect=some(rng, tuple(Category)) if rng.random() < 0.5 else tuple(Category),
            words=some(rng, WORDS),
        ),
        tenants={
            name: TenantPolicy(
                strategy=maybe(rng, 0.3, *STRATEGIES),
                privacy=privacy(rng, local),
                budget_usd_per_day=maybe(rng, budget, 0.0, 1e-4, 3e-3, 1.0),
            )
            for name in some(rng, tenants)
        },
        compare_with=maybe(rng, 0.3, CloudModel(model="reference", input_usd=1, output_usd=2)),
    )  # fmt: skip


def privacy(rng: Random, local: float) -> Privacy:
    return Privacy.LOCAL_ONLY if rng.random() < local else Privacy.ANY


def rule(rng: Random, number: int, local: float, tenants: tuple[str, ...]) -> Rule:
    then: dict[str, Any] = {"prefer": rng.choice(SELECTORS)}
    if rng.random() < 3 * local:
        then["privacy"] = Privacy.LOCAL_ONLY
    if rng.random() < 0.3:
        then = {**then, "strategy": rng.choice(STRATEGIES), "task_type": rng.choice(TYPES)}
    return Rule(name=f"rule {number}", when=when(rng, tenants), then=Consequence.model_validate(then))


def when(rng: Random, tenants: tuple[str, ...]) -> When:
    """Conditions that can be told from the request's own fields."""
    return When(
        operation=some(rng, tuple(Operation)) if rng.random() < 0.3 else (),
        tenant=some(rng, tenants) if rng.random() < 0.4 else (),
        model=some(rng, (*AUTO, *ALIASES, *MODELS)) if rng.random() < 0.2 else (),
        priority=maybe(rng, 0.3, *Priority),
    )


def asked(
    rng: Random, *, sensitive: float = 0.3, local: float = 0.2, tenants: tuple[str, ...] = TENANTS
) -> Asked:
    """`sensitive`: how likely its text holds something, `local`: how likely its caller wants it local."""
    operation = rng.choice(tuple(Operation))
    model = rng.choice((*AUTO, *AUTO, *AUTO, *ALIASES, *MODELS, *MODELS, "nowhere"))
    texts = [rng.choice(HARMLESS) for _ in range(rng.randint(1, 3))]
    holds = frozenset(category for category in SENSITIVE if rng.random() < sensitive / len(SENSITIVE))
    for category in holds:
        place = rng.randrange(len(texts))
        texts[place] = rng.choice(
            (f"{texts[place]}\n{SENSITIVE[category]}", SENSITIVE[category] + texts[place])
        )
    body = {"model": model, **_body(rng, operation, texts)}
    request = InferenceRequest(
        operation,
        model,
        body,
        tenant=rng.choice(tenants),
        priority=rng.choice(tuple(Priority)),
        task_type=maybe(rng, 0.2, *TYPES),
        strategy=maybe(rng, 0.3, *STRATEGIES, "cost", "task"),
        privacy=privacy(rng, local),
        kind=maybe(rng, 0.1, *Kind),
    )
    return Asked(request, holds)


def _body(rng: Random, operation: Operation, texts: list[str]) -> dict[str, Any]:
    if operation is Operation.EMBEDDINGS:
        return {"input": texts[0] if len(texts) == 1 else texts}
    limits = {"max_tokens": rng.choice((1, 100, 5000))} if rng.random() < 0.3 else {}
    body: dict[str, Any] = {"stream": rng.random() < 0.3, **limits}
    if operation is Operation.COMPLETIONS:
        return {**body, "prompt": texts[0], **({"suffix": "\n".join(texts[1:])} if texts[1:] else {})}
    if rng.random() < 0.15:
        tool = {"name": "look", "description": texts.pop() if len(texts) > 1 else "look it up"}
        body["tools"] = [{"type": "function", "function": tool}]
    roles = ["user", "assistant", "system"]
    said: list[Any] = [text if rng.random() < 0.8 else [{"type": "text", "text": text}] for text in texts]
    return {**body, "messages": [{"role": roles[i], "content": text} for i, text in enumerate(said)][::-1]}
