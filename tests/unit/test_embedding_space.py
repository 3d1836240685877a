"""Embeddings of callers who leave the model open are all made by one model."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fleets import CARDS, EMBED, decide, embeddings, fleet, view
from k9_broker.policy import Policy
from k9_broker.requests import Kind, Operation, TaskType
from k9_broker.snapshot import BackendView, Snapshot
from k9_broker.strategy.engine import Router
from k9_broker.strategy.refusal import refusal


@pytest.mark.parametrize("model", ["auto:task", "auto:cost", "auto:latency", "auto:quality", "auto"])
def test_embeddings_stay_in_one_space_whatever_the_strategy(model: str) -> None:
    other = view(
        "cloud-embed",
        Kind.CLOUD,
        "text-embedding-3-small",
        operations=frozenset({Operation.EMBEDDINGS}),
        cards={"text-embedding-3-small": CARDS[EMBED].model_copy(update={"input_usd": 0.02})},
    )
    decision = decide(embeddings(["a", "b"], model), Snapshot((other, *fleet().backends)))
    assert [(one.backend, one.model) for one in decision.candidates] == [("local-small", EMBED)]
    reasons = {one.backend: one.reason for one in decision.removals}
    assert reasons["cloud-embed"] == "other-embedding-model"
    assert reasons["cloud-large"] == "operation-not-supported"
    assert decision.recognition.task_type is TaskType.EMBEDDINGS
    assert decision.output_tokens == 0


def test_an_embedding_model_that_is_away_is_not_replaced_by_another() -> None:
    away = fleet(local_small={"workers": 0})
    other = view("spare", Kind.LOCAL, "all-minilm", operations=frozenset({Operation.EMBEDDINGS}))
    decision = decide(embeddings(), Snapshot((*away.backends, other)))
    assert decision.candidates == ()
    assert ("local-small", "no-worker") in {(one.backend, one.reason) for one in decision.removals}


def spare(name: str = "all-minilm") -> BackendView:
    return view("spare", Kind.LOCAL, name, operations=frozenset({Operation.EMBEDDINGS}))


def test_what_auto_embedded_with_before_stays_though_others_come_first() -> None:
    here = Snapshot((spare(), *fleet().backends))
    assert decide(embeddings(), here).embedding_model == EMBED
    before = replace(here, embedding_model="all-minilm")
    for model in ("auto", "auto:cost"):
        decision = decide(embeddings(model=model), before)
        assert {one.model for one in decision.candidates} == {decision.embedding_model} == {"all-minilm"}
    configured = Router(Policy(embedding_model=EMBED)).decide(embeddings(), before)
    assert {one.model for one in configured.candidates} == {configured.embedding_model} == {EMBED}


def test_an_embedding_model_that_is_forgotten_is_asked_for_not_replaced() -> None:
    request = embeddings()
    decision = decide(request, Snapshot((spare(),), embedding_model=EMBED))
    assert decision.candidates == ()
    error = refusal(request, decision)
    assert (error.code, error.retryable) == ("backend_unavailable", True)
    assert EMBED in error.message
    assert "embedding_model" in error.message


def test_an_alias_embeds_with_the_first_of_its_models_and_auto_takes_no_notice() -> None:
    router = Router(Policy(aliases={"embed": ("all-minilm", EMBED)}))
    decision = router.decide(embeddings(model="embed"), Snapshot((*fleet().backends, spare())))
    assert [one.model for one in decision.candidates] == ["all-minilm"]
    assert decision.embedding_model is None
    assert router.decide(embeddings(model="embed"), fleet()).candidates == ()
