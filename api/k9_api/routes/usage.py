"""`GET /v1/usage`: what a tenant's work cost, and what the same would have cost in the cloud."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from k9_api.context import Context, context
from k9_broker.money import dollars, nanos
from k9_broker.usage import UsageRow

router = APIRouter(tags=["k9"])

Days = Annotated[int, Query(ge=1, le=366, description="How many days (UTC), today included.")]

_COUNTS = tuple(one.name for one in fields(UsageRow) if one.name not in ("day", "model", "kind"))


@router.get("/v1/usage")
async def get_usage(request: Request, days: Days = 30) -> Response:
    """The caller's own jobs, tokens and dollars by day and model, newest first.

    `cloud_cost_usd` is what the jobs with a known price in the cloud would have cost there,
    `compared_cost_usd` what they did cost, and `saving_usd` the difference. `budget` is today's.
    """
    here = context(request)
    tenant = here.keys.tenant(request)
    rows = await here.broker.ledger.usage(tenant, days)
    body = {
        "object": "usage",
        "tenant": tenant,
        "days": days,
        "total": _sums(rows),
        "by_model": _by_model(rows),
        "data": [{"day": row.day, "model": row.model, "kind": row.kind, **_sums([row])} for row in rows],
        "budget": await _budget(here, tenant),
    }
    return Response(to_json(body), media_type="application/json")


def _by_model(rows: Sequence[UsageRow]) -> list[dict[str, Any]]:
    """Dearest first."""
    places = dict.fromkeys((row.model, row.kind) for row in rows)
    several = [
        {"model": model, "kind": kind, **_sums(row for row in rows if (row.model, row.kind) == (model, kind))}
        for model, kind in places
    ]
    return sorted(several, key=lambda one: (-one["cost_usd"], -one["jobs"]))


def _sums(rows: Iterable[UsageRow]) -> dict[str, int | float]:
    """Added up as whole nano-dollars, so that parts and totals agree."""
    sums = dict.fromkeys(_COUNTS, 0)
    for row in rows:
        for name in _COUNTS:
            sums[name] += getattr(row, name)
    return {
        "jobs": sums["jobs"],
        "prompt_tokens": sums["prompt_tokens"],
        "completion_tokens": sums["completion_tokens"],
        "cost_usd": dollars(sums["cost"]),
        "compared_cost_usd": dollars(sums["compared_cost"]),
        "cloud_cost_usd": dollars(sums["cloud_cost"]),
        "saving_usd": dollars(sums["cloud_cost"] - sums["compared_cost"]),
    }


async def _budget(here: Context, tenant: str) -> dict[str, float] | None:
    allowed = here.router.policy.tenant(tenant).budget_usd_per_day
    if allowed is None:
        return None
    spent = await here.broker.ledger.spent(tenant)
    return {
        "usd_per_day": allowed,
        "spent_usd": dollars(spent),
        "remaining_usd": dollars(max(0, nanos(allowed) - spent)),
    }
