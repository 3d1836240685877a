"""What the operator wishes: strategies, rules, aliases, tenants and privacy, as `k9.toml` has them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from k9_broker.models import Dollars
from k9_broker.requests import InferenceRequest, Operation, Priority, Privacy, TaskType
from k9_broker.sensitive.categories import Category

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
Share = Annotated[float, Field(ge=0, le=1)]

SCORERS = ("preference", "adequacy", "cost", "quality", "latency", "load")
"""What a strategy may weigh. Each scorer rates a place from 0 to 1; `strategy/scorers.py` has them."""


def _listed(value: Any) -> Any:
    """One value may stand for a list of one."""
    return [value] if isinstance(value, str) else value


def _selector(value: Any) -> Any:
    words = value.split() if isinstance(value, str) else value
    if not words or not isinstance(words, list | frozenset):  # without a word it would fit every place
        raise ValueError("a selector is one word or more, such as `local small`")
    return frozenset(words)


Selector = Annotated[frozenset[str], BeforeValidator(_selector)]
"""Words that must all be true of a place: `local`, `cloud`, a tag of its model, `backend:NAME` or
`model:NAME`. Written as one string: `local small`."""
Selectors = Annotated[tuple[Selector, ...], BeforeValidator(_listed)]

AUTO = "auto"
"""The model's name that leaves the choice to a strategy, which may follow it: `auto:cost`."""


def _not_ours(name: str) -> str:
    if name == AUTO or name.startswith(f"{AUTO}:"):
        raise ValueError(f"{name!r} is K-9's own word; call the alias something else")
    return name


_ModelName = Annotated[str, Field(min_length=1)]


