"""How much a prompt gains from the big model: a score in 0..1, read from the prompt alone.

Two linear experts share one reading of the text. `choice` knows questions with lettered options and learned
from a small and a large model's answers to such questions; `open` takes everything else and learned from
answers to word problems and from prompts graded by hand. Both add up one weight for every distinct word stem
and pair of stems, divided by the square root of their number, and a few weights for the prompt's shape.
A logistic curve turns the sum into the score.

The weights (`strong.json`) are made by `training/needs_strong.py`; pure Python, no other package is needed.
"""

from __future__ import annotations

import json
import re
from functools import cache
from importlib.resources import files
from itertools import pairwise, repeat
from math import exp, log1p, sqrt
from typing import Final, NamedTuple

HEAD: Final = 400
TAIL: Final = 200
"""Characters read at the two ends of a longer prompt: the task stands at one of them."""

_DENSE: Final = 0.04
"""Share of spaces below which nearly every character may be a token, and a third of the text is enough."""

_OPTION_TAIL: Final = 1_500
_HEAD_TOKENS: Final = 120
_TAIL_TOKENS: Final = 60
_STEM: Final = 6
UNIT: Final = 2_000.0
"""The weights are whole numbers of 1/UNIT."""

# Scripts written without spaces give one token a character: their words then appear as pairs.
_UNSPACED = r"\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_tokens = re.compile(rf"[{_UNSPACED}]|[^\W\d_{_UNSPACED}]+|\d|[^\w\s]").findall
_options = re.compile(r"\n\(?[B-E][.):]").findall


class Reading(NamedTuple):
    """What the experts see of a prompt."""

    keys: frozenset[str] | set[str]
    """Distinct stems (`theore`) and pairs of neighbours (`prove that`)."""

    shape: tuple[float, ...]
    """Logarithms of length and of counts, and densities: see `read`."""

    choice: bool
    """Whether lettered options follow the question."""


class Expert(NamedTuple):
    """One linear model; `words` and `shape` are whole numbers of 1/UNIT."""

    words: dict[str, int]
    shape: tuple[int, ...]
    bias: float
    slope: float
    offset: float


class Weights(NamedTuple):
    """The two experts, and the cue words that the shape counts."""

    choice: Expert
    open: Expert
    cues: tuple[frozenset[str], ...]


def read(text: str, cues: tuple[frozenset[str], ...]) -> Reading:
    """Read at most HEAD + TAIL characters of `text`; the cost is bounded whatever its length."""
    length = len(text)
    seen = text if length <= HEAD + TAIL else f"{text[:HEAD]}\n{text[-TAIL:]}"
    if length > HEAD and seen.count(" ") < _DENSE * len(seen):
        seen = f"{seen[: HEAD // 3]}\n{seen[-(TAIL // 3) :]}"
    tokens = _tokens(seen.lower())
    count = len(tokens)
    if count > _HEAD_TOKENS + _TAIL_TOKENS:
        tokens = tokens[:_HEAD_TOKENS] + tokens[-_TAIL_TOKENS:]
    stems = [token[:_STEM] for token in tokens]
    keys = set(stems)
    distinct = len(keys)
    keys.update(map(" ".join, pairwise(stems)))
    size = count + 1
    shape = (
        log1p(distinct * sqrt(max(1.0, length / len(seen)))),
        log1p(seen.count("\n")),
        log1p(seen.count(".") + seen.count("?") + seen.count("。") + seen.count("？")),
        log1p(seen.count(",") + seen.count("，") + seen.count("、")),
        sum(map(seen.count, "0123456789")) / size,
        sum(map(seen.count, "=^\\{}$+∑∫≤≥")) / size,
        *[log1p(len(keys & cue)) for cue in cues],
    )
    return Reading(keys, shape, len(_options(text[-_OPTION_TAIL:])) >= 2)


def total(reading: Reading, expert: Expert) -> float:
    """The expert's linear sum, before its curve."""
    words = sum(map(expert.words.get, reading.keys, repeat(0))) / sqrt(len(reading.keys) + 1)
    shape = sum(weight * value for weight, value in zip(expert.shape, reading.shape, strict=True))
    return expert.bias + (words + shape) / UNIT


def curve(value: float, expert: Expert) -> float:
    """The logistic curve (Platt 1999) that turns a sum into a score, safe for any float."""
    return 1.0 / (1.0 + exp(-max(-30.0, min(30.0, expert.slope * value + expert.offset))))


@cache
def weights() -> Weights:
    """The shipped weights, read once; two threads that come first at the same time both read the same."""
    table = json.loads(files(__package__).joinpath("strong.json").read_text("utf-8"))
    experts = {
        name: Expert(row["words"], tuple(row["shape"]), row["bias"], row["slope"], row["offset"])
        for name, row in table["experts"].items()
    }
    return Weights(experts["choice"], experts["open"], tuple(frozenset(cue) for cue in table["cues"]))


def score(text: str) -> float:
    """The chance, 0..1, that the big model answers `text` right where the small one fails.

    0 for an empty prompt. Higher means harder; the pair of models it was learned from is named in
    `training/NEEDS_STRONG.md`, so choose the threshold on your own pair.
    """
    if not text or text.isspace():
        return 0.0
    known = weights()
    reading = read(text, known.cues)
    expert = known.choice if reading.choice else known.open
    return curve(total(reading, expert), expert)
