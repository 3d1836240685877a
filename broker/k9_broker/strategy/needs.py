"""What a request needs of a place: gathered once, read by every filter and scorer."""

from __future__ import annotations

from dataclasses import dataclass

from k9_broker import tokens
from k9_broker.policy import AUTO, Policy, Rule, Selector
from k9_broker.recognise import Recognition, recognise
from k9_broker.requests import InferenceRequest, Operation, Privacy
from k9_broker.sensitive import Detector
from k9_broker.tokens import TokenEstimate


@dataclass(frozen=True, slots=True)
class Needs:
    request: InferenceRequest
    recognition: Recognition
    strategy: str
    """As named, perhaps short."""
    strategy_by: str
    prefer: tuple[Selector, ...]
    """What rules prefer, before whatever the strategy does."""
    models: tuple[str, ...] | None
    """The only models that will do; `None` means any."""
    privacy: Privacy
    privacy_by: tuple[str, ...]
    prompt: TokenEstimate
    """Of the whole request: what is paid for."""
    window: TokenEstimate
    """Of what must fit the context window at once, without the answer."""
    asked_output: int | None
    """The most tokens one answer may have, when the caller says."""
    output: int
    """Tokens the answer will usually have."""
    tools: bool
    json_schema: bool
    vision: bool
    dimensions: int | None

    @property
    def pinned(self) -> bool:
        """The caller named one model, so strategies choose among its places only."""
        return self.models is not None and len(self.models) == 1


def needs_of(request: InferenceRequest, policy: Policy, detector: Detector) -> Needs:
    prompt = tokens.prompt_tokens(request)
    found = recognise(request)
    rules = [
        rule
        for rule in policy.rules
        if rule.when.holds(request, found.task_type, found.needs_strong, prompt.likely)
    ]
    found = _retyped(found, rules)
    privacy_by = _who_wants_it_local(request, policy, rules, detector)
    strategy, strategy_by = _strategy(request, policy, rules)
    body = request.body
    wanted = body.get("response_format")
    embeds = request.operation is Operation.EMBEDDINGS
    return Needs(
        request=request,
        recognition=found,
        strategy=strategy,
        strategy_by=strategy_by,
        prefer=next((rule.then.prefer for rule in rules if rule.then.prefer), ()),
        models=_models(request.model, policy),
        privacy=Privacy.LOCAL_ONLY if privacy_by else Privacy.ANY,
        privacy_by=privacy_by,
        prompt=prompt,
        window=tokens.longest_input(request, prompt),
        asked_output=None if embeds else tokens.asked_output(request),
        output=0 if embeds else tokens.expected_output(request, found.task_type),
        tools=bool(body.get("tools")) and body.get("tool_choice") != "none",
        json_schema=isinstance(wanted, dict) and wanted.get("type") == "json_schema",
        vision=tokens.has_images(request),
        dimensions=body.get("dimensions") if embeds else None,
    )


def _models(model: str, policy: Policy) -> tuple[str, ...] | None:
    if model == AUTO or model.startswith(f"{AUTO}:"):
        return None
    return policy.aliases.get(model, (model,))


def _retyped(found: Recognition, rules: list[Rule]) -> Recognition:
    if found.by in ("caller", "endpoint"):
        return found
    for rule in rules:
        if rule.then.task_type is not None:
            return Recognition(rule.then.task_type, 1.0, f"rule:{rule.name}", found.needs_strong)
    return found


def _who_wants_it_local(
    request: InferenceRequest, policy: Policy, rules: list[Rule], detector: Detector
) -> tuple[str, ...]:
    wishes = [
        ("caller", request.privacy),
        ("tenant", policy.tenant(request.tenant).privacy),
        ("default", policy.privacy.default),
        *((f"rule:{rule.name}", rule.then.privacy) for rule in rules),
    ]
    who = [name for name, wish in wishes if wish is Privacy.LOCAL_ONLY]
    who += [f"found:{category}" for category in detector.find(tokens.strings(request.body))]
    return tuple(who)


def _strategy(request: InferenceRequest, policy: Policy, rules: list[Rule]) -> tuple[str, str]:
    """The caller's word (a control beats the model's name), then rules, the tenant, the default."""
    if request.strategy:
        return request.strategy, "caller"
    if request.model.startswith(f"{AUTO}:"):
        return request.model.removeprefix(f"{AUTO}:"), "caller"
    for rule in rules:
        if rule.then.strategy:
            return rule.then.strategy, f"rule:{rule.name}"
    if wish := policy.tenant(request.tenant).strategy:
        return wish, "tenant"
    return policy.strategy, "default"
