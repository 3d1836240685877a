"""The strategy engine: filters remove, scorers rate, a picker orders.

`Router.decide` is a pure function of the request, the snapshot and the policy: no I/O, no clock, no
chance. Every place of the snapshot ends up in the decision once, as a candidate or as a removal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b

from k9_broker.errors import BadRequest
from k9_broker.models import ModelCard, Prices
from k9_broker.money import nanos
from k9_broker.naming import queue_name
from k9_broker.policy import AUTO, Policy, Selector, Strategy
from k9_broker.recognise import asked_text
from k9_broker.requests import InferenceRequest, Kind, Operation
from k9_broker.sensitive import Detector
from k9_broker.snapshot import Snapshot
from k9_broker.strategy import filters, scorers
from k9_broker.strategy.builtin import named_fully, strategies_of
from k9_broker.strategy.decision import Candidate, Decision, Removal
from k9_broker.strategy.needs import Needs, needs_of
from k9_broker.strategy.offers import embedding_model, offers
from k9_broker.strategy.pickers import Rated, best_first, spread
from k9_broker.strategy.places import Place, models_of, place

OVERFLOWS = (frozenset({"local"}), frozenset({"cloud"}))
"""What is preferred when the caller named the model: it is equally good everywhere, so local first."""


class Router:
    """The engine for one policy. Raises `ConfigurationError` when the policy does not hold together."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.strategies = strategies_of(policy)
        self._detector = Detector(policy.privacy.detect, policy.privacy.words)

    def warm_up(self) -> None:
        """Load now what the first decision would otherwise wait for: some tenths of a second."""
        said = [{"role": "user", "content": "Call +1 202-456-1111 or pay 4111 1111 1111 1111."}]
        self.decide(InferenceRequest(Operation.CHAT, AUTO, {"messages": said}), Snapshot())

    def decide(self, request: InferenceRequest, snapshot: Snapshot) -> Decision:
        """Where the request may go, in order, and why. Raises `BadRequest` for an unknown strategy."""
        return self.weigh(needs_of(request, self.policy, self._detector), snapshot)

    def weigh(self, needs: Needs, snapshot: Snapshot) -> Decision:
        """The same for a request whose needs are known."""
        strategy = self._strategy(needs)
        space = embedding_model(needs, snapshot, self.policy)
        places, removals = offers(needs, snapshot, space)
        able, unable = _sift(needs, places, filters.CAPABILITIES)
        removals += unable
        roomy = filters.room_for(needs, able)
        removals += [
            _removal(one, filters.TOO_LONG) for one, fits in zip(able, roomy, strict=True) if not fits
        ]
        able = [one for one, fits in zip(able, roomy, strict=True) if fits]
        allowed, refused = _sift(needs, able, filters.WISHES)
        present, absent = _sift(needs, allowed, filters.LIFE)
        if not present:  # for the only ones a short wait is better than a refusal
            present = [one for one in allowed if filters.back_soon(needs, one)]
        away = [one for one in allowed if one not in present] if absent else []
        ordered = self._rank(needs, strategy, present)
        tenant = self.policy.tenant(needs.request.tenant)
        budget = tenant.budget_usd_per_day
        return Decision(
            candidates=tuple(ordered),
            removals=(*removals, *refused, *_sift(needs, away, filters.LIFE)[1]),
            strategy=strategy.name,
            strategy_by=needs.strategy_by,
            recognition=needs.recognition,
            prompt_tokens=needs.prompt.likely,
            output_tokens=needs.output,
            privacy=needs.privacy,
            privacy_by=needs.privacy_by,
            budget=None if budget is None else nanos(budget),
            weight=tenant.weight,
            shared=self.policy.shared,
            max_in_flight=tenant.max_in_flight,
            cloud=self._cloud(needs, strategy, ordered, snapshot),
            standby=tuple(self._rank(needs, strategy, away)) if away else (),
            embedding_model=space if needs.models is None else None,
        )

    def _strategy(self, needs: Needs) -> Strategy:
        name = named_fully(needs.strategy, self.strategies)
        if name is None:
            known = ", ".join(sorted(self.strategies))
            raise BadRequest(
                f"There is no strategy {needs.strategy[:64]!r}. Use one of {known}.",
                param="strategy" if needs.request.strategy else "model",
            )
        return self.strategies[name]

    def _rank(self, needs: Needs, strategy: Strategy, places: Sequence[Place]) -> list[Candidate]:
        field = scorers.field_of(
            needs,
            places,
            prefer=self._prefers(needs, strategy),
            strong_above=self.policy.strong_above,
            strong_quality=self.policy.strong_quality,
        )
        weights = {name: weight for name, weight in strategy.weights.items() if weight}
        if needs.prefer:  # a rule's word counts under strategies too that prefer nothing by themselves
            weights.setdefault("preference", len(needs.prefer) * sum(weights.values()))
        whole = sum(weights.values())
        rates = [(name, weight, scorers.SCORERS[name]) for name, weight in weights.items()]
        scores = [{name: score(field, one) for name, _, score in rates} for one in places]
        rated: list[Rated] = []
        for index, one in enumerate(places):
            total = 0.0
            for name, weight, _ in rates:
                total += weight * scores[index][name]
            rated.append((total / whole, index, one))
        ordered = spread(rated, strategy.near, _seed(needs.request)) if strategy.near else best_first(rated)
        best = max((score for score, _, _ in rated), default=0.0)
        queues: dict[str, tuple[str, int, float]] = {}  # what all places of a backend share
        found = []
        for rank, (score, index, one) in enumerate(ordered):
            view = one.backend
            if view.name not in queues:
                queues[view.name] = (
                    queue_name(view.kind, view.name, needs.request.priority),
                    view.mark(needs.request),
                    view.least_wait,
                )
            queue, mark, least_wait = queues[view.name]
            why = _why(field, weights, one, first=not rank, best=score >= best)
            found.append(
                Candidate(  # in order: by name it takes half as long again, and a large fleet has hundreds
                    *(view.name, view.kind, queue, mark, f"{strategy.name}:{why}", one.model),
                    *(score, scores[index], one.cost, one.wait, one.seconds),
                    *(view.slots, view.service_seconds, least_wait, view.overflow_at, view.overflow_wait),
                )
            )
        return found

    def _prefers(self, needs: Needs, strategy: Strategy) -> tuple[Selector, ...]:
        """What rules prefer; then, for a model the caller named, local first; then the strategy's own."""
        if needs.prefer:
            return needs.prefer
        if needs.pinned:
            return OVERFLOWS
        found = needs.recognition
        for rule in strategy.rules:
            if rule.when.holds(needs.request, found.task_type, found.needs_strong, needs.prompt.likely):
                return rule.prefer
        return ()

    def _cloud(
        self, needs: Needs, strategy: Strategy, ordered: Sequence[Candidate], snapshot: Snapshot
    ) -> Prices | None:
        """What the job would be charged if there were no local backends, or as the operator compares."""
        if self.policy.compare_with is not None:
            named = self.policy.compare_with
            return Prices(named.model, named.input_usd, named.output_usd)
        views = {view.name: view for view in snapshot.backends}
        for candidate in ordered:
            if candidate.kind is Kind.CLOUD and candidate.cost is not None:
                return _prices(candidate.model, views[candidate.backend].card(candidate.model))
        if any(candidate.kind is Kind.CLOUD for candidate in ordered):
            return None
        # None may take it, for privacy or because the model was named: which would, if any might?
        free = [
            place(view, model, needs)
            for view in snapshot.backends
            if view.kind is Kind.CLOUD
            for model in models_of(view, needs.request.operation)
        ]
        able, _ = _sift(needs, [one for one in free if one.cost is not None], filters.CAPABILITIES)
        for candidate in self._rank(needs, strategy, able)[:1]:
            return _prices(candidate.model, views[candidate.backend].card(candidate.model))
        return None


