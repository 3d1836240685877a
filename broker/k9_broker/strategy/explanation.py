"""A decision in plain values: what `/v1/route` answers, what the ledger keeps with the job."""

from __future__ import annotations

from typing import Any

from k9_broker.money import dollars, listed_cost
from k9_broker.strategy.decision import Candidate, Decision, Removal


def explain(decision: Decision) -> dict[str, Any]:
    """Everything a decision was made of. Money in US dollars, times in seconds. No text of the request."""
    found = decision.recognition
    cloud, tokens = decision.cloud, (decision.prompt_tokens, decision.output_tokens)
    return {
        "strategy": decision.strategy,
        "strategy_by": decision.strategy_by,
        "task_type": found.task_type,
        "confidence": round(found.confidence, 4),
        "task_type_by": found.by,
        "needs_strong": round(found.needs_strong, 4),
        "privacy": decision.privacy,
        "privacy_by": decision.privacy_by,
        "prompt_tokens": decision.prompt_tokens,
        "output_tokens": decision.output_tokens,
        "candidates": [_candidate(one) for one in decision.candidates],
        "removals": [_removal(one) for one in decision.removals],
        **({"standby": [_candidate(one) for one in decision.standby]} if decision.standby else {}),
        "compared_with": cloud.model if cloud else None,
        "compared_cost_usd": dollars(listed_cost(cloud, *tokens)) if cloud else None,
    }


def _candidate(one: Candidate) -> dict[str, Any]:
    return {
        "backend": one.backend,
        "model": one.model,
        "kind": one.kind.value,
        "reason": one.reason,
        "score": round(one.score, 4),
        "scores": {name: round(score, 4) for name, score in one.scores.items()},
        "cost_usd": None if one.cost is None else dollars(one.cost),
        "wait_seconds": round(one.wait, 4),
        "seconds": round(one.seconds, 4),
    }


def _removal(one: Removal) -> dict[str, Any]:
    named = {"model": one.model} if one.model else {}
    return {"backend": one.backend, **named, "reason": one.reason}
