"""Fleets as values, for tests that decide without a stack: two machines here, two models in a cloud."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from k9_broker.models import Latency, ModelCard
from k9_broker.policy import Policy
from k9_broker.requests import InferenceRequest, Kind, Operation, Priority
from k9_broker.snapshot import BackendView, Snapshot
from k9_broker.strategy.decision import Decision
from k9_broker.strategy.engine import Router

SMALL = "llama3.1:8b"
CODE = "qwen2.5-coder:7b"
LARGE = "gpt-4o"
MINI = "gpt-4o-mini"
EMBED = "nomic-embed-text"

CARDS = {
    SMALL: ModelCard(tags=("small",), quality=0.47, context_window=8192),
    CODE: ModelCard(tags=("small", "code"), quality=0.45, context_window=32_768),
    LARGE: ModelCard(
        tags=("large",), quality=0.9, context_window=128_000, input_usd=2.5, output_usd=10, max_output=16_384
    ),
    MINI: ModelCard(
        tags=("small",),
        quality=0.65,
        context_window=128_000,
        input_usd=0.15,
        output_usd=0.6,
        max_output=16_384,
    ),
    EMBED: ModelCard(operations=(Operation.EMBEDDINGS,), tags=("embedding",), dimensions=(768,)),
}
EASY: dict[str, Any] = {"strong_above": 1.0}
"""Nothing needs a strong model."""
HARD: dict[str, Any] = {"strong_above": 0.0}
"""Everything does."""
GENERATE = frozenset({Operation.CHAT, Operation.COMPLETIONS})


def view(name: str, kind: Kind, *models: str, **changes: Any) -> BackendView:
    """A backend with one live worker; its models' cards are those of `CARDS`, else empty."""
    cards = {model: CARDS.get(model, ModelCard()) for model in models}
    embeds = any(Operation.EMBEDDINGS in card.operations for card in cards.values())
    said: dict[str, Any] = {
        "name": name,
        "kind": kind,
        "dialect": "fake",
        "models": frozenset(models),
        "operations": GENERATE | ({Operation.EMBEDDINGS} if embeds else frozenset()),
        "order": 0,
        "slots": 4,
        "max_waiting": dict.fromkeys(Priority, 8),
        "workers": 1,
        "cards": cards,
    }
    return BackendView(**{**said, **changes})


def fleet(**changes: Mapping[str, Any]) -> Snapshot:
    """The four backends, in this order; `changes` by name, with underscores for hyphens."""
    four = (
        ("local-small", Kind.LOCAL, (SMALL, EMBED)),
        ("local-code", Kind.LOCAL, (CODE,)),
        ("cloud-large", Kind.CLOUD, (LARGE,)),
        ("cloud-mini", Kind.CLOUD, (MINI,)),
    )
    return Snapshot(
        tuple(
            view(name, kind, *models, order=order, **changes.get(name.replace("-", "_"), {}))
            for order, (name, kind, models) in enumerate(four)
        )
    )


def speeds(model: str, ttft: float, tpot: float) -> dict[str, Latency]:
    return {model: Latency(ttft=ttft, tpot=tpot)}


def chat(
    text: str = "hello", model: str = "auto", *, body: Mapping[str, Any] | None = None, **wishes: Any
) -> InferenceRequest:
    """A chat request; `body` adds parameters, `wishes` are fields of the request."""
    said = {"model": model, "messages": [{"role": "user", "content": text}], **(body or {})}
    return InferenceRequest(Operation.CHAT, model, said, **wishes)


def embeddings(given: Any = "a text", model: str = "auto", **wishes: Any) -> InferenceRequest:
    return InferenceRequest(Operation.EMBEDDINGS, model, {"model": model, "input": given}, **wishes)


def decide(request: InferenceRequest, snapshot: Snapshot | None = None, **policy: Any) -> Decision:
    """The decision on the four backends, unless others are given; `policy`: its fields."""
    return Router(Policy(**policy)).decide(request, snapshot or fleet())


def order(decision: Decision) -> list[str]:
    """The backends, best first."""
    return [one.backend for one in decision.candidates]


def first(decision: Decision) -> tuple[str, str]:
    """The best backend and why it."""
    return decision.candidates[0].backend, decision.candidates[0].reason
