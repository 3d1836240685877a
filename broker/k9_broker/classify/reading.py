"""What the recogniser reads of a text: a bounded part of it, as words, as structure and as places.

Nothing here grows with the text: at most `HEAD` characters from its start and `TAIL` from its end are
looked at, and of those at most `FIRST` and `LAST` tokens, however long it is.
"""

from __future__ import annotations

import re
from collections.abc import Container
from itertools import islice, repeat
from operator import add, mul
from typing import Final, NamedTuple

HEAD: Final = 640
TAIL: Final = 400
FIRST: Final = 110
LAST: Final = 80
DENSE_HEAD: Final = 200
DENSE_TAIL: Final = 120
"""The characters read of a text without spaces between its words, which says more in each."""
_FEW_FIRST: Final = 320
_FEW_LAST: Final = 220

EDGE: Final = 20
"""How many tokens count as near the start or near the end."""
PLACES: Final = 3
"""How many tokens at either end are known by their position."""
PLACE_BUCKETS: Final = 4096

# Scripts written without spaces between words: every character is a token of its own there.
_UNSPACED: Final = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
)

# Marks whose number tells prose, lists, formulas and code apart. Each is counted with `str.count`.
MARKS: Final = (
    *("\n", "\n\n", "\n ", "\n\t", "```", "`", ";\n", "{", "(", "()", "[", "<", "</", "=", "==", "->"),
    *("$", "\\", "^", "%", "#", "//", "/*", '"""', '"', "'", ",", ". ", "?", "!", ":", ":\n", "|", "_"),
    *("* ", "\n- ", "\n1", "B)", "B.", "(B)", "...", "://", "@", " I ", "<|", "_suf", "TODO", "…"),
)
_ENDINGS: Final = "?!.:;,)}]>\"'`({=|$…»？。！：؟”」"
LEVELS: Final = 8
QUESTIONS: Final = len(MARKS) + 10
_LEVEL_OF: Final = tuple(min(number.bit_length(), LEVELS - 1) for number in range(HEAD + TAIL + 3))

UNKNOWN: Final = (
    *("<word>", "<long>", "<foreign>", "<character>", "<sign>", "<indent>", "<deep>"),
    *("<1>", "<2>", "<3>", "<4>", "<many>"),
)
"""The shapes of tokens that are not in the vocabulary."""


class Vocabulary(dict[str, int]):
    """Token to number. A token it does not hold gets the number of its shape; it holds all of `UNKNOWN`."""

    def __missing__(self, token: str) -> int:
        return self[_shape(token)]


def _shape(token: str) -> str:
    first = token[0]
    if first.isalpha():
        if token.isascii():
            return "<word>" if len(token) < 9 else "<long>"
        return "<foreign>" if len(token) > 1 else "<character>"
    if first == "\n":
        return "<indent>" if len(token) < 6 else "<deep>"
    if first.isdigit():
        return ("<1>", "<2>", "<3>", "<4>")[len(token) - 1] if len(token) < 5 else "<many>"
    return "<sign>"


dense = re.compile(f"[{_UNSPACED}]").search

# Simple character classes are quicker, so that plain ASCII has its own tokeniser.
_tokens_of_ascii = re.compile(
    r"[a-z]+(?:'[a-z]+)?|[!-/:-@\[-`{-~]|\n[ \t]*|[0-9]+|[\x00-\x08\x0e-\x1b\x7f]"
).findall
_tokens_of_any = re.compile(
    rf"[{_UNSPACED}]|[^\W\d_{_UNSPACED}]+(?:['’][a-z]+)?|\d+|\n[ \t]*|[^\w\s]|_"
).findall


def tokens(text: str) -> list[str]:
    """Words, numbers, line ends with their indent and single marks of a lower-case text."""
    return _tokens_of_ascii(text) if text.isascii() else _tokens_of_any(text)


def unspaced(word: str) -> bool:
    """Whether a vocabulary word is a pair of characters of a script without spaces."""
    return len(word) == 2 and dense(word) is not None


class Reading(NamedTuple):
    tokens: list[str]
    """Lower case; of a long text those from its start, then those from its end."""
    structure: list[int]
    """One answer (0 to `LEVELS` - 1) to each of the `QUESTIONS`."""


