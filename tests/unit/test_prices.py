"""The price lists: which names are found, under whose prices. Figures may change; relations stay."""

from __future__ import annotations

import sys

import pytest

from k9_broker.models import ModelCard
from k9_broker.prices import price_card

OPENAI, AZURE, ROUTER = "https://api.openai.com", "https://team.openai.azure.com", "https://openrouter.ai/api"


def found(model: str, **hints: str) -> ModelCard:
    card = price_card(model, **hints)
    assert card is not None
    assert card.input_usd is not None
    assert card.output_usd is not None
    return card


@pytest.mark.parametrize(
    ("model", "hints"),
    [
        ("gpt-4o", {"url": OPENAI}),
        ("gpt-4o", {"url": OPENAI + "/v1"}),
        ("GPT-4o", {"provider": "openai"}),
        ("gpt-4o-2024-08-06", {"url": OPENAI}),
        ("gpt-4o", {"dialect": "openai"}),
        ("gpt-4o", {}),
        ("gpt-4o", {"url": "http://127.0.0.1:4000"}),
        ("openai/gpt-4o", {}),
        ("openai/gpt-4o", {"provider": "openai"}),
        ("openai/gpt-4o", {"url": ROUTER}),
        ("openai/gpt-4o-2024-08-06", {"provider": "openrouter"}),
        ("gpt-4o", {"url": AZURE}),
        ("gpt-4o-prod", {"url": AZURE}),
        ("team-a-gpt-4o", {"provider": "azure"}),
        ("team-gpt-4o-eu", {"dialect": "azure"}),
    ],
)
def test_one_model_is_found_by_each_of_its_names(model: str, hints: dict[str, str]) -> None:
    card = found(model, **hints)
    assert card.context_window == 128_000
    assert card.cached_input_usd is not None
    assert 0 < card.cached_input_usd < card.input_usd < card.output_usd < 100


def test_a_deployment_is_of_the_longest_model_in_its_name() -> None:
    assert found("prod-gpt-4o-mini-eu", provider="azure") == found("gpt-4o-mini", provider="azure")


@pytest.mark.parametrize(
    ("model", "hints"),
    [("text-embedding-3-small", {}), ("text-embedding-3-large", {"url": OPENAI}),
     ("text-embedding-3-small", {"provider": "azure"}), ("mistral-embed", {})],
)  # fmt: skip
def test_embeddings_have_a_price(model: str, hints: dict[str, str]) -> None:
    assert found(model, **hints).input_usd > 0  # type: ignore[operator]


def test_the_output_of_embeddings_is_free() -> None:
    assert found("text-embedding-3-small").output_usd == 0


def test_prices_with_tiers_are_given_at_the_lowest() -> None:
    from genai_prices import Usage, calc_price

    card = found("gemini-2.5-pro", provider="google")
    short, long = (
        float(calc_price(Usage(input_tokens=n), "gemini-2.5-pro", provider_id="google").total_price) / n * 1e6
        for n in (1_000, 500_000)
    )
    assert card.input_usd == pytest.approx(short)
    assert short < long


@pytest.mark.parametrize(
    ("model", "hints"),
    [
        ("gpt-4o", {"provider": "nobody"}),
        ("no-such-model", {"url": OPENAI}),
        ("my-deployment", {"provider": "azure"}),
        ("fake-chat", {}),
        ("nobody/nothing", {}),
        ("", {}),
        ("/", {"url": AZURE}),
    ],
)
def test_what_no_list_has_is_unknown(model: str, hints: dict[str, str]) -> None:
    assert price_card(model, **hints) is None


def test_without_the_library_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "genai_prices.data_snapshot", None)
    assert price_card("gpt-4o", url=OPENAI) is None
