"""What to simulate: backends, traffic, wishes and the policy, as a TOML file has them."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from k9_broker.backends import Name
from k9_broker.errors import ConfigurationError
from k9_broker.policy import Policy
from k9_broker.requests import Kind, Priority, Privacy, TaskType
from k9_broker.simulation.policies import PolicyName

EXAMPLE = """
# Two GPUs' worth of local servers, a cloud behind them, and half of what Azure's services were asked.
[backends.gpu]
instances = 2
slots = 8
first = 0.05
per_prompt_token = 0.0001
per_token = 0.03
usd_per_hour = 2.0
overflow_wait = 2.0

[backends.cloud]
kind = "cloud"
slots = 64
first = 0.4
per_prompt_token = 0.00005
per_token = 0.012
input_usd = 0.4
output_usd = 1.6

[traffic.azure]
arrivals = "synthetic"
rate = 4.5
seconds = 3600
"""
"""What is simulated when nobody says what."""


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Machine(_Table):
    """One backend: how fast it is, what it costs, and its marks, which mean what they do in `k9.toml`."""

    kind: Kind = Kind.LOCAL
    instances: int = Field(default=1, ge=1)
    slots: int = Field(default=8, ge=1)
    """Of each instance."""
    first: float = Field(default=0.1, ge=0)
    """Seconds to the first token of an answer to an empty prompt."""
    per_prompt_token: float = Field(default=0.0, ge=0)
    """Seconds to read one token of the prompt."""
    per_token: float = Field(default=0.02, ge=0)
    """Seconds for each further token of the answer, for one request alone."""
    batching: float = Field(default=0.0, ge=0)
    """How much longer a request takes when all slots are taken: 0.5 is half as long again."""
    jitter: float = Field(default=0.0, ge=0, lt=1)
    """The share by which a time may be shorter or longer than it should, evenly spread."""
    usd_per_hour: float = Field(default=0.0, ge=0)
    """Of one instance, busy or not: counted in the report, unknown to routing."""
    gpu_usd_per_hour: float | None = Field(default=None, ge=0)
    """As in `k9.toml`: what an hour of an instance costs, as routing reckons with it."""
    input_usd: float = Field(default=0.0, ge=0)
    output_usd: float = Field(default=0.0, ge=0)
    """US dollars for a million tokens."""
    quality: float = Field(default=0.8, ge=0, le=1)
    context_window: int | None = Field(default=None, ge=1)
    max_waiting: int = Field(default=256, ge=0)
    max_waiting_batch: int = Field(default=1024, ge=0)
    overflow_at: int | None = Field(default=None, ge=0)
    overflow_wait: float | None = Field(default=10.0, ge=0)
    reserved_slots: int | None = Field(default=None, ge=0)

    @property
    def capacity(self) -> int:
        """Requests all its instances work on at once."""
        return self.instances * self.slots


class Traffic(_Table):
    """One stream of requests, all of one tenant and class."""

    arrivals: Literal["synthetic", "poisson", "trace", "feeder"] = "synthetic"
    """Drawn like the published trace; a Poisson stream; a file; or a batch's feeder, which keeps `window`
    lines under way and sends the next when one ends."""
    trace: Path | None = None
    rate: float | None = Field(default=None, gt=0)
    """Requests a second on average; of a trace, `None` is as fast as it was."""
    seconds: float | None = Field(default=None, gt=0)
    """How long they come; of a trace, how much of it is taken."""
    requests: int | None = Field(default=None, ge=1)
    """How many come at most."""
    begins: float = Field(default=0.0, ge=0)
    """When the first may come, seconds."""
    start: float = Field(default=0.0, ge=0)
    """Seconds of a trace to pass over."""
    every: int = Field(default=1, ge=1)
    """Take each nth request of a trace."""
    window: int = Field(default=64, ge=1)
    prompt_tokens: int = Field(default=500, ge=0)
    output_tokens: int = Field(default=100, ge=1)
    lengths: Literal["fixed", "exponential"] = "fixed"
    """Of what a Poisson stream or a feeder asks: always the same, or exponential with these means."""
    tenant: str = "default"
    priority: Priority = Priority.INTERACTIVE
    deadline: float | None = Field(default=None, gt=0)
    patient: bool = False
    privacy: Privacy = Privacy.ANY
    task_type: TaskType | None = None
    """`None`: a trace's code is code completion, all else is chat."""
    tells_output: bool = False
    """Whether callers ask for no more tokens than they get (`max_tokens`)."""

    @model_validator(mode="after")
    def _is_whole(self) -> Traffic:
        if (self.trace is None) == (self.arrivals == "trace"):
            raise ValueError('`trace` names a file, and goes with `arrivals = "trace"`')
        if self.arrivals == "poisson" and self.rate is None:
            raise ValueError("a Poisson stream needs a rate")
        if self.arrivals == "feeder" and self.requests is None:
            raise ValueError("a feeder needs `requests`: how many lines its batch has")
        return self


