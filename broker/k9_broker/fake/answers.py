"""What the fake answers: plain words drawn from a hash of the question. Pure; same in, same out."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import to_json

from k9_broker.fake.samples import sample

WORDS = tuple(
    re.findall(
        r"\w+",
        """
river stone light garden window summer letter bridge silver morning paper winter forest music
market harbour island valley candle mirror thunder meadow copper lantern compass feather anchor
orchard marble willow ember saddle basket ribbon pebble tunnel castle meteor cobalt velvet
timber canyon glacier prairie lagoon quartz saffron walnut juniper tulip falcon heron otter
badger lynx sparrow cricket salmon coral dune cliff brook grove
""",
    )
)
"""An answer is made of these alone, whatever was asked: it never quotes a prompt."""

_ASKS_FOR_TOOL = re.compile(r"use the tool ([\w.-]+)", re.IGNORECASE)
_PIECE = 4
"""Characters per token of JSON text."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A function the caller offers; `parameters` is its JSON schema."""

    name: str
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Question:
    """A request to a language model in neither wire's shape.

    `said` is the whole conversation as one text; `asked` is the last message if the user wrote it,
    else empty: after a tool's result the fake answers in words, so that agents come to an end.
    `tool_choice` is `none`, `auto`, `required`, `every` or, as `named:NAME`, one tool. `schema` is
    the JSON schema the answer must fit, if any. `thinking` is the tokens of thought before it.
    """

    said: str
    asked: str = ""
    seed: int = 0
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    tools: tuple[Tool, ...] = ()
    tool_choice: str = "auto"
    parallel: bool = True
    schema: Mapping[str, Any] | None = None
    thinking: int = 0

    @property
    def tokens(self) -> int:
        """Prompt tokens: the words of `said`, at least one."""
        return max(1, len(self.said.split()))

    @property
    def fingerprint(self) -> str:
        """24 hexadecimal digits that differ when what was said or the seed differs."""
        return self._digest("id", 12).hex()

    def _digest(self, purpose: str, length: int) -> bytes:
        return hashlib.shake_128(f"{purpose}\0{self.seed}\0{self.said}".encode(errors="replace")).digest(
            length
        )


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call of a tool the caller offered, with arguments that fit its schema."""

    id: str
    name: str
    arguments: Mapping[str, Any]

    @property
    def pieces(self) -> tuple[str, ...]:
        """The arguments as JSON text, in tokens."""
        return _pieces(to_json(self.arguments).decode())


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model says: tokens whose concatenation is the text, or tool calls."""

    pieces: tuple[str, ...]
    calls: tuple[ToolCall, ...] = ()
    finish: str = "stop"
    """`stop`, `length` or `tool_calls`."""
    thoughts: tuple[str, ...] = ()
    """Tokens of what it thinks before."""
    stopped: str | None = None
    """The stop string before which the text ends, if one does."""

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def tokens(self) -> int:
        """Completion tokens, thoughts included; the name of a called tool counts as one."""
        told = len(self.thoughts) + len(self.pieces)
        return told + sum(1 + len(call.pieces) for call in self.calls) if self.calls else told


def answer(question: Question, length: int, choice: int = 0) -> Answer:
    """The answer to `question`: tool calls if they are asked for, else `length` tokens of text.

    JSON text is as long as its schema needs. `choice` tells the answers to one question apart.
    Thoughts count towards `max_tokens` and come first.
    """
    thoughts: tuple[str, ...] = ()
    if question.thinking:
        thoughts = _prose(question._digest(f"thought{choice}", question.thinking))
    if calls := _calls(question, choice):
        return Answer((), calls, "tool_calls", thoughts)
    if question.schema is None:
        pieces = _prose(question._digest(f"text{choice}", length))
    else:
        pieces = _pieces(to_json(sample(question.schema, question._digest(f"json{choice}", 16))).decode())
    finish = "stop"
    if question.max_tokens is not None and len(thoughts) + len(pieces) > question.max_tokens:
        thoughts, finish = thoughts[: question.max_tokens], "length"
        pieces = pieces[: question.max_tokens - len(thoughts)]
    shortened = until(pieces, question.stop) if question.stop else None
    if shortened is None:
        return Answer(pieces, finish=finish, thoughts=thoughts)
    return Answer(shortened, thoughts=thoughts, stopped=_first(pieces, question.stop))


def until(pieces: Sequence[str], stops: Iterable[str]) -> tuple[str, ...] | None:
    """`pieces` up to where the first of `stops` begins; `None` if none of them occurs."""
    text = "".join(pieces)
    found = [at for stop in stops if stop and (at := text.find(stop)) >= 0]
    if not found:
        return None
    left, kept = min(found), []
    for piece in pieces:
        if left <= 0:
            break
        kept.append(piece[:left])
        left -= len(piece)
    return tuple(kept)


def _first(pieces: Sequence[str], stops: Iterable[str]) -> str:
    """The one of `stops`, of which one occurs, that occurs first."""
    text = "".join(pieces)
    return min((stop for stop in stops if stop and stop in text), key=text.find)


def _prose(draw: bytes) -> tuple[str, ...]:
    """One sentence, a token for each byte: words, then a full stop if there is room for one."""
    words = [" " + WORDS[byte % len(WORDS)] for byte in draw]
    words[0] = words[0].strip().capitalize()
    if len(words) > 1:
        words[-1] = "."
    return tuple(words)


def _pieces(text: str) -> tuple[str, ...]:
    return tuple(text[at : at + _PIECE] for at in range(0, len(text), _PIECE))


def _calls(question: Question, choice: int) -> tuple[ToolCall, ...]:
    if question.tool_choice == "none" or not question.tools:
        return ()
    offered = {tool.name: tool for tool in question.tools}
    names = [name.rstrip(".") for name in _ASKS_FOR_TOOL.findall(question.asked)]
    names = [name for name in names if name in offered]
    if question.tool_choice.startswith("named:"):
        names = [question.tool_choice.removeprefix("named:")]
    elif question.tool_choice == "required" and not names:
        names = [question.tools[0].name]
    elif question.tool_choice == "every" and not names:
        names = list(offered)
    calls = []
    for index, name in enumerate(names if question.parallel else names[:1]):
        draw = question._digest(f"call{choice}.{index}", 28)
        parameters = offered[name].parameters or {"type": "object"}
        calls.append(ToolCall("call_" + draw[:12].hex(), name, sample(parameters, draw[12:])))
    return tuple(calls)
