"""Cards: what configuration, servers, price lists and a model's own name tell of it, field by field.

The guess from a name is a table of rules, below. It is only a beginning: each field of it gives way
to a price list, to what the server says of the model, to `[models."NAME"]` and to the backend's own
`cards`, in that order.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from k9_broker.backends import Backend
from k9_broker.models import ModelCard
from k9_broker.prices import price_card
from k9_broker.requests import Kind, Operation

SMALL_UP_TO = 13.0
"""Billions of parameters up to which a model is tagged `small`."""
SMALL_CLOUD, LARGE_CLOUD = 0.65, 0.9
"""Quality of cloud models, whose size nobody tells."""

EMBEDDING = re.compile(
    r"embed|minilm|all-mpnet|sentence-t5|instructor-(?:base|large|xl)|ada-002"
    r"|(?<![a-z0-9])(?:bge|e5|gte|gtr|labse|stella|voyage)(?=[-_])"
)
SPECIAL = re.compile(
    r"(?<![a-z0-9])(?:dall-e|image|sora|diffusion|whisper|transcribe|tts|gpt-(?:4o-)?(?:mini-)?audio|realtime"
    r"|moderation|rerank(?:er)?|computer-use|deep-research|search-(?:preview|api)|codex"
    r"|(?:o1|o3|gpt-5(?:\.\d)?)-pro|babbage-002|davinci-002|gpt-3\.5-turbo-instruct)(?![a-z0-9])"
)
"""Models for pictures, sound, ranking and the like, those that only continue a text, and OpenAI's
that answer at none of the endpoints K-9 calls: a cloud lists them all beside its chat models."""
CODE = re.compile(r"(?<!en)(?<!de)code|devstral")
SMALL = re.compile(r"(?<![a-z0-9])(?:mini|haiku|nano|flash|small|lite|gpt-3\.?5)(?![a-z0-9])")
_BILLIONS = re.compile(r"(?<![a-z0-9.])(?:(\d+)x|e)?(\d+(?:\.\d+)?)b(?![a-z0-9])")
_ACTIVE = re.compile(r"(?<![a-z0-9.])a(\d+(?:\.\d+)?)b(?![a-z0-9])")
_MILLIONS = re.compile(r"(?<![a-z0-9.])(\d{2,4})m(?![a-z0-9])")


def card_of(
    model: str, backend: Backend, configured: Mapping[str, ModelCard], said: ModelCard | None = None
) -> ModelCard:
    """The card of `model` at `backend`: for each field the first that knows it of the backend's own
    card, the one in `configured`, what the server has `said`, the price lists (cloud only) and the guess.

    The first call for a cloud backend imports the price lists, a third of a second's work.
    """
    merged: dict[str, object] = guess(model, backend).model_dump(exclude_defaults=True)
    listed = _listed(model, backend) if backend.kind is Kind.CLOUD else None
    for card in (listed, said, _named(model, configured), _named(model, backend.cards)):
        if card is not None:
            merged |= card.model_dump(exclude_defaults=True)
    return ModelCard.model_validate(merged)


def guess(model: str, backend: Backend) -> ModelCard:
    """What the name of a model and the kind of its backend suggest.

    | the name | operations | tags | quality |
    |---|---|---|---|
    | of a model that is not for chat | | special | |
    | of an embedding model | embeddings, if the backend can | embedding | |
    | a number of parameters | | small up to 13B, else large | `quality_of_size` |
    | mini, haiku, nano, flash, small, lite | | small | 0.65 in a cloud |
    | another, in a cloud | | large | 0.9 |
    | code, devstral | | code as well | |

    A name that is not known as an embedding model's loses no operation; the fake's models, which
    begin with `fake-`, do everything whatever they are called.
    """
    name = model.lower()
    if SPECIAL.search(name):
        return ModelCard(tags=("special",))
    if EMBEDDING.search(name):
        can = not backend.operations or Operation.EMBEDDINGS in backend.operations
        only = can and not name.startswith("fake-")
        return ModelCard(operations=(Operation.EMBEDDINGS,) if only else (), tags=("embedding",))
    also = ("code",) if CODE.search(name) else ()
    if size := size_of(name):
        whole, effective = size
        return ModelCard(
            tags=("small" if whole <= SMALL_UP_TO else "large", *also), quality=quality_of_size(effective)
        )
    cloud = backend.kind is Kind.CLOUD
    if SMALL.search(name):
        return ModelCard(tags=("small", *also), quality=SMALL_CLOUD if cloud else None)
    if cloud:
        return ModelCard(tags=("large", *also), quality=LARGE_CLOUD)
    return ModelCard(tags=also)


def size_of(name: str) -> tuple[float, float] | None:
    """Billions of parameters a lower-case name tells: all of them, and those that count for quality.

    They differ for mixtures of experts (`8x7b`, `30b-a3b`), which are about as strong as a dense model
    of the geometric mean of all parameters and those active for a token: a common rule of thumb.
    """
    if found := _BILLIONS.search(name):
        experts, each = float(found[1] or 1), float(found[2])
        whole = experts * each
        active = _ACTIVE.search(name)
        dense = math.sqrt(whole * (float(active[1]) if active else each))
    elif found := _MILLIONS.search(name):
        whole = dense = float(found[1]) / 1000
    else:
        return None
    return (whole, dense) if whole > 0 and dense > 0 else None


def quality_of_size(billions: float) -> float:
    """From 0 to 1: `0.25 + 0.072 * log2(billions)`, between 0.05 and 0.95, two digits.

    1B is 0.25, 7B 0.45, 8B 0.47, 32B 0.61, 70B 0.69, 405B 0.87: each doubling adds the same.
    """
    return round(min(0.95, max(0.05, 0.25 + 0.072 * math.log2(billions))), 2)


def _listed(model: str, backend: Backend) -> ModelCard | None:
    url = backend.servers[0].url if backend.servers else ""
    return price_card(model, provider=backend.price_provider, url=url, dialect=backend.dialect)


def _named(model: str, cards: Mapping[str, ModelCard]) -> ModelCard | None:
    """The card under the model's name; Ollama's `:latest` may be left out."""
    return cards.get(model) or cards.get(model.removesuffix(":latest"))
