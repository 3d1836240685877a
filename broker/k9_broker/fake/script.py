"""What a wire wants sent, and when, before any of it is."""

from __future__ import annotations

from collections.abc import Collection, Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from k9_broker.fake.faults import Behaviour

Headers = tuple[tuple[str, str], ...]

EPOCH = 1_700_000_000
"""Unix seconds of every date the fake writes: 2023-11-14T22:13:20Z. Answers have no clock in them."""


@dataclass(frozen=True, slots=True)
class Call:
    """One inference request, read."""

    body: Mapping[str, Any] = field(repr=False)
    behaviour: Behaviour
    model: str | None
    """The model of the fake that the request names, if there is one."""
    cold: bool
    """The model has to be loaded first."""
    version: str | None = None
    """Of the API, where a wire has several and the request must name one."""
    remembered: Container[bytes] = frozenset()
    """Digests of the beginnings of prompts that are in the cache."""


def find(models: Collection[str], name: object) -> str | None:
    """The one of `models` that `name` means, as Ollama reads names: no tag is `:latest`."""
    if isinstance(name, str) and name in models:
        return name
    for model in models:
        if name in (model, f"{model}:latest") or model == f"{name}:latest":
            return model
    return None


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer that is sent at once: an error, a list."""

    body: bytes = field(repr=False)
    status: int = 200
    content_type: str = "application/json"
    headers: Headers = ()


class Refused(Exception):
    """The request gets this reply and no answer."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


@dataclass(frozen=True, slots=True)
class Script:
    """An answer that takes time.

    `frames` are sent in order, each as soon as its number of tokens exists; a plain answer is one
    frame. `tokens` is the longest choice's length; a frame that ends the stream bears one more, so
    that it can be cut off. `error` is what the wire sends when a fault ends the answer early.
    `prompt` and `generated` are the tokens of all of it, `charge` what a limit of rate takes for it.
    `remembers` are digests of beginnings of the prompt that are in the cache from now on.
    """

    content_type: str
    frames: Sequence[tuple[int, bytes]] = field(repr=False)
    error: bytes = field(repr=False)
    streamed: bool = False
    tokens: int = 0
    inputs: int = 0
    unload: bool = False
    headers: Headers = ()
    prompt: int = 0
    generated: int = 0
    charge: int = 0
    remembers: tuple[bytes, ...] = ()
