"""Who offers what a request asks for, and which model makes the embeddings of those who leave it open."""

from __future__ import annotations

from k9_broker.policy import Policy
from k9_broker.requests import Kind, Operation
from k9_broker.snapshot import Snapshot
from k9_broker.strategy import filters
from k9_broker.strategy.decision import Removal
from k9_broker.strategy.needs import Needs
from k9_broker.strategy.places import Place, models_of, places_at

_EMBEDDING = "embedding"


def _cheapest(one: Place) -> tuple[bool, int, str]:
    return one.cost is None, one.cost or 0, one.model


def offers(needs: Needs, snapshot: Snapshot, embedder: str | None) -> tuple[list[Place], list[Removal]]:
    """The places that offer what was asked for, and why the rest of the fleet does not.

    In the configuration's order; of one backend the cheaper model first, so that among equals it leads.
    `embedder` is the only model that will do, if there is one.
    """
    places: list[Place] = []
    removals: list[Removal] = []
    for view in snapshot.backends:
        named = view.models if needs.models is None else view.models.intersection(needs.models)
        if not named:
            removals.append(Removal(view.name, filters.NOT_SERVED))
            continue
        here = places_at(view, needs, named)
        if len(here) < len(named):
            able = {one.model for one in here}
            removals += [Removal(view.name, filters.NOT_CAPABLE, one) for one in sorted(named - able)]
        if embedder is not None:
            others = [one.model for one in here if one.model != embedder]
            removals += [Removal(view.name, filters.OTHER_SPACE, model) for model in others]
            here = [one for one in here if one.model == embedder]
        places += sorted(here, key=_cheapest) if len(here) > 1 else here
    return places, removals


def embedding_model(needs: Needs, snapshot: Snapshot, policy: Policy) -> str | None:
    """The one model for embeddings whose caller left the choice open; `None` when there is no such choice.

    Vectors of different models cannot be compared, so neither load nor price nor who is alive may
    change it. Of an alias it is the first. Under `auto` it is the configured one, else the one that
    was taken before; only the first time it is chosen, among the models known to be for embeddings:
    the local one that is configured first.
    """
    if needs.request.operation is not Operation.EMBEDDINGS or needs.pinned:
        return None
    if needs.models is not None:
        return needs.models[0]
    if known := policy.embedding_model or snapshot.embedding_model:
        return known
    ranked = [
        (_EMBEDDING not in view.card(model).tags, view.kind is not Kind.LOCAL, order, model)
        for order, view in enumerate(snapshot.backends)
        for model in models_of(view, Operation.EMBEDDINGS)
    ]
    return min(ranked)[-1] if ranked else None