def _sift(
    needs: Needs, places: Sequence[Place], by: Sequence[filters.Filter]
) -> tuple[list[Place], list[Removal]]:
    kept: list[Place] = []
    removals: list[Removal] = []
    for one in places:
        for why_not in by:
            if reason := why_not(needs, one):
                removals.append(_removal(one, reason))
                break
        else:
            kept.append(one)
    return kept, removals


def _removal(one: Place, reason: str) -> Removal:
    return Removal(one.backend.name, reason, one.model)


def _prices(model: str, card: ModelCard) -> Prices:
    return Prices(model, card.input_usd or 0.0, card.output_usd or 0.0)


def _seed(request: InferenceRequest) -> bytes:
    """The same for the same request, so that a dry run draws the lot of the real one."""
    body = request.body
    asked = asked_text(request) or repr(body.get("input") or body.get("prompt") or body.get("messages"))
    return blake2b(f"{request.tenant}\n{asked}".encode("utf-8", "surrogatepass"), digest_size=16).digest()


_BEST = {"cost": "cheapest", "quality": "strongest", "latency": "fastest", "load": "least busy"}


def _why(field: scorers.Field, weights: Mapping[str, float], one: Place, *, first: bool, best: bool) -> str:
    """Why the place stands where it does, in a few words."""
    if "preference" in weights and (words := scorers.preferred(field, one)):
        return _spoken(words)
    if not first:
        return "next"
    rating = [name for name in weights if name not in ("adequacy", "preference")]
    if not rating:
        return "adequate" if "adequacy" in weights else "first of the rest"
    decisive = max(rating, key=weights.__getitem__)
    said = _BEST[decisive] if best else f"among the {_BEST[decisive]}"
    strong = "adequacy" in weights and field.needs.recognition.needs_strong > field.strong_above
    return f"{said} strong enough" if strong and scorers.adequacy(field, one) == 1 else said


@lru_cache(maxsize=1024)
def _spoken(selector: Selector) -> str:
    """A selector as it is written: the kind, then the rest."""
    return " ".join(sorted(selector, key=lambda word: (word not in _KINDS, word)))


_KINDS = frozenset(Kind)