class Slo(_Table):
    """What it is for an interactive request to be served well: both, and a whole answer."""

    ttft: float = Field(default=5.0, gt=0)
    """Seconds from a request's arrival to its first token, at most."""
    tpot: float = Field(default=0.1, gt=0)
    """Seconds between its tokens on average, at most."""


class Scenario(_Table):
    """One run. The same scenario gives the same report on every machine."""

    seed: int = 7
    policy: PolicyName = PolicyName.K9
    exact: bool = False
    """Decide each request anew, by speeds measured as workers measure them. Slow; strategies that weigh
    latency or load always do."""
    requests: int | None = Field(default=None, ge=1)
    """Arrivals of all streams together, at most; a feeder's lines are not counted."""
    own_queue: int = Field(default=8, ge=0)
    """With `fallback`, requests that wait at a local instance before it refuses."""
    way: float = Field(default=0.0, ge=0)
    """Seconds a slot is held for K-9's own work around a call."""
    backends: dict[Name, Machine] = Field(min_length=1)
    """In order of preference."""
    traffic: dict[Name, Traffic] = Field(min_length=1)
    routing: Policy = Policy(strategy="cost-first")
    """The operator's wishes: strategy, rules, tenants with weights, caps and budgets."""
    slo: Slo = Slo()

    def endless(self) -> Scenario:
        """The same with streams that last until `requests` have come, where they can."""
        lasting = {
            name: one if one.arrivals in ("trace", "feeder") else one.model_copy(update={"seconds": None})
            for name, one in self.traffic.items()
        }
        return self.model_copy(update={"traffic": lasting})


def load(path: Path | None = None, changes: Sequence[str] = (), **fields: Any) -> Scenario:
    """The scenario in a file, or the built-in one, with `key=value` changes such as `backends.gpu.slots=16`
    and whole `fields` in place of its own. Raises `ConfigurationError` that names the key."""
    try:
        text = EXAMPLE if path is None else path.read_text(encoding="utf-8")
        said = tomllib.loads(text)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"The scenario {path} cannot be read: {error}") from None
    for change in changes:
        _change(said, change)
    for stream in said.get("traffic", {}).values():  # a trace lies beside its scenario
        if path is not None and isinstance(stream, dict) and isinstance(stream.get("trace"), str):
            stream["trace"] = path.parent / stream["trace"]
    try:
        return Scenario.model_validate({**said, **fields})
    except ValidationError as error:
        lines = [
            f"  {'.'.join(map(str, one['loc'])) or 'scenario'}: {one['msg'].removeprefix('Value error, ')}"
            for one in error.errors(include_url=False, include_input=False)
        ]
        raise ConfigurationError(
            f"The scenario {path or 'built in'} is not valid:\n" + "\n".join(lines)
        ) from None


def _change(said: dict[str, Any], change: str) -> None:
    key, equals, text = change.partition("=")
    words = key.strip().split(".")
    if not equals or not all(words):
        raise ConfigurationError(f"{change!r} changes nothing: write key=value, as in backends.gpu.slots=16.")
    table = said
    for word in words[:-1]:
        within = table.setdefault(word, {})
        if not isinstance(within, dict):
            raise ConfigurationError(f"{key!r}: {word!r} is no table of the scenario.")
        table = within
    table[words[-1]] = _value(text.strip())


def _value(text: str) -> Any:
    """As TOML reads it; bare words are strings."""
    try:
        found: Mapping[str, Any] = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return found["value"]
