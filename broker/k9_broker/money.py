"""What work costs. Inside, money is a whole number of nano-dollars, so that sums are exact."""

from __future__ import annotations

from k9_broker.models import ModelCard, Prices

NANOS = 1_000_000_000
"""Nano-dollars in a dollar. A price of one dollar for a million tokens is a thousand of them a token."""
MOST = 2**53
"""Nano-dollars, nine million dollars: the most one job may count for, and the most Lua counts exactly."""
_NANOS_PER_TOKEN = NANOS / 1_000_000


def token_cost(card: ModelCard, prompt: int, completion: int, cached: int = 0) -> int | None:
    """Nano-dollars for so many tokens; `None` when the card has no prices. `prompt` includes `cached`."""
    if card.input_usd is None:
        return None
    cached_usd = card.input_usd if card.cached_input_usd is None else card.cached_input_usd
    dollars = card.input_usd * (prompt - cached) + cached_usd * cached + (card.output_usd or 0.0) * completion
    return round(dollars * _NANOS_PER_TOKEN)


def listed_cost(prices: Prices, prompt: int, completion: int) -> int:
    """Nano-dollars for so many tokens at a model's listed prices."""
    return round((prices.input_usd * prompt + prices.output_usd * completion) * _NANOS_PER_TOKEN)


def machine_cost(slot_usd_per_hour: float, seconds: float) -> int:
    """Nano-dollars for holding one slot of a machine so long."""
    return round(slot_usd_per_hour * seconds / 3600 * NANOS)


def dollars(nanos: int) -> float:
    return nanos / NANOS


def nanos(dollars: float) -> int:
    return round(dollars * NANOS)
