"""Models as Anthropic's clients read them, made of OpenAI's objects with K-9's own `k9` beside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.datastructures import QueryParams

from k9_broker.errors import BadRequest

MOST = 1000
"""Models on one page. It is also what a page has when its caller names no limit."""


def model_info(model: Mapping[str, Any]) -> dict[str, Any]:
    """One model. `created_at` is the epoch: a backend does not tell when its model was made."""
    places: Sequence[Mapping[str, Any]] = model["k9"].get("backends", ())
    return {
        "type": "model",
        "id": model["id"],
        "display_name": model["id"],
        "created_at": "1970-01-01T00:00:00Z",
        "lifecycle": "active",
        "max_input_tokens": _least(places, "context_window"),
        "max_tokens": _least(places, "max_output"),
        "k9": model["k9"],
    }


def page(models: Sequence[Mapping[str, Any]], query: QueryParams) -> dict[str, Any]:
    """One page of the list, by `limit`, `after_id` and `before_id`. Raises `BadRequest` naming the wrong."""
    names = [model["id"] for model in models]
    after, before = _place(names, query, "after_id"), _place(names, query, "before_id")
    limit = _limit(query)
    first = 0 if after is None else after + 1
    last = len(names) if before is None else before
    if before is not None and after is None:  # the page just before it
        more, chosen = last > limit, models[max(0, last - limit) : last]
    else:
        more, chosen = last - first > limit, models[first : min(last, first + limit)]
    data = [model_info(model) for model in chosen]
    return {
        "data": data,
        "has_more": more,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
    }


def _place(names: Sequence[str], query: QueryParams, param: str) -> int | None:
    name = query.get(param)
    if name is None:
        return None
    if name not in names:
        raise BadRequest(f"`{param}` is not a model of this list.", param=param)
    return names.index(name)


def _limit(query: QueryParams) -> int:
    said = query.get("limit", str(MOST))
    if not said.isascii() or not said.isdigit() or not 1 <= int(said[:9]) <= MOST:
        raise BadRequest(f"`limit` must be a number from 1 to {MOST}.", param="limit")
    return int(said)


def _least(places: Sequence[Mapping[str, Any]], field: str) -> int | None:
    """What holds wherever the model runs."""
    return min((place[field] for place in places if place.get(field)), default=None)
