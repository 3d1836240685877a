"""What cloud models cost, by the price lists of the `genai-prices` library, which come with it.

Nothing is fetched: a price is as fresh as the installed release, and configuration overrides it.
The library takes a third of a second to import, so that it is imported at the first question; only
workers of cloud backends ask.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING

from k9_broker.models import ModelCard

if TYPE_CHECKING:
    from genai_prices.data_snapshot import DataSnapshot
    from genai_prices.types import ModelInfo

_PROVIDERS_OF_DIALECTS = {"openai": "openai", "azure": "azure", "anthropic": "anthropic"}
"""Dialects named after the provider that has it; others have many."""
_AZURE = "azure"


def price_card(
    model: str, *, provider: str | None = None, url: str = "", dialect: str = ""
) -> ModelCard | None:
    """Prices and context window of `model`, or `None` when no price list has it.

    `provider` names the list (`openai`, `azure`, `openrouter`, `groq`, ...); without it the backend's
    URL tells, else its dialect, else the model's name. Dated names and names with their maker in
    front (`openai/gpt-4o`) are found; an Azure deployment is found when its name holds a model's, as
    `team-gpt-4o-mini` does. A price with tiers is given at its lowest: that of short prompts. Where
    a list has a price for input alone, as for embeddings, output is free.
    """
    try:
        from genai_prices.data_snapshot import get_snapshot
    except ImportError:
        return None
    lists = get_snapshot()
    for name, where in _readings(model, provider or _provider(lists, url, dialect)):
        try:
            _, found = lists.find_provider_model(name, None, where, None)
        except LookupError:
            continue
        return _card(found)
    return None


def _provider(lists: DataSnapshot, url: str, dialect: str) -> str | None:
    if url:
        try:
            return lists.find_provider(None, None, url).id
        except LookupError:
            pass
    return _PROVIDERS_OF_DIALECTS.get(dialect)


def _readings(model: str, provider: str | None) -> Iterator[tuple[str, str | None]]:
    """Names to look for, each with the list to look in (`None`: the one the name belongs to)."""
    maker, slash, bare = model.partition("/")
    yield model, provider
    if provider is None:
        if slash:
            yield bare, maker
        elif model.startswith("text-embedding-"):
            yield model, "openai"  # the library does not tell a maker by these names
        return
    if slash:
        yield bare, provider
    if provider == _AZURE:
        parts = model.split("-")
        for length in range(len(parts) - 1, 0, -1):
            for first in range(len(parts) - length + 1):
                yield "-".join(parts[first : first + length]), provider


def _card(found: ModelInfo) -> ModelCard:
    prices = vars(found.get_prices(datetime.now(UTC)))
    into, out, cached = (_dollars(prices.get(f"{what}_mtok")) for what in ("input", "output", "cache_read"))
    if into is not None and out is None:
        out = 0.0
    return ModelCard(
        context_window=found.context_window or None, input_usd=into, output_usd=out, cached_input_usd=cached
    )


def _dollars(price: object) -> float | None:
    base = getattr(price, "base", price)  # of tiers, the first
    return float(base) if isinstance(base, Decimal | int) else None
