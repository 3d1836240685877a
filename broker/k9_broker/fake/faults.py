"""How the fake behaves: speed, limits and faults as one frozen value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from k9_broker.errors import BadRequest

Flavour = Literal["plain", "openai", "vllm", "tgi", "tei", "llamacpp"]
"""Which server's habits the paths have that several servers share."""


class Behaviour(BaseModel):
    """Everything about the fake that can be set; changed as a whole while it runs.

    Times are milliseconds, unless the name says seconds. Faults strike inference requests only,
    never the lists of models or the health routes, which have their own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    # -- what it offers ---------------------------------------------------------------------------
    flavour: Flavour = "plain"
    """Whose `/v1/*`, `/health`, `/metrics`, `/info` and `/slots` are; the other wires are there anyway."""
    api_key: SecretStr | None = None
    """Requests without it, in a header of their wire, get that wire's 401. Never shown."""
    models: tuple[str, ...] = ("fake-chat", "fake-embed")
    """Any of them takes any operation; another name is 404."""
    answer_tokens: int = Field(default=16, ge=1, le=100_000)
    """Tokens of an answer in words; a smaller `max_tokens` cuts it."""
    reasoning_tokens: int = Field(default=0, ge=0, le=100_000)
    """Tokens of thought before every answer, told as the wire tells them. OpenAI's are counted and kept
    back, TGI has none, Ollama's can be declined, Anthropic thinks only if asked, then at least a little."""
    dimensions: int = Field(default=64, ge=1, le=8192)
    """Of an embedding, unless the request names its own."""
    context_tokens: int = Field(default=0, ge=0)
    """Prompt and `max_tokens` beyond this are refused as too long; 0: no limit."""
    max_inputs: int = Field(default=2048, ge=1)
    """More embedding inputs in one request are refused; of TEI never more than 32."""

    # -- how fast it is ---------------------------------------------------------------------------
    latency_ms: float = Field(default=0, ge=0)
    """Before every answer."""
    first_token_ms: float = Field(default=0, ge=0)
    """Then, before the first token of a text."""
    prompt_token_ms: float = Field(default=0, ge=0)
    """The same for each token of the prompt: the time to read it."""
    tokens_per_second: float = Field(default=0, ge=0)
    """Then the rate of the tokens; 0: all at once."""
    per_input_ms: float = Field(default=0, ge=0)
    """For each input of an embeddings request."""
    cold_load_ms: float = Field(default=0, ge=0)
    """The first request for a model waits so long without a byte. Setting it unloads every model."""
    slots: int = Field(default=0, ge=0)
    """Requests worked on at once; more wait, as real servers let them. 0: no limit."""
    max_waiting: int | None = Field(default=None, ge=0)
    """Where so many wait for a slot, another is refused with 429; unset: any number may wait."""

    # -- limits of rate ---------------------------------------------------------------------------
    requests_per_minute: int = Field(default=0, ge=0)
    """More are refused with 429, and every answer tells what is left. 0: no limit."""
    tokens_per_minute: int = Field(default=0, ge=0)
    """Prompt and answer together; Azure counts `max_tokens` for the answer. 0: no limit."""
    rate_burst: float = Field(default=60, gt=0)
    """Seconds' worth of the two that may be used at once, after as long a pause."""

    # -- errors: a status instead of an answer ----------------------------------------------------
    error_status: int = Field(default=500, ge=400, le=599)
    """What `fail_next`, `every_nth` and `error_rate` answer with."""
    error_code: str | None = None
    """OpenAI's `error.code`; without it the usual one of the status, if there is one."""
    retry_after: float | None = Field(default=None, ge=0)
    """Seconds in the header `Retry-After` of such an error; of Anthropic's answers too, to no effect."""
    fail_next: int = Field(default=0, ge=0)
    """So many requests fail, counted from when this is set."""
    every_nth: int = Field(default=0, ge=0)
    """Every nth request fails; 0: none."""
    error_rate: float = Field(default=0, ge=0, le=1)
    """The share of requests that fail, evenly spread: 0.25 is each fourth."""
    fail_inputs_containing: str | None = Field(default=None, min_length=1)
    """An embeddings request with this text in any input is refused with 400."""

    # -- health -----------------------------------------------------------------------------------
    health_status: int | None = Field(default=None, ge=200, le=599)
    """What `/health` answers whatever else is true; a wire without it answers its lists with an error."""
    loading: bool = False
    """The server is not up yet: 503 to everything, or, as of those that listen only later, a reset."""

    # -- faults of the connection -----------------------------------------------------------------
    hang: bool = False
    """Take the request and never answer."""
    reset: bool = False
    """Reset the connection before any byte."""
    cut_after_tokens: int | None = Field(default=None, ge=0)
    """Close the connection after so many tokens, without an end; a plain answer stops half way."""
    error_after_tokens: int | None = Field(default=None, ge=0)
    """After so many tokens send an error inside the stream; a plain answer is an error with status 200."""
    die_after_head: bool = False
    """Close the connection after status and headers."""
    stall_after_tokens: int | None = Field(default=None, ge=0)
    """After so many tokens send nothing more and keep the connection; a plain answer stops half way."""
    fault_next: int | None = Field(default=None, ge=0)
    """The six above strike only so many requests, counted from when this is set; unset: all."""
    keep_alive_seconds: float = Field(default=75, gt=0)
    """A connection without a request for so long is closed."""
    close_reused: float = Field(default=0, ge=0, le=1)
    """The share of requests on a connection used before that it is closed on, before any byte."""

    @property
    def served(self) -> str:
        """The model of a server that has one."""
        return self.models[0] if self.models else "fake"

    @property
    def faulty(self) -> bool:
        """Whether any fault of the connection is set."""
        return (
            self.hang
            or self.reset
            or self.die_after_head
            or self.cut_after_tokens is not None
            or self.error_after_tokens is not None
            or self.stall_after_tokens is not None
        )


def changed(behaviour: Behaviour, changes: object) -> Behaviour:
    """`behaviour` with the fields of `changes` replaced. Raises `BadRequest` naming the field."""
    if not isinstance(changes, Mapping):
        raise BadRequest("Send a JSON object of behaviour fields.")
    try:
        return Behaviour.model_validate({**behaviour.model_dump(), **changes})
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        name = ".".join(str(part) for part in problem["loc"])
        raise BadRequest(f"{name}: {problem['msg']}", param=name) from None