def read(text: str, phrases: Container[str] = ()) -> Reading:
    """Read the bounded part of `text`. Any string will do: empty, control characters, lone surrogates.

    In scripts without spaces every character is a token, but where two make one of `phrases`, both stand in
    the place of the first.
    """
    head, tail = (text, "") if len(text) <= HEAD + TAIL else (text[:HEAD], text[-TAIL:])
    seen = f"{head}\n{tail}" if tail else text
    crowded = not seen.isascii() and dense(seen) is not None
    found: list[str] = []
    if crowded and len(seen) > DENSE_HEAD + DENSE_TAIL and seen.count(" ") * 12 < len(seen):
        head, tail = seen[:DENSE_HEAD], seen[-DENSE_TAIL:]
    elif crowded:
        found = _crowded_ends(seen)
    if not found:
        found = tokens(head.lower())
        if tail:
            found[FIRST:] = tokens(tail.lower())
        if len(found) > FIRST + LAST:
            found[FIRST:-LAST] = []
    if crowded:
        found = [a + b if a + b in phrases else a for a, b in zip(found, [*found[1:], ""], strict=True)]
    return Reading(found, _structure(text, seen))


def _crowded_ends(seen: str) -> list[str]:
    """The tokens at both ends, where so few characters hold them all that the rest need not be cut up.

    Empty where they do not: then everything must be.
    """
    if len(seen) > _FEW_FIRST + _FEW_LAST:
        first = tokens(seen[:_FEW_FIRST].lower())
        if len(first) > FIRST:
            last = tokens(seen[-_FEW_LAST:].lower())
            if len(last) > LAST:
                return first[:FIRST] + last[-LAST:]
    return []


def _structure(text: str, seen: str) -> list[int]:
    answers = list(map(_LEVEL_OF.__getitem__, map(seen.count, MARKS)))
    length, size, end = len(text), len(seen), text[-200:]
    words, lines = seen.count(" ") + 1, seen.count("\n") + 1
    last = end.rstrip()[-1:]
    ending = _ENDINGS.find(last) + 1 if last else 0
    if not ending:
        ending = 29 if last.isdigit() else 30 if last.isalpha() else 31
    start = text[:40].lstrip()[:1]
    answers += (
        min(length.bit_length() // 2, 7),
        min(max(length.bit_length() - 3, 0), 7),
        _LEVEL_OF[words],
        min(size // words // 2, 7),
        _LEVEL_OF[size // lines],
        ending // LEVELS,
        ending % LEVELS,
        1 if seen.isascii() else 2,
        1 if start.isupper() else 2 if start.islower() else 3 if start.isdigit() else 4,
        _LEVEL_OF[len(end.rpartition("\n")[2])] if "\n" in end else 0,
    )
    return answers


class Parts(NamedTuple):
    """What was read, as row numbers of the table's seven parts."""

    words: list[int]
    pairs: list[int]
    first_words: list[int]
    first_pairs: list[int]
    last_words: list[int]
    last_pairs: list[int]
    fixed: list[int]
    """Structure, then the first and last tokens by their place: always as many, but for tiny texts."""


def place(reading: Reading, words: Vocabulary, pairs: dict[int, int], width: int) -> Parts:
    """Row numbers of a reading. A pair of neighbours a, b has the key a * `width` + b; row 0 is for all
    pairs that `pairs` does not hold."""
    numbers = list(map(words.__getitem__, reading.tokens))
    keys = map(add, map(mul, numbers, repeat(width)), islice(numbers, 1, None))
    found = list(map(pairs.get, keys, repeat(0)))
    fixed = list(map(add, reading.structure, range(0, QUESTIONS * LEVELS, LEVELS)))
    for code, edge in ((7, numbers[:PLACES]), (11, numbers[: -PLACES - 1 : -1])):
        # The first token, the first two, the first three; the last, the last two, the last three.
        for number in edge:
            code = (code * 1_000_003 + number + 1) & 0xFFFFFFFF
            fixed.append((code ^ code >> 13) % PLACE_BUCKETS + QUESTIONS * LEVELS)
    return Parts(numbers, found, numbers[:EDGE], found[: EDGE - 1], numbers[-EDGE:], found[1 - EDGE :], fixed)


def factors(parts: Parts) -> tuple[float, float, float]:
    """What the sums over everything, over the two edges, and over the fixed part are multiplied by."""
    everything, edges = len(parts.words), len(parts.first_words)
    return 1 / max(everything, 1) ** 0.5, 1 / max(edges, 1) ** 0.5, 0.35