def _name_models(aliases: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    for name, models in aliases.items():
        for model in models:
            if model in aliases and model != name:
                raise ValueError(f"{name!r} stands for {model!r}, which is an alias itself; name its models")
    return aliases


Aliases = Annotated[
    dict[
        Annotated[_ModelName, AfterValidator(_not_ours)],
        Annotated[tuple[_ModelName, ...], BeforeValidator(_listed), Field(min_length=1)],
    ],
    AfterValidator(_name_models),
]
"""Names callers may use, and the models each stands for."""


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class When(_Table):
    """Conditions on a request; all that are given must hold. None given: always."""

    task_type: Annotated[tuple[TaskType, ...], BeforeValidator(_listed)] = ()
    operation: Annotated[tuple[Operation, ...], BeforeValidator(_listed)] = ()
    tenant: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ()
    model: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ()
    """As the caller named it."""
    priority: Priority | None = None
    tokens_over: int | None = Field(default=None, ge=0)
    """Estimated tokens of the prompt."""
    tokens_under: int | None = Field(default=None, ge=0)
    needs_strong_over: Share | None = None
    needs_strong_under: Share | None = None

    @model_validator(mode="after")
    def _can_hold(self) -> When:
        for over, under in ("tokens_over", "tokens_under"), ("needs_strong_over", "needs_strong_under"):
            least, most = getattr(self, over), getattr(self, under)
            if least is not None and most is not None and least >= most:
                raise ValueError(f"{over} must be less than {under}, or it never holds")
        return self

    def holds(
        self, request: InferenceRequest, task_type: TaskType | None, needs_strong: float, tokens: int
    ) -> bool:
        return (
            (not self.task_type or task_type in self.task_type)
            and (not self.operation or request.operation in self.operation)
            and (not self.tenant or request.tenant in self.tenant)
            and (not self.model or request.model in self.model)
            and (self.priority is None or request.priority is self.priority)
            and (self.tokens_over is None or tokens > self.tokens_over)
            and (self.tokens_under is None or tokens < self.tokens_under)
            and (self.needs_strong_over is None or needs_strong > self.needs_strong_over)
            and (self.needs_strong_under is None or needs_strong < self.needs_strong_under)
        )


class Preference(_Table):
    """A rule of a strategy: when it holds, prefer places in this order. The first that holds decides."""

    when: When = When()
    prefer: Annotated[Selectors, Field(min_length=1)]


class Strategy(_Table):
    """How to rank the places that may take a request: scores, weighted and added up."""

    name: Name
    extends: Name | None = None
    """Weights and rules to start from; its own weights replace those, its own rules come first."""
    weights: dict[str, Annotated[float, Field(ge=0, le=1e6)]] = Field(default_factory=dict)
    rules: tuple[Preference, ...] = ()
    near: Share | None = None
    """Places whose score is within this share of the best are equals: requests are spread over them."""

    @field_validator("weights")
    @classmethod
    def _known(cls, weights: dict[str, float]) -> dict[str, float]:
        if unknown := sorted(set(weights) - set(SCORERS)):
            raise ValueError(f"{unknown[0]!r} is no scorer; use {', '.join(SCORERS)}")
        return weights


class Consequence(_Table):
    """What a rule says of the requests it holds for."""

    privacy: Privacy | None = None
    """Can only make it stricter."""
    task_type: TaskType | None = None
    """Instead of what recognition finds; the caller's own word wins."""
    strategy: Name | None = None
    """Unless the caller names one."""
    prefer: Selectors = ()
    """Before whatever the strategy prefers."""

    @model_validator(mode="after")
    def _says_something(self) -> Consequence:
        if self == Consequence.model_construct():
            raise ValueError("say what follows: privacy, task_type, strategy or prefer")
        if self.task_type is TaskType.EMBEDDINGS:
            raise ValueError("embeddings are known by their endpoint; a rule gives the other task types")
        return self


class Rule(_Table):
    """A rule for all strategies. Of several that hold, the first with a word on a matter decides it."""

    name: Annotated[str, Field(min_length=1, max_length=80)]
    when: When = When()
    then: Consequence


class PrivacyPolicy(_Table):
    """What may leave the operator's own machines."""

    default: Privacy = Privacy.ANY
    detect: tuple[Category, ...] = tuple(Category)
    """Kinds of sensitive content that keep a request local."""
    words: tuple[Annotated[str, Field(min_length=2, max_length=200)], ...] = ()
    """Words and phrases that keep a request local."""


class TenantPolicy(_Table):
    """What holds for one tenant, that is, for the API keys that name it."""

    strategy: Name | None = None
    privacy: Privacy | None = None
    budget_usd_per_day: float | None = Field(default=None, ge=0, le=1e6)
    """US dollars a day (UTC). Exhausted, its work goes where it costs nothing, or is refused."""
    weight: float = Field(default=1.0, ge=0.01, le=100)
    """Its share of a queue that several tenants wait in, beside the others' weights."""
    max_in_flight: int | None = Field(default=None, ge=1)
    """Jobs of it that run at once, at all backends together; the others wait."""


class CloudModel(_Table):
    """A cloud model to compare all costs with; prices in US dollars for a million tokens."""

    model: str
    input_usd: Dollars
    output_usd: Dollars


class Policy(_Table):
    """All wishes together: what, beside the request and the snapshot, a decision depends on."""

    strategy: Name = "task-type"
    """The default."""
    embedding_model: str | None = Field(default=None, min_length=1)
    """What `auto` embeds with; `None`: what it embedded with before."""
    strong_above: Share = 0.45
    """`needs_strong` scores above it ask for a strong model."""
    strong_quality: Share = 0.75
    """The quality from which a model counts as strong."""
    strategies: tuple[Strategy, ...] = ()
    rules: tuple[Rule, ...] = ()
    aliases: Aliases = Field(default_factory=dict)
    privacy: PrivacyPolicy = PrivacyPolicy()
    tenants: dict[str, TenantPolicy] = Field(default_factory=dict)
    compare_with: CloudModel | None = None
    """What a saving is measured by; `None`: the cloud model the job would have gone to."""
    shared: bool = False
    """There are several tenants, so that none may fill a queue."""

    def tenant(self, name: str) -> TenantPolicy:
        return self.tenants.get(name, _NO_WISHES)


_NO_WISHES = TenantPolicy()
